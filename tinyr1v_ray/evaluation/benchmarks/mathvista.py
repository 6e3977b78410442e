"""MathVista: answers of a declared type to questions about charts, figures and photographs."""

from __future__ import annotations

from tinyr1v_ray.evaluation.benchmarks.choices import LENIENT, STRICT
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark
from tinyr1v_ray.evaluation.benchmarks.rules import OfficialRule
from tinyr1v_ray.evaluation.benchmarks.typed import typed_grade, typed_prompt

RULE = OfficialRule(
    source="Lu et al., arXiv 2310.02255; lupantech/MathVista, evaluation/calculate_score.py at 2a249bb; "
    "testmini, 1,000",
    metric="GPT-4 extracts the answer; then a choice is compared by its letter, an integer as a number, a "
    "decimal after rounding to the item's precision, a list or text literally. Here rules extract, and "
    "a judge where they are not sure",
    prompt="the table's question, which holds the official hint; options and the form of the answer where it does not",
    lenient=(
        *LENIENT,
        "a list is equal by its numbers in their order, however it is written",
    ),
    strict=(
        *STRICT,
        "an extraction that is no option is wrong; there it becomes the option with the most similar spelling",
        "14.7 is wrong for the integer 14; there it is cut to 14",
    ),
)
MATHVISTA = Benchmark(
    name="mathvista",
    files=("MathVista_MINI.tsv", "MathVista.tsv"),
    prompt=typed_prompt,
    grade=typed_grade,
    columns=("question_type", "answer_type", "choices"),
    category_column="task",
    judge="extract",
    rule=RULE,
)
