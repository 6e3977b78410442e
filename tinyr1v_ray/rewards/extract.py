r"""Finds the answer in a completion.

Where it may stand: after the reasoning, that is after the last `</think>`, or anywhere when the text has no reasoning
tags. Reasoning that was opened and not closed has no answer yet. There, the first rule that finds something decides:

1. the content of the last `<answer>...</answer>`;
2. the content of the last `\boxed{...}`, braces balanced;
3. the last line that is not blank, without a lead-in such as "Answer:" or "The answer is".

A lead-in, `\boxed{}`, `$...$`, `**...**`, quotes and a final full stop around what is found are taken off; of a box
inside tags, the box counts. An `<answer>` that is not closed is none. No answer is the empty string. The last one
counts, so that listing several guesses does not pay.
"""

from __future__ import annotations

import re

TAGGED_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_LEAD_IN = re.compile(
    r"^(?:\*\*)?(?:(?:so|thus|therefore|hence)[,\s]+)?(?:(?:the|my)\s+)?(?:(?:final|correct)\s+)?(?:answer|result)"
    r"(?:\s+is\s*:?|\s*[:=](?:\*\*)?|\*\*\s*[:=])\s*",
    re.IGNORECASE,
)
_WRAPPINGS = (
    ("$$", "$$"),
    ("$", "$"),
    (r"\(", r"\)"),
    (r"\[", r"\]"),
    ("**", "**"),
    ("`", "`"),
    ('"', '"'),
    ("'", "'"),
)
_BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\?[{}]")


def extract_answer(text: str) -> str:
    r"""The answer in a completion, by the rules above.

    >>> extract_answer("<think>3 and 4</think><answer>7</answer>")
    '7'
    >>> extract_answer(r"So it is \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    >>> extract_answer("Counting.\nThe answer is 12.")
    '12'
    >>> extract_answer("<think>It may be <answer>7</answer>")
    ''
    """
    return unwrap(_find(text))


def _find(text: str) -> str:
    conclusion = after_reasoning(text)
    tagged = TAGGED_ANSWER.findall(conclusion)
    place = tagged[-1] if tagged else conclusion
    boxed = last_boxed(place)
    if boxed is not None:
        return boxed
    lines = [line.strip() for line in place.splitlines() if line.strip()]
    found = place if tagged else (lines or [""])[-1]
    return _without_lead_in(found.strip())


def _without_lead_in(line: str) -> str:
    lead_in = _LEAD_IN.match(line)
    if lead_in is None:
        return line
    rest = line[lead_in.end() :]
    return rest if rest.startswith("**") or not lead_in[0].startswith("**") else rest.removesuffix("**")


def after_reasoning(text: str) -> str:
    """What follows the last `</think>`; all of a text without reasoning tags; nothing of unfinished reasoning."""
    _, closing, conclusion = text.rpartition("</think>")
    if "<think>" in conclusion:
        return ""
    return conclusion if closing else text


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}` or `\fbox{...}` whose braces balance; None when there is none.

    Escaped braces do not count. One pass, whatever is left open.
    """
    open_braces: list[tuple[int, bool]] = []
    last: tuple[int, int] | None = None
    for match in _BRACE.finditer(text):
        brace = match[0]
        if brace == "}" and open_braces:
            start, is_box = open_braces.pop()
            if is_box and (last is None or start > last[0]):
                last = start, match.start()
        elif brace == "{" or match["box"]:
            open_braces.append((match.end(), bool(match["box"])))
    return None if last is None else text[last[0] : last[1]]


def unwrap(answer: str) -> str:
    """The answer without white space, wrappings and final full stop, however they are nested."""
    while (inner := _unwrap_once(answer)) != answer:
        answer = inner
    return answer


def _unwrap_once(answer: str) -> str:
    answer = answer.strip()
    if answer.endswith(".") and not answer.endswith(".."):
        return answer[:-1]
    for opening, closing in _WRAPPINGS:
        inner = answer[len(opening) : -len(closing)]
        if len(answer) > len(opening) + len(closing) and answer == opening + inner + closing and opening not in inner:
            return inner
    boxed = last_boxed(answer)
    return boxed if boxed is not None and answer == rf"\boxed{{{boxed}}}" else answer
