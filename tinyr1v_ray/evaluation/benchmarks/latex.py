r"""LaTeX and Markdown around answers: what only shows a text is taken off, what changes its meaning stays."""

from __future__ import annotations

import re
import unicodedata

_MARKS = frozenset("\\*`$_")
_LATEX = _MARKS | frozenset("~^{}")
_SHOWN = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox|boxed|fbox)\s*\{([^{}]*)\}")
_DROPPED = re.compile(r"(?<!\d)\*\*|\*\*(?!\d)|`|\\?\$|\\[()\[\]]|__")
_THOUSANDS = re.compile(r"(?<=\d)(?:\\,|\{,\}|\\!)(?=\d{3}(?!\d))")
_SPACES = re.compile(r"\\[,;:! ]|~|\\q?quad\b|\\displaystyle\b|\\left(?![a-z])|\\right(?![a-z])")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b")
_SUPERSCRIPT = re.compile(r"[⁰¹²³⁴-⁹]+")
_NUMBER_FRACTION = re.compile(
    r"\\[dt]?frac\s*(?:\{\s*(-?[\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}|(\d)\s*(\d)|(\d)\s*\{\s*(\d+)\s*\})"
)
_SYMBOLS = (
    (re.compile(r"\\(?:leq?|leqslant)(?![a-z])|\\lt(?![a-z])"), "≤"),
    (re.compile(r"\\(?:geq?|geqslant)(?![a-z])|\\gt(?![a-z])"), "≥"),
    (re.compile(r"\\neq?(?![a-z])"), "≠"),
    (re.compile(r"\\approx(?![a-z])|\\sim(?![a-z])|\\simeq(?![a-z])"), "≈"),
    (re.compile(r"\\times(?![a-z])"), "×"),
    (re.compile(r"\\cdot(?![a-z])"), "·"),
    (re.compile(r"\\pi(?![a-z])"), "π"),
    (re.compile(r"\\pm(?![a-z])"), "±"),
    (re.compile(r"\\([%$#&])"), r"\1"),
)


_POWER = re.compile(r"\^\s*\{\s*([-+]?\w)\s*\}")


def shown_text(text: str) -> str:
    r"""Text without commands and marks that set its type, and without the marks of formulas: `**\text{B}**` is `B`.

    >>> shown_text(r"**\textbf{(D)}** $\frac{1}{2}$")
    '(D) \\frac{1}{2}'
    """
    if not _MARKS & {*text}:
        return text
    while (inner := _SHOWN.sub(r"\1", text)) != text:
        text = inner
    return _DROPPED.sub("", text)


def without_latex(text: str) -> str:
    r"""Text whose LaTeX is written plainly as far as it only sets, spaces or names; other commands stay.

    >>> without_latex(r"\frac{1}{2}"), without_latex(r"12\,000 \text{ cm}^{2}"), without_latex(r"\sqrt{5}")
    ('1/2', '12,000  cm^2', '\\sqrt{5}')
    """
    if text.isascii() and not _LATEX & {*text}:
        return text.strip()
    text = _SUPERSCRIPT.sub(lambda power: "^" + unicodedata.normalize("NFKC", power[0]), text)
    text = _DEGREES.sub("°", _SPACES.sub(" ", _THOUSANDS.sub(",", text)))
    text = shown_text(text)
    text = _POWER.sub(r"^\1", text)
    text = _NUMBER_FRACTION.sub(_plain_fraction, text)
    for pattern, symbol in _SYMBOLS:
        text = pattern.sub(symbol, text)
    return text.strip()


def compact(text: str) -> str:
    r"""For comparing texts by their letters and signs alone: no spacing, no LaTeX that only sets, one case.

    >>> compact(r"$24 \mathrm{~cm}^{2}$") == compact("24 cm^2"), compact(r"\dfrac{\pi}{2}") == compact(r"\frac{\pi}2")
    (True, True)
    """
    text = re.sub(r"\\[dt]frac", r"\\frac", without_latex(text))
    text = re.sub(r"\{(\w)\}", r"\1", text)
    return "".join(text.split()).casefold().removesuffix(".")


def _plain_fraction(match: re.Match[str]) -> str:
    """A fraction of numbers with a slash; after a digit it is the rest of a mixed number."""
    top, bottom = (part for part in match.groups() if part)
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    return (" " if before.isalnum() else "") + f"{top}/{bottom}" + (" " if after.isdigit() else "")
