"""Letters of options in prose: which one an answer lists, states, begins with, or lets occur."""

from __future__ import annotations

import re
from collections.abc import Container


def _any(words: str) -> str:
    """A pattern of one of the words divided by bars, in any case; a blank stands for white space."""
    return r"(?i:\b(?:" + words.replace(" ", r"\s+") + r")\b)"


_OPTION = _any("option|choice|letter|answer|alternative")
_LETTER = r"[(\[<{\s]*([A-Z])(?![A-Za-z0-9_'’/\\^+=-]|\s*[-+=/^]\s*\w)[)\]>}]*"
_MARKS = r"[\s()\[\]{}<>.,:;!*'\"“”。、]*"
_WHOLE = re.compile(rf"{_MARKS}(?:(?i:the\s+)?{_OPTION}\s*[:.]?\s*)?{_MARKS}([A-Za-z]){_MARKS}")
_LISTED = re.compile(r"(?:[(\[{]?[A-Z][)\]}]?[.:]?(?:\s*(?:[,;&、，]|\band\b)\s*|\s+|$|(?=[(\[])))+")
_LEADING = re.compile(r"[(\[<{]*([A-Z])(?:\s*[)\]>}:]+|\s*[.,](?!\w)|\s*\n|\s+[-–—]\s)\s*")

_BE = _any("is|are|would be|should be|must be|will be")
_FILLER = _any("therefore|thus|clearly|definitely|most likely|likely|the|correct|right|indeed")
_LINK = rf"(?:[:=→]|{_BE}|{_OPTION}|{_FILLER})"
_CHOOSE = _any("choose|chose|select|selected|pick|picked|go with|going with|opt for")
_STATED = re.compile(
    rf"{_any('answers?|choice|option|solution|conclusion')}\s*(?:[:=→]|{_BE})(?:\s*{_LINK})*\s*{_LETTER}"
    rf"|{_any('answer')}\s+(?:{_any('option')}\s+)?{_LETTER}"
    rf"|(?:答案|选)[是为择项:：\s]*{_LETTER}"
    rf"|{_CHOOSE}\s+(?:the\s+)?(?:{_OPTION}\s+)?{_LETTER}"
    rf"|(?<![A-Za-z0-9'’]){_LETTER}[^.;,(\nA-Z]{{0,40}}?\s{_BE}\s+(?:the\s+)?{_any('correct|right|answer|best|only|true')}"
)
_CLAUSE_END = re.compile(rf"[.,;:!?\n]|{_any('and|but|so|hence|because|since')}")
_DENIAL = re.compile(rf"{_any('not|never|neither|whether|nor|cannot|wrong|incorrect|doubt')}|n['’]t\b")

_ALONE = re.compile(r"(?<![A-Za-z0-9'’/\\^_=+∠△<-])([A-Z])(?![A-Za-z0-9'’/\\^_]|\s*[=+^]|-\w)")
_AFTER_NO_ARTICLE = "or|and|nor|is|because|since|as|but|not|would|must|has|was|can|cannot|does"
_ARTICLE = re.compile(rf"\s+(?!(?:{_AFTER_NO_ARTICLE})\b)[a-z]{{2,}}")
_NAMED = re.compile(
    _any(
        "points?|vertex|vertices|angles?|triangles?|lines?|segments?|sides?|arcs?|rays?|circles?|center|centre|edges?|squares?"
        "|city|cities|town|station|node|team|person|player|variable|set|event|matrix|from|to|at|of|through"
    )
    + r"\s*[(]?$"
)
_CHOSEN = re.compile(
    rf"(?:{_OPTION}|{_any('pictures?|images?|figures?|shapes?|pieces?|graphs?|diagrams?|drawings?|statements?')})\s*[(\[]?$"
)
_AND = r"\s*(?:[,;/&]|\b(?:and|or)\b)\s*(?:(?:and|or|maybe|perhaps|possibly|option|choice)\s+)?"
_MORE = re.compile(rf"[)\]]?{_AND}[(\[]?[A-Z](?![A-Za-z0-9'’])")
_MORE_BEFORE = re.compile(rf"(?<![A-Za-z0-9'’])[A-Z][)\]]?{_AND}[(\[]?$")

_REJECTED_BEFORE = re.compile(
    rf"(?:{_any('not|never|neither|nor|except|instead of|rather than|unlike|than|without|rul(?:e|ed|ing) out')}"
    r"|\b(?i:exclud|eliminat|reject|discard)\w*|n['’]t(?: be)?)"
    rf"\s+(?:the\s+)?(?:{_OPTION}s?\s+|be\s+)?(?:[(]?[A-Z][)]?{_AND})*[(\[\"'“]?$"
)
_REJECTED_AFTER = re.compile(
    r"[)\]\"'”:]*[^.;,(\n]{0,60}?(?:n['’]t\b|"
    + _any(
        "not|cannot|never|wrong|incorrect|false|too|impossible|invalid|fails?|contradicts?|would|eliminated|excluded|rejected"
        "|discarded|ruled out|inconsistent|unlikely|neither"
    )
    + ")"
)
_WORDS_OF_A_SHORT_ANSWER = 3
_CONTEXT = 80
"""Characters before a letter that say what it is."""


def listed_letters(text: str) -> frozenset[str]:
    """The letters of a text that lists capital letters and holds nothing else.

    >>> sorted(listed_letters("(A), (C)")), listed_letters("A cat"), listed_letters("N/A")
    (['A', 'C'], frozenset(), frozenset())
    """
    text = text.strip()
    return frozenset(re.findall(r"[A-Z]", text)) if _LISTED.fullmatch(text) else frozenset()


def whole_letter(text: str) -> str:
    """The letter that a text is, with the word option or marks around it; nothing for any other text.

    >>> whole_letter("Option (b)."), whole_letter("A cat"), whole_letter("A+"), whole_letter("N/A")
    ('B', '', '', '')
    """
    match = _WHOLE.fullmatch(text)
    return match[1].upper() if match else ""


def stated_letter(place: str, options: Container[str]) -> str:
    """The letter of the last statement that is not denied; `several` for one that names more than one letter.

    >>> stated_letter("The answer is B, not A. Option C would double it.", "ABC"), stated_letter("B is not right", "AB")
    ('B', '')
    """
    found = ""
    for match in _STATED.finditer(place):
        letter = next(filter(None, match.groups()))
        clause = _CLAUSE_END.split(place[: match.start()][-_CONTEXT:])[-1]
        if letter not in options or _is_article(letter, place, match.end()) or _DENIAL.search(clause + match[0]):
            continue
        found = "several" if _MORE.match(place, match.end()) else letter
    return found


def leading_letter(place: str, answer: str, options: Container[str]) -> str:
    """The letter that the first line is, or that the answer begins with; nothing when other letters compete with it."""
    lines = place.splitlines() or [""]
    if (first := whole_letter(lines[0])) in options:
        return first
    match = _LEADING.match(answer)
    if match is None or match[1] not in options or occurring_letters(answer[match.end() :], options) - {match[1]}:
        return ""
    begun = {line[1] for line in map(_LEADING.match, lines) if line is not None}
    return match[1] if len(begun) <= 1 else ""


def occurring_letters(place: str, options: Container[str]) -> set[str]:
    """Letters of options that occur as such, not as an article, a name or in a formula, and are not rejected.

    >>> occurring_letters("It is neither A nor (B), so it must be C.", "ABC"), occurring_letters("A line at B", "AB")
    ({'C'}, set())
    """
    is_short = len(place.split()) <= _WORDS_OF_A_SHORT_ANSWER
    found = set()
    for match in _ALONE.finditer(place):
        letter, before, after = match[1], place[: match.start()][-_CONTEXT:], place[match.end() :][:_CONTEXT]
        if letter not in options or _is_article(letter, after) or is_rejected(before, after):
            continue
        if is_short or _is_shown_as_option(before, after):
            found.add(letter)
    return found


def is_rejected(before: str, after: str) -> bool:
    """Whether the words around a letter or an option's text say that it is not the answer."""
    return _REJECTED_BEFORE.search(before) is not None or _REJECTED_AFTER.match(after) is not None


def _is_shown_as_option(before: str, after: str) -> bool:
    """In brackets, beginning or ending the text, listed beside another letter, or named an option."""
    in_brackets = re.search(r"(?<![A-Za-z0-9])[(\[]$", before) and after[:1] in (")", "]")
    begins = not before.strip() and re.match(r"\s*[).:]|\s+(?:is|because|since)\b", after)
    ends = re.match(r"\s*[)\]]?[.!]?\s*(?:\n|$)", after) and not _NAMED.search(before)
    return bool(
        in_brackets or begins or ends or _CHOSEN.search(before) or _MORE.match(after) or _MORE_BEFORE.search(before)
    )


def _is_article(letter: str, place: str, end: int = 0) -> bool:
    return letter in "AI" and _ARTICLE.match(place, end) is not None
