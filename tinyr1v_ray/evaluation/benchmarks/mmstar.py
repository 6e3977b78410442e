"""MMStar: questions with four options that cannot be answered without the picture."""

from __future__ import annotations

from tinyr1v_ray.evaluation.benchmarks.choices import LENIENT, STRICT, grade_choice
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark
from tinyr1v_ray.evaluation.benchmarks.options import with_options
from tinyr1v_ray.evaluation.benchmarks.rules import OfficialRule

RULE = OfficialRule(
    source="Chen et al., arXiv 2403.20330; MMStar-Benchmark/MMStar, and VLMEvalKit, utils/multiple_choice.py "
    "and matching_util.py; 1,500 in six categories",
    metric="the share of right letters. VLMEvalKit asks an LLM for the letter where rules find none; here it "
    "is the judge's part",
    prompt="hint, question, options a line each, and a request for the letter; VLMEvalKit's words differ, its "
    "order does not",
    lenient=LENIENT,
    strict=STRICT,
)
MMSTAR = Benchmark(
    name="mmstar",
    files=("MMStar.tsv",),
    prompt=with_options,
    grade=grade_choice,
    columns=("A", "B"),
    judge="extract",
    rule=RULE,
)
