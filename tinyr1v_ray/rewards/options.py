r"""Answers by option letter: which letters an answer chooses.

The rules: a reference of one letter is a choice, in any case and bracket. A reference of several is one when its
letters are capitals from A to H and either stand apart (`A, C`, `(A) and (C)`) or ascend without a gap between them
(`AC`): `CO` and `CA` are words. An answer chooses the letter it begins with, alone or as a label (`(B) 12 cm`,
`B. yes`), unless more letters are offered after it.
"""

from __future__ import annotations

import re

_FIRST = re.compile(
    r"(?:option|choice|选项?)?\s*[(\[]?\s*([A-Za-z])\s*(?:[)\].:]+(?!\s*[)(\[^*/+=<>_\\-])\s*(.*))?", re.I
)
_SEVERAL = re.compile(
    r"[(\[]?([A-H])[)\].:]?(?:(?:\s*(?:,|;|&|/|\b(?i:and)\b|(?=[(\[]))\s*|\s+)+[(\[]?([A-H])[)\].:]?)+"
)
_FURTHER = re.compile(
    r"(?<![\w(])\(?[A-H]\s*[).:]|(?:\b(?:or|and|nor|is|not|answer|option|choice)|[,;/&])\s*\(?[A-H]\b(?!['-])"
)


def reference_letters(reference: str) -> frozenset[str]:
    """The option letters that a reference in plain notation is, as capitals; empty when it is something else.

    >>> sorted(reference_letters("(A) and (C)")), sorted(reference_letters("AC")), sorted(reference_letters("CO"))
    (['A', 'C'], ['A', 'C'], [])
    """
    if single := re.fullmatch(r"[(\[]?\s*([A-Za-z])\s*[)\]]?\s*[.:]?", reference):
        return frozenset(single[1].upper())
    return _several(reference)


def chosen_letters(answer: str) -> frozenset[str]:
    """The letters that an answer in plain notation chooses, as capitals; empty when it does not begin with one.

    >>> sorted(chosen_letters("B) 12 cm")), sorted(chosen_letters("A. or B.")), sorted(chosen_letters("A, C"))
    (['B'], [], ['A', 'C'])
    """
    if several := _several(answer) or (_several(answer.upper()) if " " in answer or "," in answer else None):
        return several
    first = _FIRST.fullmatch(answer)
    if first is None or _FURTHER.search(first[2] or ""):
        return frozenset()
    return frozenset(first[1].upper())


def labelled(answer: str) -> tuple[str, str]:
    """Letter and text of an option that is written out, such as `(B) 12 cm`; two empty texts for anything else."""
    first = _FIRST.fullmatch(answer)
    is_label = first is not None and first[2] and first[1] in "ABCDEFGH" and not _FURTHER.search(first[2])
    return (first[1], first[2]) if first is not None and is_label else ("", "")


def _several(text: str) -> frozenset[str]:
    glued = re.fullmatch(r"A?B?C?D?E?F?G?H?", text) if len(text) > 1 else None
    return frozenset(re.findall(r"[A-H]", text)) if glued or _SEVERAL.fullmatch(text) else frozenset()
