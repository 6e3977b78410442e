"""CharXiv: reasoning questions about charts of scientific papers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tinyr1v_ray.evaluation.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    Grade,
    exact_grade,
    question_text,
)
from tinyr1v_ray.evaluation.benchmarks.latex import compact
from tinyr1v_ray.evaluation.benchmarks.numeric import plain_number, the_number
from tinyr1v_ray.evaluation.benchmarks.rules import OfficialRule
from tinyr1v_ray.rewards.extract import extract_answer
from tinyr1v_ray.rewards.structured import normalised

RULE = OfficialRule(
    source="Wang et al., arXiv 2406.18521; princeton-nlp/CharXiv, constants.py and src/reasoning_utils.py at "
    "6571893, and VLMEvalKit, charxiv.py; the reasoning questions of the validation split",
    metric="GPT-4o grades with a query for each of four kinds of answer, which the table holds as "
    "grading_query. Here rules accept equal terms and, for numbers, exactly equal numbers; all else is "
    "the judge's, with that query. Without a judge the score is a lower bound",
    prompt="the table's question, which holds the official instruction",
    lenient=("a number counts with its unit and in a sentence that leaves its value alone",),
    strict=("without a judge, the same meaning in other words is wrong",),
)
_ANY_ORDER, _NUMERIC = "1", ("3", "4")
_KEY_IN_QUERY = re.compile(r".*\*\s*Ground Truth:\s*(.*?)\s*\n\s*\*\s*Response:", re.DOTALL)


def key_in_query(cells: Mapping[str, str]) -> str:
    """The key that the item's own grading query asks the judge to compare with: the last one in it, after the examples.

    >>> key_in_query({"grading_query": "* Ground Truth: b\\n* Response: c\\n\\n* Ground Truth: 0.3\\n* Response: ?"})
    '0.3'
    """
    found = _KEY_IN_QUERY.match(cells.get("grading_query", ""))
    return found[1] if found else ""


def grade(item: BenchmarkItem, text: str) -> Grade:
    """Equal terms, or the same number where the key is one. A bare number is sure even when it is wrong."""
    answer, kind = extract_answer(text), item.columns.get("inst_category", "").removesuffix(".0")
    if kind in _NUMERIC:
        given, wanted = the_number(answer), the_number(item.answer)
        if given is not None and wanted is not None:
            return exact_grade(given == wanted, plain_number(answer) is not None)
    terms, wanted_terms = _terms(answer, kind == _ANY_ORDER), _terms(item.answer, kind == _ANY_ORDER)
    return exact_grade(any(terms) and terms == wanted_terms)


def _terms(text: str, in_any_order: bool) -> list[str]:
    """The terms of an answer, compared without case, spacing and parentheses around them."""
    if not in_any_order:
        return [compact(normalised(text)).strip("()")]
    return sorted(compact(normalised(term)).strip("()") for term in text.split(", "))


CHARXIV = Benchmark(
    name="charxiv",
    files=("CharXiv_reasoning_val.tsv",),
    prompt=question_text,
    grade=grade,
    category_column="inst_category",
    judge="grading_query",
    rule=RULE,
    hidden_key=key_in_query,
)
