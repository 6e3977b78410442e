"""MathVista (Lu et al., arXiv 2310.02255; repository lupantech/MathVista), the split testmini of 1,000 items.

Official metric: GPT-4 extracts the answer from the response; then a choice is compared by its letter, an integer as a
number, a decimal after rounding to the item's precision, a list or text literally. The rules here extract by themselves
and leave what they are not sure of to the judge, when there is one. One official habit is left out: an extraction that
is no option is there replaced by the option with the most similar spelling, which scores refusals by chance.
"""

from __future__ import annotations

from tinyr1v_ray.evaluation.benchmarks.item import Benchmark
from tinyr1v_ray.evaluation.benchmarks.typed import typed_grade, typed_prompt

MATHVISTA = Benchmark(
    name="mathvista",
    files=("MathVista_MINI.tsv", "MathVista.tsv"),
    prompt=typed_prompt,
    grade=typed_grade,
    columns=("question_type", "answer_type", "choices"),
    category_column="task",
    judge="extract",
)
