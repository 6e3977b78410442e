"""MME: questions in pairs about an image, one with the answer yes and one with no."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from tinyr1v_ray.evaluation.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    Grade,
    exact_grade,
    question_text,
)
from tinyr1v_ray.evaluation.benchmarks.latex import shown_text
from tinyr1v_ray.evaluation.benchmarks.rules import OfficialRule
from tinyr1v_ray.rewards.extract import TAGGED_ANSWER, after_reasoning, extract_answer, last_boxed

COGNITION = ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation")
NUM_CATEGORIES = 14
_MAX_OF_CATEGORY = 200.0
_YES_OR_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
_STATED = re.compile(r"\banswer\s*(?:is\b|:|is:)\s*[\"'“]?(yes|no)\b", re.IGNORECASE)
_FIRST = re.compile(r"^\W*(yes|no|[yn]\W*$)(?!\w)", re.IGNORECASE)
_BOTH = re.compile(r"\b(?:yes\W*(?:and|or|/)\W*no|no\W*(?:and|or|/)\W*yes)\b", re.IGNORECASE)
RULE = OfficialRule(
    source="Fu et al., arXiv 2306.13394; BradyFU/Awesome-Multimodal-Large-Language-Models, "
    "eval_tool/calculation.py, and VLMEvalKit, utils/yorn.py",
    metric="yes or no, read from the answer's first word. A category scores its accuracy plus its share of "
    "images with both right, each in percent, so at most 200; ten of perception and four of cognition "
    "make at most 2,800, here over 28",
    prompt="the table's question, which asks for yes or no itself",
    lenient=(
        "in tags, in a box, after `the answer is`, or as the only yes or no it counts anywhere, as in VLMEvalKit",
    ),
    strict=("an answer with neither word is wrong, as officially; VLMEvalKit may ask an LLM what it means",),
)


def prompt(item: BenchmarkItem) -> str:
    """The question, which in the published table asks for yes or no itself."""
    question = question_text(item)
    return question if "yes or no" in question.casefold() else f"{question} Please answer yes or no."


def yes_or_no(text: str) -> str:
    """`Yes` or `No` that an answer says: in tags or a box, as its statement, as its first word, or as the only one.

    >>> yes_or_no("<think>no?</think>Yes, there is no doubt."), yes_or_no("Not so. The answer is no."), yes_or_no("y")
    ('Yes', 'No', 'Yes')
    >>> yes_or_no("yes and no"), yes_or_no("I cannot tell")
    ('', '')
    """
    conclusion = after_reasoning(text)
    if TAGGED_ANSWER.search(conclusion) or last_boxed(conclusion) is not None:
        conclusion = extract_answer(text)
    place = _BOTH.sub(" ", shown_text(conclusion))
    words = {word.casefold() for word in _YES_OR_NO.findall(place)}
    said = _STATED.findall(place)[-1:] or _FIRST.findall(place)[:1] or (words if len(words) == 1 else ())
    return {"y": "Yes", "n": "No"}[next(iter(said))[0].casefold()] if said else ""


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
    scores = {"total": total, "perception": total - cognition, "cognition": cognition}
    return {"score": 100.0 * total / (_MAX_OF_CATEGORY * len(by_category)), **scores, **by_category}


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
    rule=RULE,
)
