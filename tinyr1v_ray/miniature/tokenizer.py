"""The miniature's own tokenizer: byte-level BPE as in Qwen2.5, trained on the text of the tasks.

Digits are single tokens, the chat and vision tokens carry Qwen's names, and the reasoning and answer tags are one
ordinary (not special) token each, so that they survive decoding.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain

from tokenizers import AddedToken, Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Tokenizer

from tinyr1v_ray.miniature.tasks.catalogue import items
from tinyr1v_ray.miniature.tasks.item import Style
from tinyr1v_ray.miniature.tasks.pools import Domain, Pool

END_OF_TEXT = "<|endoftext|>"
END_OF_TURN = "<|im_end|>"
SPECIAL_TOKENS = (
    END_OF_TEXT,
    "<|im_start|>",
    END_OF_TURN,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
VOCAB_SIZE = 512
NUM_CORPUS_ITEMS = 1500
"""Items of each domain whose text the merges are learned from."""


def corpus(seed: int) -> Iterable[str]:
    """Questions and full answers of the warm-up pool, without tags, and the roles of the chat."""
    for item in chain.from_iterable(items(domain, Pool.WARMUP, NUM_CORPUS_ITEMS, seed) for domain in Domain):
        yield item.question
        yield item.thoughts.in_style(Style.FULL)
        yield item.thoughts.needed
    yield from ["system\n", "user\n", "assistant\n"] * NUM_CORPUS_ITEMS


def train_tokenizer(seed: int) -> Qwen2Tokenizer:
    """Learn the merges and return the tokenizer with all special tokens; `VOCAB_SIZE` ids in total.

    Special tokens come last, as in Qwen2.5. Training is deterministic: merges depend on counts alone.
    """
    splitting = Qwen2Tokenizer(vocab={END_OF_TEXT: 0}, merges=[]).backend_tokenizer.pre_tokenizer
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = splitting
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIAL_TOKENS) - len(TAGS),
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(corpus(seed), trainer)
    learned = json.loads(learner.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in TAGS])
    return tokenizer
