"""How a model folder does on the evaluation pools: accuracy and tokens, and what reasoning is worth.

Answers are sampled as in RL (temperature 1, at most 96 tokens) and greedily. Three more runs force how much is
reasoned by the beginning of the answer: `zero` closes the reasoning at once, `full` opens a sentence, `needed` opens it
and rules out both (items that need none are answered as in `zero`). Where reasoning is needed, `zero` scores clearly
lower; what `full` writes beyond `needed` is idle.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from scipy.stats import binomtest
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers.utils.logging import disable_progress_bar

from tinyr1v_ray.miniature.batches import conversation, cut_patches
from tinyr1v_ray.miniature.build import DATA_SEED
from tinyr1v_ray.miniature.tasks.catalogue import items
from tinyr1v_ray.miniature.tasks.item import Item, Style
from tinyr1v_ray.miniature.tasks.pools import Domain, Pool

MAX_TOKENS = 96


@dataclass(frozen=True)
class Beginning:
    """How an answer must begin: a text that is given, and tokens that must not come next."""

    text: str = ""
    ruled_out: tuple[str, ...] = ()


FREE, ZERO = Beginning(), Beginning("<think></think><answer>")
NEEDED, FULL = Beginning("<think>", ("The", "</think>")), Beginning("<think>The")

MODES = {
    "sampled": (FREE, FREE),
    "greedy": (FREE, FREE),
    "zero": (ZERO, ZERO),
    "needed": (ZERO, NEEDED),
    "full": (FULL, FULL),
}
"""Ways of answering: the beginning for items that need no reasoning, and for those that do. All but `greedy` sample at
temperature 1."""

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
    beginning: Beginning,
    greedy: bool,
) -> list[list[int]]:
    """Token ids of one answer an item, the forced beginning and the end token included."""
    inputs = _left_padded(processor, chosen, beginning.text)
    num_prompt_tokens = inputs["input_ids"].shape[1]
    tokenizer = processor.tokenizer
    forced_ids = tokenizer(beginning.text).input_ids if beginning.text else []
    with torch.inference_mode():
        output = model.generate(
            **inputs,
            max_new_tokens=MAX_TOKENS - len(forced_ids),
            do_sample=not greedy,
            top_k=0,
            top_p=1.0,
            begin_suppress_tokens=tokenizer.convert_tokens_to_ids(list(beginning.ruled_out)) or None,
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


@dataclass(frozen=True)
class Scored:
    """An answer to an item that needs `need` steps: whether it is right, and its tokens."""

    need: int
    is_right: bool
    num_tokens: int


def score(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    chosen: list[Item],
    mode: str,
    batch_size: int = 250,
) -> Iterator[list[Scored]]:
    """The scored answers, a batch at a time; items that need no reasoning come first."""
    idle, needing = ([item for item in chosen if bool(item.need) is needs] for needs in (False, True))
    for part, beginning in zip((idle, needing), MODES[mode], strict=True):
        for first in range(0, len(part), batch_size):
            asked = part[first : first + batch_size]
            answers = generate(model, processor, asked, beginning, greedy=mode == "greedy")
            texts = processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
            yield [
                Scored(item.need, is_right(text, item.answer), len(answer))
                for item, text, answer in zip(asked, texts, answers, strict=True)
            ]


def measure(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    num_items: int,
    seed: int,
    on_items: Callable[[int], None],
) -> dict[str, dict[str, object]]:
    """Scores by domain and mode on the first `num_items` of each evaluation pool, as a whole and `by_need`; `on_items`
    counts what is done.

    `needed_tokens` are the mean lengths of a right answer without reasoning and with what is needed.
    """
    scores: dict[str, dict[str, object]] = {}
    torch.manual_seed(seed)
    for domain in Domain:
        chosen = list(items(domain, Pool.EVALUATION, num_items, seed))
        scores[str(domain)] = {"needed_tokens": _needed_tokens(processor, chosen)}
        for mode in MODES:
            scored: list[Scored] = []
            for batch in score(model, processor, chosen, mode):
                scored += batch
                on_items(len(batch))
            needs = sorted({one.need for one in scored})
            by_need = {str(need): _summary([one for one in scored if one.need == need]) for need in needs}
            scores[str(domain)][mode] = {**_summary(scored), "by_need": by_need}
    return scores


def answered(
    folder: Path, domains: Sequence[Domain], num_items: int, seed: int
) -> Iterator[tuple[Domain, list[Scored]]]:
    """Of the model in a folder, domain by domain, its scored answers, sampled as in RL.

    To the first `num_items` of the evaluation pool's file, in the same order for every model. Each domain starts from
    the seed, so that models differ alone.
    """
    disable_progress_bar()
    processor = Qwen2_5_VLProcessor.from_pretrained(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    for domain in domains:
        torch.manual_seed(seed)
        chosen = list(items(domain, Pool.EVALUATION, num_items, DATA_SEED))
        yield domain, [answer for batch in score(model, processor, chosen, "sampled") for answer in batch]


def _summary(scored: list[Scored]) -> dict[str, float]:
    count, num_right = len(scored), sum(one.is_right for one in scored)
    low, high = binomtest(num_right, count).proportion_ci(method="wilson")
    result = StyleScore(count, num_right / count, low, high, sum(one.num_tokens for one in scored) / count)
    return {name: round(value, 4) for name, value in asdict(result).items()}


def _needed_tokens(processor: Qwen2_5_VLProcessor, chosen: list[Item]) -> dict[str, float]:
    def mean(style: Style) -> float:
        lengths = [len(processor.tokenizer(item.response(style)).input_ids) + 1 for item in chosen]
        return round(sum(lengths) / len(lengths), 4)

    return {"zero": mean(Style.BARE), "needed": mean(Style.NEEDED)}
