r"""One spelling for mathematics that is written in many: Unicode signs, LaTeX layout, full-width characters.

`plain` is applied to an answer and to its reference alike. It changes how things are written, never what they are: it
evaluates nothing and drops no word, number or unit.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from tinyr1v_ray.rewards.extract import TEXT_COMMAND

_SUPERSCRIPTS = re.compile("[²³¹⁰ⁱ⁴-⁹⁺⁻⁽⁾ⁿ]+")
_SUBSCRIPTS = re.compile("[₀-₉₊₋₍₎ₐ-ₜ]+")
_VULGAR = re.compile("[¼-¾⅐-⅞↉]")
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("−﹣－", "-"),
        **dict.fromkeys("°º˚∘", "°"),
        **dict.fromkeys("×✕✖⨯", r"\times "),
        **dict.fromkeys("·⋅∙•", r"\cdot "),
        **dict.fromkeys("≈≃≅", r"\approx "),
        **dict.fromkeys("≤⩽≦", r"\le "),
        **dict.fromkeys("≥⩾≧", r"\ge "),
        **dict.fromkeys("∅⌀Ø", r"\emptyset "),
        **dict.fromkeys("′’", "'"),
        "÷": "/",
        "≠": r"\neq ",
        "∞": r"\infty ",
        "±": r"\pm ",
        "∪": r"\cup ",
        "∩": r"\cap ",
        "∈": r"\in ",
        "∠": r"\angle ",
        "△": r"\triangle ",
        "ℝ": r"\mathbb{R}",
        "⁄": "/",
        "、": ",",
    }
)
_GREEK = {
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "δ": "delta",
    "ε": "epsilon",
    "θ": "theta",
    "λ": "lambda",
    "μ": "mu",
    "π": "pi",
    "ρ": "rho",
    "σ": "sigma",
    "τ": "tau",
    "φ": "phi",
    "ω": "omega",
}
_GREEK_LETTERS = str.maketrans({letter: rf"\{name} " for letter, name in _GREEK.items()})
_BARE_NAME = re.compile(
    rf"(?<![\\A-Za-z])({'|'.join(_GREEK.values())}"
    r"|(?:arc)?(?:sin|cos|tan)|sinh|cosh|tanh|cot|sec|csc|log|ln|exp)(?![A-Za-z])"
)
_ROOT = re.compile(r"(?:√|(?<![\\A-Za-z])sqrt)\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[A-Za-z]))")
_MATHS_MODE = re.compile(r"(?<!\\)\$(\S|[^\s$][^$]*[^\s$])\$|\\\((.*?)\\\)")
_STRAY_DASH = re.compile(r"(?<!\d)[–—‒](?=\s*[\d\\(.])|(?<=\s)[–—‒](?=\s)")
_REPLACEMENTS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![A-Za-z])\s?\.?", ""),
        (r"\\(?:rm|bf|it|sf|tt)(?![A-Za-z])\s*", ""),
        (r"^\{([^{},]*)\}$", r"\1"),
        (r"(?s)\\\\(?=[A-Za-z])(?!.*\\end\{)", r"\\"),
        (r"\\!\s*|\\-|\\\\\s*(?=\\end\s*\{)", ""),
        (r"(?<!\\)\\[,;:> ]|(?<![\s\\])~(?=[^\s\d]|\d{3}(?!\d))|\\q?quad(?![A-Za-z])|\\hspace\*?\{[^{}]*\}", " "),
        (r"\{\s*,\s*\}", ","),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\(?=[$%#&_])", ""),
        (
            r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|(?<=\d)\s*\^\s*(?:\{\s*o\s*\}|o\b)|\\degrees?(?![A-Za-z])|\\textdegree(?![A-Za-z])",
            "°",
        ),
        (r"\\ang\s*\{([^{}]*)\}", r"\1°"),
        (r"\\(?:leqslant|leq)(?![A-Za-z])|<=|=<", r"\\le "),
        (r"\\(?:geqslant|geq)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\ne(?![A-Za-z])|!=", r"\\neq "),
        (r"\\(?:varnothing|empty)(?![A-Za-z])|\b[Ee]mpty set\b|\b[Tt]he empty set\b|空集", r"\\emptyset "),
        (r"\\(?:thickapprox|simeq|doteq|fallingdotseq)(?![A-Za-z])|≐|≒", r"\\approx "),
        (r"(?<![\\A-Za-z])(?:[Ii]nfinity|inf)(?![A-Za-z])|无穷大", r"\\infty "),
        (r"\*\*", "^"),
        (r"(?<=\d)(?:\s*[xX]\s*(?=10\s*\^)|\s+[xX]\s+(?=\d))", r"\\times "),
        (r"\\?\{\s*([A-Za-z])(?:\s*\\in\s*\\mathbb\s*\{?R\}?)?\s*(?:\||\\mid|\\vert|:)\s*([^{}]*?)\\?\}", r"\2"),
        (r"^(?:all|the set of all)(?: the)? real numbers$|^all reals$|^(?:全体|所有|一切)?实数集?$", r"\\mathbb{R}"),
        (r"(?:或者?|\\lor(?![A-Za-z])|\\vee(?![A-Za-z]))", " or "),
        (r"(?<=[\dA-Za-z)}°])\s*[和与及]\s*(?=[\dA-Za-z(\\-])", " and "),
    )
)


@lru_cache(maxsize=4096)
def plain(text: str) -> str:
    r"""The text in one spelling, on one line.

    Superscripts become `^{2}`, `½` a fraction, signs their LaTeX names, degrees `°`, `\text{cm}` the word, and LaTeX's
    blanks spaces. An en dash between two digits stays what it is: the dash of a range, not a minus.

    >>> plain(r"x² ≤ 2½"), plain(r"5\,\text{cm}"), plain(r"30^\circ"), plain("（１２）"), plain("3 – 4"), plain("3–4")
    ('x^{2} \\le 2\\frac{1}{2}', '5 cm', '30°', '(12)', '3 - 4', '3–4')
    """
    text = _SUPERSCRIPTS.sub(lambda run: f"^{{{_compatible(run[0])}}}", text)
    text = _SUBSCRIPTS.sub(lambda run: f"_{{{_compatible(run[0])}}}", text)
    text = _VULGAR.sub(lambda sign: r"\frac{{{}}}{{{}}}".format(*_compatible(sign[0]).split("⁄")), text)
    text = _compatible(text.translate(_SIGNS)).translate(_GREEK_LETTERS)
    text = without_text_commands(_STRAY_DASH.sub("-", text))
    text = _MATHS_MODE.sub(lambda mode: mode[1] or mode[2] or "", text)
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    text = _ROOT.sub(lambda root: rf"\sqrt{{{root[1] or root[2] or root[3]}}}", text)
    text = _BARE_NAME.sub(r"\\\1", text)
    return " ".join(text.split()).rstrip(" ,;")


def without_text_commands(text: str) -> str:
    r"""The text with `\text{...}` and its kin replaced by what they hold, apart from a number before them."""
    while (inner := TEXT_COMMAND.sub(_content, text)) != text:
        text = inner
    return text


def _content(styled: re.Match[str]) -> str:
    before = styled.string[: styled.start()]
    apart = re.search(r"(?:(?<![_^])\d|[})°])$", before) and re.match(r"[^\W\d_]{2,}", styled[1])
    return f" {styled[1]}" if apart else styled[1]


def _compatible(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("−", "-")
