r"""Finds the answer in a completion, and takes the wrappings off an answer.

Where an answer may stand: after the reasoning, that is after the last `</think>`, or anywhere when the text has no
reasoning tags. Reasoning that was opened and not closed has no answer yet. There, the first rule that finds something
decides:

1. the content of the last `<answer>...</answer>`;
2. the content of the last `\boxed{...}`, braces balanced;
3. the last line that is not blank.

An `<answer>` that is not closed is none. No answer is the empty string. The last one counts, so that listing several
guesses does not pay. `read_answer` takes the wrappings off what is found, and off a reference in the same way: whatever
is a wrapping around the one is a wrapping around the other.
"""

from __future__ import annotations

import re

TAGGED_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_LEAD_IN = re.compile(
    r"(?:#+\s+)?(?:\*\*)?(?:(?:so|thus|therefore|hence)[,\s]+)?(?:(?:the|my)\s+)?(?:(?:final|correct)\s+)?"
    r"(?:answers?|result|option|choice|ans)(?:\s+(?:is|are)\b\s*:?|\s*[:=：](?:\*\*)?|\*\*\s*[:=：]|\s+(?=\$|\\[(\[]))\s*|#+\s+",
    re.IGNORECASE,
)
_CHINESE_LEAD_IN = re.compile(
    r"(?:\*\*)?(?:(?:因此|所以|综上所述|综上|于是|可知|故|则|即)[，,]?\s*)*"
    r"(?:(?:本题|这道题|该题|最终|最后|正确|其)的?)*"
    r"(?:[【\[]?(?:答案|结果|选项|答)[】\]]?(?:\*\*)?(?:(?:应该|应当|应|就)?[是为选]\s*[:：]?|\s*[:：](?:\*\*)?|(?<=[】\]]))"
    r"|(?:应|正确)?(?:选择|选项|选)[:：]?(?=[\s*]*[（(【]?[A-Za-z]))\s*"
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
    ("“", "”"),
    ("‘", "’"),
    ("「", "」"),
    ("【", "】"),
)
TEXT_COMMAND = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt)|mbox|hbox|emph|bold(?:symbol)?|bm|underline|operatorname)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
r"""A LaTeX command that only says how its content is set, such as `\text{cm}`."""
_FULL_STOPS = (".", "。", "．", "｡")
_BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\?[{}]")


def extract_answer(text: str) -> str:
    r"""The answer in a completion, without its wrappings.

    >>> extract_answer("<think>3 and 4</think><answer>7</answer>")
    '7'
    >>> extract_answer(r"So it is \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    >>> extract_answer("Counting.\nThe answer is 12.")
    '12'
    >>> extract_answer("<think>It may be <answer>7</answer>")
    ''
    """
    conclusion = after_reasoning(text)
    tagged = TAGGED_ANSWER.findall(conclusion)
    if tagged:
        return read_answer(tagged[-1])
    boxed = last_boxed(conclusion)
    if boxed is not None:
        return read_answer(boxed)
    lines = [line for line in conclusion.splitlines() if line.strip()]
    return read_answer(lines[-1]) if lines else ""


def extract_reading(text: str) -> str:
    """What a completion reads off an image, letter by letter: tags or a box come off, and nothing else.

    Full stops, quotes and lead-ins may stand in the image. Without tags and box, all of the conclusion is the reading.

    >>> extract_reading("<think>a bill</think><answer>Answer: 42.</answer>")
    'Answer: 42.'
    """
    conclusion = after_reasoning(text)
    tagged = TAGGED_ANSWER.findall(conclusion)
    if tagged:
        return read_reading(tagged[-1])
    boxed = last_boxed(conclusion)
    return conclusion.strip() if boxed is None else boxed.strip()


def read_reading(reading: str) -> str:
    """A reading, or its reference, without tags or a box around all of it."""
    reading = reading.strip()
    if tagged := TAGGED_ANSWER.fullmatch(reading):
        reading = tagged[1].strip()
    boxed = last_boxed(reading)
    return boxed.strip() if boxed is not None and reading == rf"\boxed{{{boxed}}}" else reading


def read_answer(answer: str) -> str:
    r"""What an answer, or a reference, says: the text without the wrappings around it, however they are nested.

    Wrappings are answer tags, a box (also one inside a sentence), a lead-in in English or Chinese such as "Answer:",
    "The answer is", "####", "故选", then `$...$`, `\(...\)`, `**...**`, `\text{...}`, quotes, and a final full stop.
    Reading what was read changes nothing. A wrapping around nothing is not one, so that "." reads as ".".

    >>> read_answer("**Answer:** $12$."), read_answer("故选B。"), read_answer(r"<answer>\text{B}</answer>")
    ('12', 'B', 'B')
    """
    tagged = TAGGED_ANSWER.findall(answer)
    answer = tagged[-1] if tagged else answer
    boxed = last_boxed(answer)
    answer = (answer if boxed is None else boxed).strip()
    while (inner := _without_one_wrapping(answer)) != answer:
        answer = inner
    return answer


def _without_one_wrapping(answer: str) -> str:
    inner = _without_lead_in(answer)
    if inner == answer and answer.endswith(_FULL_STOPS) and not answer.endswith(".."):
        inner = answer[:-1]
    if inner == answer and (styled := TEXT_COMMAND.fullmatch(answer)):
        inner = styled[1]
    for opening, closing in _WRAPPINGS:
        if inner == answer:
            inner = _without_pair(answer, opening, closing)
    return inner.strip() or answer


def _without_lead_in(line: str) -> str:
    lead_in = _LEAD_IN.match(line) or _CHINESE_LEAD_IN.match(line)
    if lead_in is None:
        return line
    rest = line[lead_in.end() :]
    if lead_in[0].count("**") != 1:
        return rest
    return rest.removesuffix("**") if lead_in[0].startswith("**") else f"**{rest}"


def _without_pair(answer: str, opening: str, closing: str) -> str:
    inner = answer[len(opening) : -len(closing)]
    wrapped = len(answer) > len(opening) + len(closing) and answer == opening + inner + closing
    return inner if wrapped and opening not in inner and closing not in inner else answer


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
