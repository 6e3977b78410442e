"""The paper's own results, quoted: Tiny-R1V (arXiv 2510.08987), all of Qwen2.5-VL-3B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SOURCE = "Tiny-R1V, arXiv 2510.08987, Qwen2.5-VL-3B"

TEN_SCORES: Mapping[str, float] = {
    "mathvista": 65.5,
    "mathvision": 23.7,
    "mathverse": 38.0,
    "wemath": 30.8,
    "chartqa": 84.8,
    "charxiv": 31.8,
    "ocrbench": 83.5,
    "ocr_reasoning": 16.2,
    "mme": 2300.0,
    "mmstar": 60.8,
}
"""Tiny-R1V-3B (the AMM merge) on the ten benchmarks; MME as the sum of at most 2,800."""

AVERAGE_OF_TEN: Mapping[str, float] = {"base": 47.8, "task_arithmetic": 46.7, "wudi": 50.8, "amm": 51.6}
OCR_REASONING: Mapping[str, float] = {"amm": 16.2, "mixture": 12.8, "task_arithmetic": 12.0}

CURVE_STEPS = (1, 20, 60, 120)
CURVE_TOKENS: Mapping[str, tuple[int, ...]] = {
    "lipo": (369, 172, 146, 119),
    "grpo": (356, 200, 258, 210),
    "dapo": (335, 230, 319, 290),
}
"""Mean response tokens at CURVE_STEPS, read off the paper's figure."""


@dataclass(frozen=True)
class Shortening:
    """LIPO against GRPO on one benchmark: tokens per answer, and the gain in accuracy in points."""

    benchmark: str
    grpo_tokens: str
    lipo_tokens: str
    gain_points: float


SHORTENINGS = (Shortening("MathVista", "138", "83", 0.4), Shortening("MathVision", "about 440", "115", 2.5))

DOMAIN_OF: Mapping[str, str] = {
    "mathvista": "math",
    "mathvision": "math",
    "mathverse": "math",
    "wemath": "math",
    "chartqa": "structure",
    "charxiv": "structure",
    "ocrbench": "ocr",
    "ocr_reasoning": "ocr",
}
"""The domain of each benchmark that belongs to one; MME and MMStar belong to none."""


def domain_of(benchmark: str) -> str:
    """The domain whose specialist is at home on a benchmark; empty where there is none.

    >>> domain_of("miniature:ocr"), domain_of("chartqa"), domain_of("mme")
    ('ocr', 'structure', '')
    """
    prefix, colon, domain = benchmark.partition(":")
    return domain if colon and prefix == "miniature" else DOMAIN_OF.get(benchmark, "")
