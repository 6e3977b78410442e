"""OCR-Reasoning (Huang et al., arXiv 2505.17163; repository SCUT-DLVCLab/OCR-Reasoning), 1,069 items.

Official metric: an LLM extracts the answer, which is then compared by its letter, as a number, or as a text without
white space; that accuracy is the figure in the paper's table. The rules here extract by themselves and leave what
they are not sure of to the judge, when there is one. The benchmark's second figure, an LLM's marks for the reasoning
process, is no accuracy and is not computed.
"""

from __future__ import annotations

from tinyr1v_ray.evaluation.benchmarks.item import Benchmark, BenchmarkItem, Grade
from tinyr1v_ray.evaluation.benchmarks.typed import typed_grade, typed_prompt


def grade(item: BenchmarkItem, text: str) -> Grade:
    """By type; white space inside a text does not count."""
    return typed_grade(item, text, compact_texts=True)


OCR_REASONING = Benchmark(
    name="ocr_reasoning",
    files=("OCR_Reasoning.tsv",),
    prompt=typed_prompt,
    grade=grade,
    columns=("question_type", "answer_type"),
    category_column="task",
    judge="extract",
)
