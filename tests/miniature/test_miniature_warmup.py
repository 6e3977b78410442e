"""Warm-up: what is rendered, cut, labelled and trained."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2_5_VLProcessor

from tinyr1v_ray.miniature.batches import (
    IGNORED,
    STYLE_SHARES,
    collate,
    conversation,
    cut_patches,
    make_example,
    training_batches,
    training_example,
)
from tinyr1v_ray.miniature.model import make_model
from tinyr1v_ray.miniature.processor import make_processor
from tinyr1v_ray.miniature.tasks.catalogue import items
from tinyr1v_ray.miniature.tasks.item import Style
from tinyr1v_ray.miniature.tasks.pools import Domain, Pool
from tinyr1v_ray.miniature.tokenizer import SPECIAL_TOKENS, TAGS, VOCAB_SIZE, train_tokenizer
from tinyr1v_ray.miniature.warmup import TOKENS_PER_ANSWER, WarmupSettings, learning_rate_share, response_loss, warm_up

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def processor() -> Qwen2_5_VLProcessor:
    return make_processor(train_tokenizer(0))


def test_tokenizer_has_single_digits_tags_and_all_special_tokens(processor: Qwen2_5_VLProcessor) -> None:
    tokenizer = processor.tokenizer
    assert len(tokenizer) == VOCAB_SIZE
    assert tokenizer.tokenize("407") == ["4", "0", "7"]
    for token in (*SPECIAL_TOKENS, *TAGS):
        assert len(tokenizer(token).input_ids) == 1
    text = "<think>8+6=14</think><answer>ünïcode 14</answer>"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_training_the_tokenizer_repeats(processor: Qwen2_5_VLProcessor) -> None:
    assert train_tokenizer(0).backend_tokenizer.to_str() == processor.tokenizer.backend_tokenizer.to_str()


def test_patches_equal_the_image_processors(processor: Qwen2_5_VLProcessor) -> None:
    rng = np.random.default_rng(0)
    for size in ((56, 28), (112, 84), (84, 140), (196, 28)):
        image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8))
        expected = processor.image_processor(images=[image], return_tensors="pt")
        assert expected["image_grid_thw"].tolist() == [[1, size[1] // 14, size[0] // 14]]
        np.testing.assert_allclose(cut_patches(image, processor), expected["pixel_values"].numpy(), atol=1e-5)


@pytest.mark.parametrize("domain", list(Domain))
def test_examples_are_what_the_chat_template_renders(processor: Qwen2_5_VLProcessor, domain: Domain) -> None:
    """The whole conversation, rendered and tokenised by the processor, is the example and the turn's line break."""
    for item in items(domain, Pool.TRAIN, 5, seed=0):
        example = make_example(item, Style.LONG, processor)
        text = processor.apply_chat_template(conversation(item.question, item.response(Style.LONG)))
        whole = processor(text=[text], images=[item.image])["input_ids"][0]
        assert list(example.token_ids) == list(whole)[:-1]
        assert processor.tokenizer.decode(whole[-1:]) == "\n"
        asked = processor.apply_chat_template(conversation(item.question), add_generation_prompt=True)
        prompt = processor(text=[asked], images=[item.image])["input_ids"][0]
        assert list(example.token_ids[: example.num_prompt_tokens]) == list(prompt)


def test_template_takes_a_system_prompt_and_several_images(processor: Qwen2_5_VLProcessor) -> None:
    user = {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Compare."}]}
    messages = [{"role": "system", "content": "Be brief."}, user]
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    assert processor.apply_chat_template(messages, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        f"<|im_start|>user\n{image}{image}Compare.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_only_the_response_is_labelled(processor: Qwen2_5_VLProcessor) -> None:
    tokenizer = processor.tokenizer
    chosen = list(items(Domain.OCR, Pool.TRAIN, 3, seed=0))
    examples = [make_example(item, Style.NEEDED, processor) for item in chosen]
    batch = collate(examples, tokenizer.pad_token_id, processor.image_token_id)
    for row, item in enumerate(chosen):
        labels = batch["labels"][row]
        assert tokenizer.decode(labels[labels != IGNORED]) == item.response(Style.NEEDED) + "<|im_end|>"
    assert batch["mm_token_type_ids"].sum() * 4 == len(batch["pixel_values"])
    assert torch.equal(batch["attention_mask"].sum(1), torch.tensor([len(example.token_ids) for example in examples]))


def test_batches_hold_every_example_once(processor: Qwen2_5_VLProcessor) -> None:
    batches = list(training_batches(3, 4, seed=0, processor=processor))
    rows = [pair for batch in batches for pair in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    found = sorted(tuple(ids[mask.bool()].tolist()) for ids, mask in rows)
    assert found == sorted(training_example(number, 0, processor).token_ids for number in range(12))


def test_style_shares_are_a_distribution() -> None:
    assert sum(STYLE_SHARES.values()) == pytest.approx(1) and set(STYLE_SHARES) == set(Style)


def test_learning_rate_rises_and_falls() -> None:
    settings = WarmupSettings(num_steps=1000, num_rising_steps=100, final_share=0.05)
    shares = [learning_rate_share(step, settings) for step in range(1000)]
    assert shares[0] == 0.01 and max(shares) == shares[99] == 1
    assert shares[-1] == pytest.approx(0.05, abs=1e-3)
    assert all(first >= second for first, second in pairwise(shares[99:]))


def test_loss_is_a_sum_over_tokens_divided_by_a_fixed_number(processor: Qwen2_5_VLProcessor) -> None:
    """A random model guesses: log V a token. Short answers therefore add less than long ones."""
    model = make_model(processor.tokenizer, 0)
    item = next(items(Domain.OCR, Pool.TRAIN, 1, seed=0))
    for style in Style:
        batch = collate(
            [make_example(item, style, processor)] * 3, processor.tokenizer.pad_token_id, processor.image_token_id
        )
        num_tokens = int((batch["labels"][0] != IGNORED).sum())
        with torch.inference_mode():
            loss = response_loss(model, batch).item()
        assert loss == pytest.approx(np.log(VOCAB_SIZE) * num_tokens / TOKENS_PER_ANSWER, rel=0.05)


def test_warm_up_lowers_the_loss_and_repeats(processor: Qwen2_5_VLProcessor) -> None:
    settings = WarmupSettings(num_steps=12, batch_size=8, num_rising_steps=4)
    batch = next(training_batches(1, 16, seed=7, processor=processor))

    def trained() -> tuple[list[float], float]:
        losses: list[float] = []
        model = make_model(processor.tokenizer, 0)
        warm_up(model, processor, settings, lambda step, loss: losses.append(loss))
        with torch.inference_mode():
            return losses, response_loss(model, batch).item()

    with torch.inference_mode():
        before = response_loss(make_model(processor.tokenizer, 0), batch).item()
    losses, after = trained()
    assert (losses, after) == trained()
    assert len(losses) == 12 and after < 0.95 * before
