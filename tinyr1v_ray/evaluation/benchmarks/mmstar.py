"""MMStar (Chen et al., arXiv 2403.20330; repository MMStar-Benchmark/MMStar), 1,500 items in six categories.

Official metric: the share of right letters, by rules. VLMEvalKit asks an LLM for the letter where rules find none; it
is the judge's part here, optional.
"""

from __future__ import annotations

from tinyr1v_ray.evaluation.benchmarks.choices import grade_choice, with_options
from tinyr1v_ray.evaluation.benchmarks.item import Benchmark

MMSTAR = Benchmark(
    name="mmstar",
    files=("MMStar.tsv",),
    prompt=with_options,
    grade=grade_choice,
    columns=("A", "B"),
    judge="extract",
)
