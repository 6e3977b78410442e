"""OCR-Reasoning: questions that need the text in a picture and a few steps."""

from __future__ import annotations

from tinyr1v_ray.evaluation.benchmarks.choices import LENIENT, STRICT
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark, BenchmarkItem, Grade
from tinyr1v_ray.evaluation.benchmarks.rules import OfficialRule
from tinyr1v_ray.evaluation.benchmarks.typed import typed_grade, typed_prompt

RULE = OfficialRule(
    source="Huang et al., arXiv 2505.17163; SCUT-DLVCLab/OCR-Reasoning, and VLMEvalKit, utils/ocr_reasoning.py"
    "; 1,069 items",
    metric="an LLM extracts the answer, which is then compared by its letter, as a number, or as a text "
    "without blanks. Here rules extract, and a judge where they are not sure. The second score, marks "
    "for the reasoning, is not computed",
    prompt="the question and the item's format of the answer, as in VLMEvalKit, whose request to reason is in "
    "other words; options besides",
    lenient=(
        *LENIENT,
        "a number counts with its unit and in a sentence that leaves its value alone",
    ),
    strict=STRICT,
)
_FORMAT = {
    "english": "Reason step by step. The final answer has this form: {format}",
    "chinese": "请逐步推理。最终答案的形式为：{format}",
}


def prompt(item: BenchmarkItem) -> str:
    """The question and its options, and the form of the answer in the language of the question."""
    form = item.columns.get("format", "").strip()
    if not form:
        return typed_prompt(item)
    language = item.columns.get("language", "")
    request = _FORMAT["english" if not language or "english" in language.casefold() else "chinese"]
    return f"{typed_prompt(item)}\n{request.format(format=form)}"


def grade(item: BenchmarkItem, text: str) -> Grade:
    """By type; white space inside a text does not count."""
    return typed_grade(item, text, compact_texts=True)


OCR_REASONING = Benchmark(
    name="ocr_reasoning",
    files=("OCR_Reasoning.tsv",),
    prompt=prompt,
    grade=grade,
    columns=("question_type", "answer_type"),
    category_column="task",
    judge="extract",
    rule=RULE,
)
