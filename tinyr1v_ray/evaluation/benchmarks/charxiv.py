"""CharXiv (Wang et al., arXiv 2406.18521; repository princeton-nlp/CharXiv), the reasoning questions.

Official metric: GPT-4o grades with a query for each of four kinds of answer (`inst_category`: 1 text in the chart, 2
text in general, 3 number in the chart, 4 number in general), which the table holds as `grading_query`. The rules here
accept equal texts and, for the two kinds of numbers, exactly equal numbers; all else is left to the judge, when there
is one. Without a judge the score is a lower bound, since texts of the same meaning in other words count as wrong.
"""

from __future__ import annotations

from tinyr1v_ray.evaluation.benchmarks.item import Benchmark, BenchmarkItem, Grade, exact_grade
from tinyr1v_ray.evaluation.benchmarks.numeric import plain_number, the_number
from tinyr1v_ray.rewards.extract import extract_answer
from tinyr1v_ray.rewards.structured import normalised

_NUMERIC = ("3", "4")


def grade(item: BenchmarkItem, text: str) -> Grade:
    """Equal text, or the same number where the key is one. A bare number is sure even when it is wrong."""
    answer = extract_answer(text)
    if normalised(answer) and normalised(answer) == normalised(item.answer):
        return exact_grade(True)
    given, wanted = the_number(answer), the_number(item.answer)
    if item.columns.get("inst_category") not in _NUMERIC or given is None or wanted is None:
        return exact_grade(False)
    return exact_grade(given == wanted, plain_number(answer) is not None)


CHARXIV = Benchmark(
    name="charxiv",
    files=("CharXiv_reasoning_val.tsv",),
    prompt=lambda item: item.question,
    grade=grade,
    category_column="inst_category",
    judge="grading_query",
)
