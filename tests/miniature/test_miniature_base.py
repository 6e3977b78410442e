"""The shipped base: it loads, fits its tokenizer, and does what its record says."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)

from tinyr1v_ray.evaluation.statistics import Estimate, wilson_interval
from tinyr1v_ray.miniature.base import base_model_folder
from tinyr1v_ray.miniature.batches import IGNORED, collate, make_example
from tinyr1v_ray.miniature.measure import FREE, generate, is_right, score
from tinyr1v_ray.miniature.model import make_config
from tinyr1v_ray.miniature.processor import CHAT_TEMPLATE
from tinyr1v_ray.miniature.tasks.catalogue import items
from tinyr1v_ray.miniature.tasks.item import Style
from tinyr1v_ray.miniature.tasks.pools import Domain, Pool
from tinyr1v_ray.miniature.tokenizer import train_tokenizer
from tinyr1v_ray.miniature.warmup import response_loss

pytestmark = pytest.mark.slow

NUM_MEASURED = 100


@pytest.fixture(scope="module")
def processor() -> Qwen2_5_VLProcessor:
    return AutoProcessor.from_pretrained(base_model_folder())


@pytest.fixture(scope="module")
def model() -> Qwen2_5_VLForConditionalGeneration:
    return AutoModelForImageTextToText.from_pretrained(base_model_folder()).eval()


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads((base_model_folder() / "miniature.json").read_text())


def test_shipped_folder_fits_the_package() -> None:
    assert sum(path.stat().st_size for path in base_model_folder().rglob("*")) <= 8 * 2**20


def test_base_is_a_tied_float32_model_of_its_tokenizer(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor
) -> None:
    assert isinstance(model, Qwen2_5_VLForConditionalGeneration) and isinstance(processor, Qwen2_5_VLProcessor)
    assert 1_000_000 <= model.num_parameters() <= 3_000_000
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert model.config.text_config.vocab_size == len(processor.tokenizer) == model.lm_head.out_features
    assert model.config.text_config.max_position_embeddings >= 512


def test_base_has_the_shape_and_the_words_of_the_code(processor: Qwen2_5_VLProcessor) -> None:
    """What is shipped is what the code would make today, weights apart."""
    fresh = train_tokenizer(0)
    assert fresh.get_vocab() == processor.tokenizer.get_vocab()
    shipped = json.loads((base_model_folder() / "config.json").read_text())
    expected = json.loads(make_config(fresh).to_json_string())
    for part in ("text_config", "vision_config"):
        assert {name: shipped[part].get(name) for name in expected[part]} == expected[part]
    assert processor.chat_template == CHAT_TEMPLATE == processor.tokenizer.chat_template


def test_generation_stops_at_every_end_token(processor: Qwen2_5_VLProcessor) -> None:
    ends = GenerationConfig.from_pretrained(base_model_folder()).eos_token_id
    assert processor.tokenizer.convert_ids_to_tokens(ends) == ["<|im_end|>", "<|endoftext|>"]


def test_record_leaves_room_for_rl(record: dict) -> None:
    """30 to 85 % right, and answers at least twice as long as the shortest that is right."""
    for domain in Domain:
        measured = record["evaluation"][domain]
        assert measured["sampled"]["num_items"] >= 1000
        for mode in ("sampled", "greedy"):
            assert 0.30 <= measured[mode]["accuracy"] <= 0.85
        assert measured["sampled"]["mean_tokens"] >= 2 * measured["needed_tokens"]["zero"]


@pytest.mark.parametrize("domain", list(Domain))
def test_record_shows_that_needed_reasoning_is_needed(record: dict, domain: Domain) -> None:
    """Without it, the items that need any are answered clearly worse; in math hardly one is answered at all."""
    zero, needed = (_pooled(record["evaluation"][domain][mode], lambda need: need > 0) for mode in ("zero", "needed"))
    assert zero.high < needed.low
    if domain is Domain.MATH:
        assert zero.high < 0.1 < 0.6 < needed.low


@pytest.mark.parametrize("domain", list(Domain))
def test_record_shows_where_reasoning_is_idle(record: dict, domain: Domain) -> None:
    """Where none is needed, sentences bring nothing; everywhere they are more than twice as long as what is needed."""
    measured = record["evaluation"][domain]
    zero, full = (_pooled(measured[mode], lambda need: need == 0) for mode in ("zero", "full"))
    assert full.low <= zero.high and full.value < zero.value + 0.02
    assert measured["full"]["mean_tokens"] >= 2 * measured["needed"]["mean_tokens"]


def _pooled(scores: dict, is_chosen: Callable[[int], bool]) -> Estimate:
    """Accuracy with its interval over the items whose need is chosen."""
    chosen = [score for need, score in scores["by_need"].items() if is_chosen(int(need))]
    num_right = round(sum(score["accuracy"] * score["num_items"] for score in chosen))
    return Estimate(*wilson_interval(num_right, sum(score["num_items"] for score in chosen)))


@pytest.mark.parametrize("domain", list(Domain))
def test_base_scores_as_recorded(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, record: dict, domain: Domain
) -> None:
    """Greedy accuracy on the first items; intervals of the record and of this measurement must overlap."""
    chosen = list(items(domain, Pool.EVALUATION, NUM_MEASURED, record["seed"]))
    num_right = sum(one.is_right for batch in score(model, processor, chosen, "greedy") for one in batch)
    _, low, high = wilson_interval(num_right, NUM_MEASURED)
    recorded = record["evaluation"][domain]["greedy"]
    assert low <= recorded["high"] and recorded["low"] <= high


def test_generation_with_padding_equals_one_by_one(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor
) -> None:
    chosen = [item for domain in Domain for item in items(domain, Pool.EVALUATION, 2, seed=0)]
    together = generate(model, processor, chosen, FREE, greedy=True)
    alone = [generate(model, processor, [item], FREE, greedy=True)[0] for item in chosen]
    assert together == alone


def test_base_knows_the_format(model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor) -> None:
    """Far below the loss of guessing, log 512 = 6.2, on answers that it has not seen."""
    examples = [
        make_example(item, Style.LONG, processor) for domain in Domain for item in items(domain, Pool.TRAIN, 8, seed=0)
    ]
    batch = collate(examples, processor.tokenizer.pad_token_id, processor.image_token_id)
    assert (batch["labels"] != IGNORED).any()
    with torch.inference_mode():
        assert response_loss(model, batch) < 0.5


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("<think>8+6=14</think><answer>14</answer>", True),
        ("<think></think>\n<answer> 14 </answer>", True),
        ("<think>14</think><answer>4</answer>", False),
        ("<answer>14</answer>", False),
        ("<think>8+6=14</think>14", False),
    ],
)
def test_right_means_tagged_and_exact(text: str, right: bool) -> None:
    assert is_right(text, "14") is right


def test_finding_the_folder_and_the_data_loads_no_model_library() -> None:
    """Driver and data room ask for both; only who builds the miniature pays for torch and transformers."""
    code = (
        "import sys; import tinyr1v_ray.miniature.base, tinyr1v_ray.miniature.build;"
        "print([name for name in ('transformers', 'vllm', 'ray', 'deepspeed') if name in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
