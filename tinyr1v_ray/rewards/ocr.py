"""Reading text off an image."""

from __future__ import annotations

import unicodedata

from rapidfuzz.distance import Levenshtein


def text_similarity(predicted: str, reference: str) -> float:
    """1 - d/max(len) with d the Levenshtein distance in characters (the paper's OCR reward [C]).

    Both are composed (NFC) and runs of white space count as one space; case counts. Two empty texts are equal.

    >>> text_similarity("4O7", "407") == 1 - 1 / 3, text_similarity("", "407")
    (True, 0.0)
    """
    return Levenshtein.normalized_similarity(_normalised(predicted), _normalised(reference))


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
