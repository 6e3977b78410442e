"""How a model folder does on the evaluation pools: accuracy and tokens, and what reasoning is worth.

Answers are sampled as in RL (temperature 1, at most 96 tokens) and greedily. Two more runs force the beginning of the
answer: `direct` closes the reasoning at once, `reasoning` opens a sentence. Where reasoning helps, `direct` scores
clearly lower.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from scipy.stats import binomtest
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from tinyr1v_ray.miniature.batches import conversation, cut_patches
from tinyr1v_ray.miniature.tasks.catalogue import items
from tinyr1v_ray.miniature.tasks.item import Item, Style
from tinyr1v_ray.miniature.tasks.pools import Domain, Pool

MAX_TOKENS = 96
MODES = {"sampled": "", "greedy": "", "forced_direct": "<think></think><answer>", "forced_reasoning": "<think>The"}
"""Ways of answering and the beginning that is forced; all but `greedy` sample at temperature 1."""

_ANSWER = re.compile(r"</think>\s*<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class StyleScore:
    """Share of right answers with its 95 % Wilson interval, and mean tokens an answer, forced ones included."""

    num_items: int
    accuracy: float
    low: float
    high: float
    mean_tokens: float


def is_right(text: str, answer: str) -> bool:
    """Whether the tagged answer is exactly the expected one."""
    found = _ANSWER.search(text)
    return found is not None and found[1].strip() == answer


def generate(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    chosen: list[Item],
    forced: str,
    greedy: bool,
) -> list[list[int]]:
    """Token ids of one answer an item, the forced beginning and the end token included."""
    inputs = _left_padded(processor, chosen, forced)
    num_prompt_tokens = inputs["input_ids"].shape[1]
    tokenizer = processor.tokenizer
    forced_ids = tokenizer(forced).input_ids if forced else []
    with torch.inference_mode():
        output = model.generate(
            **inputs, max_new_tokens=MAX_TOKENS - len(forced_ids), do_sample=not greedy, top_k=0, top_p=1.0
        )
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    return [forced_ids + _up_to_end(row, ends) for row in output[:, num_prompt_tokens:].tolist()]


def _up_to_end(token_ids: list[int], ends: set[int]) -> list[int]:
    for place, token_id in enumerate(token_ids):
        if token_id in ends:
            return token_ids[: place + 1]
    return token_ids


def _left_padded(processor: Qwen2_5_VLProcessor, chosen: list[Item], forced: str) -> dict[str, torch.Tensor]:
    pad = processor.image_token
    prompts, patches, grids = [], [], []
    for item in chosen:
        prompt = processor.apply_chat_template(conversation(item.question), add_generation_prompt=True)
        grid_thw = (1, item.image.height // 14, item.image.width // 14)
        prompts.append(prompt.replace(pad, pad * (grid_thw[1] * grid_thw[2] // 4)) + forced)
        patches.append(torch.from_numpy(cut_patches(item.image, processor)))
        grids.append(grid_thw)
    encoded = processor.tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    return {
        "input_ids": encoded["input_ids"],
        "attention_mask": encoded["attention_mask"],
        "mm_token_type_ids": (encoded["input_ids"] == processor.image_token_id).long(),
        "pixel_values": torch.cat(patches),
        "image_grid_thw": torch.tensor(grids),
    }


def score(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    chosen: list[Item],
    mode: str,
    batch_size: int = 250,
) -> Iterator[tuple[int, int, int]]:
    """For each batch: its items, how many are right, and the tokens of its answers."""
    for first in range(0, len(chosen), batch_size):
        part = chosen[first : first + batch_size]
        answers = generate(model, processor, part, MODES[mode], greedy=mode == "greedy")
        texts = processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
        num_right = sum(is_right(text, item.answer) for text, item in zip(texts, part, strict=True))
        yield len(part), num_right, sum(map(len, answers))


def measure(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    num_items: int,
    seed: int,
    on_items: Callable[[int], None],
) -> dict[str, dict[str, object]]:
    """Scores by domain and mode on the first `num_items` of each evaluation pool; `on_items` counts what is done.

    `needed_tokens` are the mean lengths of a right answer without reasoning and with the short one.
    """
    metrics: dict[str, dict[str, object]] = {}
    torch.manual_seed(seed)
    for domain in Domain:
        chosen = list(items(domain, Pool.EVALUATION, num_items, seed))
        metrics[str(domain)] = {"needed_tokens": _needed_tokens(processor, chosen)}
        for mode in MODES:
            num_right = num_tokens = 0
            for count, right, tokens in score(model, processor, chosen, mode):
                num_right, num_tokens = num_right + right, num_tokens + tokens
                on_items(count)
            low, high = binomtest(num_right, num_items).proportion_ci(method="wilson")
            result = StyleScore(num_items, num_right / num_items, low, high, num_tokens / num_items)
            metrics[str(domain)][mode] = {name: round(value, 4) for name, value in asdict(result).items()}
    return metrics


def _needed_tokens(processor: Qwen2_5_VLProcessor, chosen: list[Item]) -> dict[str, float]:
    def mean(style: Style) -> float:
        lengths = [len(processor.tokenizer(item.response(style)).input_ids) + 1 for item in chosen]
        return round(sum(lengths) / len(lengths), 4)

    return {"bare": mean(Style.BARE), "short": mean(Style.SHORT)}
