"""MME (Fu et al., arXiv 2306.13394; repository BradyFU/Awesome-Multimodal-Large-Language-Models).

Official metric: by rules. Each image has two questions, one with the answer yes and one with no. A category scores
its accuracy plus its share of images with both right, each in percent, so at most 200; ten categories of perception
and four of cognition make at most 2,800. The paper's average of ten benchmarks needs a 0-100 scale: that sum divided
by 28. VLMEvalKit may ask an LLM what an answer without yes or no means; here such an answer is wrong, as officially.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from tinyr1v_ray.evaluation.benchmarks.item import Benchmark, BenchmarkItem, Grade, exact_grade
from tinyr1v_ray.rewards.extract import after_reasoning, extract_answer

COGNITION = ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation")
NUM_CATEGORIES = 14
_MAX_OF_CATEGORY = 200.0
_YES_OR_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def prompt(item: BenchmarkItem) -> str:
    """The question, which in the published table asks for yes or no itself."""
    return item.question if "yes or no" in item.question.casefold() else f"{item.question} Please answer yes or no."


def yes_or_no(text: str) -> str:
    """`Yes` or `No` when the answer, or else the conclusion, says exactly one of them, else nothing.

    >>> yes_or_no("<think>no?</think>Yes, it is."), yes_or_no("yes and no"), yes_or_no("I cannot tell")
    ('Yes', '', '')
    """
    for place in (extract_answer(text), after_reasoning(text)):
        words = {word.capitalize() for word in _YES_OR_NO.findall(place)}
        if words:
            return words.pop() if len(words) == 1 else ""
    return ""


def grade(item: BenchmarkItem, text: str) -> Grade:
    """Right when it says the key's word."""
    said = yes_or_no(text)
    return exact_grade(bool(said) and said.casefold() == item.answer.strip().casefold(), is_sure=True)


def group(item: BenchmarkItem) -> str:
    """The image that a pair of questions is about."""
    return f"{item.category}/{item.columns['image_path']}"


def score(items: Sequence[BenchmarkItem], correct: Sequence[bool]) -> dict[str, float]:
    """The sum of at most 2,800, its two parts, and `score`, the sum over 28.

    Where categories are missing (a limited evaluation) `score` is relative to what the present ones could give. A lone
    question about an image is no pair and scores no pair.
    """
    answers: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for item, right in zip(items, correct, strict=True):
        answers[item.category][group(item)].append(right)
    by_category = {category: _category_score(list(images.values())) for category, images in sorted(answers.items())}
    cognition = sum(value for category, value in by_category.items() if category in COGNITION)
    total = sum(by_category.values())
    figures = {"total": total, "perception": total - cognition, "cognition": cognition}
    return {"score": 100.0 * total / (_MAX_OF_CATEGORY * len(by_category)), **figures, **by_category}


def _category_score(images: Sequence[Sequence[bool]]) -> float:
    accuracy = sum(map(sum, images)) / sum(map(len, images))
    pairs = sum(len(image) > 1 and all(image) for image in images) / len(images)
    return 100.0 * (accuracy + pairs)


MME = Benchmark(
    name="mme",
    files=("MME.tsv",),
    prompt=prompt,
    grade=grade,
    columns=("category", "image_path"),
    score=score,
    group=group,
)
