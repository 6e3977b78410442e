"""A Qwen2.5-VL of about two million parameters."""

from __future__ import annotations

import torch
from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from tinyr1v_ray.miniature.tokenizer import END_OF_TEXT, END_OF_TURN

ROPE = {"rope_type": "default", "rope_theta": 10.0, "mrope_section": [2, 4, 10]}
"""Rotary frequencies for images of a few cells.

Multimodal rotary positions give the highest frequencies to time, the next to rows and the lowest to columns. With
Qwen's base of a million a neighbouring column would turn a key of 32 numbers by less than 0.003 rad, and the model
could not tell columns apart; with a base of 10 the columns have frequencies from 0.42 to 0.12 rad a cell.
"""

TEXT_SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rope_parameters": ROPE,
}
VISION_SHAPE = {
    "depth": 2,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_heads": 4,
    "out_hidden_size": 128,
    "window_size": 112,
    "fullatt_block_indexes": [1],
}


def make_config(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLConfig:
    """Qwen2.5-VL-3B's proportions in small: tied embeddings, window attention in every vision block but the last."""
    token_id = tokenizer.convert_tokens_to_ids
    end_ids = {"eos_token_id": token_id(END_OF_TURN), "pad_token_id": token_id(END_OF_TEXT)}
    return Qwen2_5_VLConfig(
        text_config={
            **TEXT_SHAPE,
            **end_ids,
            "bos_token_id": token_id(END_OF_TEXT),
            "vocab_size": len(tokenizer),
            "tie_word_embeddings": True,
        },
        vision_config=dict(VISION_SHAPE),
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
        dtype="float32",
        **end_ids,
    )


def make_model(tokenizer: Qwen2Tokenizer, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """The model with random weights, drawn from `seed`, in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(make_config(tokenizer))
    token_id = tokenizer.convert_tokens_to_ids
    model.generation_config = GenerationConfig(
        eos_token_id=[token_id(END_OF_TURN), token_id(END_OF_TEXT)],
        pad_token_id=token_id(END_OF_TEXT),
        bos_token_id=token_id(END_OF_TEXT),
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
    )
    return model.float()
