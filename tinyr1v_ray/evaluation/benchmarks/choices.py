"""Multiple choice: how options are shown, and which letter an answer means."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from string import ascii_uppercase

from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem, Grade, exact_grade
from tinyr1v_ray.rewards.extract import TAGGED_ANSWER, after_reasoning, extract_answer, last_boxed
from tinyr1v_ray.rewards.structured import normalised

_WHOLE = re.compile(r"[\s(\[{<]*([A-Za-z])[\s)\]}>.:]*")
_LEADING = re.compile(r"[(\[<]*([A-Z])\s*[)\]>.:](?!\w)")
_STATED = re.compile(r"(?:answer|option|choice)\s*(?:is|:|=)?\s*(?:option\s*)?[(\[<*]*([A-Z])(?![A-Za-z0-9'])", re.I)
_ALONE = re.compile(r"(?<![A-Za-z0-9'\\])([A-Z])(?![A-Za-z0-9'])")
_ARTICLE = re.compile(r"\s+(?!(?:or|and|nor|is|because|since|as|but|not)\b)[a-z]{2,}")


def with_options(item: BenchmarkItem, instruction: str = "Answer with the letter of the right option.") -> str:
    """The question, its options a line each, and an instruction; without options the question alone."""
    if not item.options:
        return item.question
    hint = item.columns.get("hint", "")
    lines = [f"Hint: {hint}"] if hint else []
    lines += [item.question, *(f"{letter}. {text}" for letter, text in item.options.items()), instruction]
    return "\n".join(lines)


def option_list(cell: str) -> dict[str, str]:
    """Letters and texts of a cell that holds a Python list of options; nothing when it holds none.

    >>> option_list("['3/11', '8/11']"), option_list("[]"), option_list("")
    ({'A': '3/11', 'B': '8/11'}, {}, {})
    """
    try:
        values = ast.literal_eval(cell.strip() or "[]")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    if not isinstance(values, list | tuple):
        return {}
    return dict(zip(ascii_uppercase, map(str, values), strict=False))


def choice_letter(text: str, options: Mapping[str, str]) -> str:
    """The letter that a completion chooses, or nothing when it chooses none or several.

    Read is the tagged or boxed answer, else what follows the reasoning. In order: the answer is a letter, starts with
    one ("B. cat"), is an option's text, or states one ("the answer is B"). Then a letter or an option's text that
    occurs alone decides, unless they contradict each other. "A" before a lower-case noun is an article.

    >>> options = {"A": "3/11", "B": "8/11"}
    >>> choice_letter("The correct answer is (B) 8/11.", options), choice_letter("either A or B", options)
    ('B', '')
    """
    answer = extract_answer(text)
    marked = TAGGED_ANSWER.search(after_reasoning(text)) or last_boxed(after_reasoning(text)) is not None
    place = answer if marked else after_reasoning(text)
    for letter in (_first_letter(answer), _of_text(answer, options), _stated(place)):
        if letter in options:
            return letter
    alone = {match[1] for match in _letters(place)} & options.keys()
    inside = _texts_inside(place, options)
    both = alone | inside
    return both.pop() if len(both) == 1 else ""


def grade_choice(item: BenchmarkItem, text: str, options: Mapping[str, str] | None = None) -> Grade:
    """Right when the letter is the key's. A letter that was found is sure, right or wrong."""
    letter = choice_letter(text, item.options if options is None else options)
    return exact_grade(bool(letter) and letter == item.answer.strip().strip("()").upper(), bool(letter))


def _first_letter(answer: str) -> str:
    match = _WHOLE.fullmatch(answer) or _LEADING.match(answer)
    return match[1].upper() if match else ""


def _of_text(answer: str, options: Mapping[str, str]) -> str:
    wanted = normalised(answer)
    letters = [letter for letter, text in options.items() if wanted and normalised(text) == wanted]
    return letters[0] if len(letters) == 1 else ""


def _stated(place: str) -> str:
    stated = [match for match in _STATED.finditer(place) if match[1].isupper() and not _is_article(place, match)]
    return stated[-1][1] if stated else ""


def _letters(place: str) -> list[re.Match[str]]:
    return [match for match in _ALONE.finditer(place) if not _is_article(place, match)]


def _is_article(place: str, match: re.Match[str]) -> bool:
    return match[1] in "AI" and _ARTICLE.match(place, match.end()) is not None


def _texts_inside(place: str, options: Mapping[str, str]) -> set[str]:
    """Letters whose texts stand in a short answer as whole words; a text inside a longer option's text is not one."""
    words = normalised(place)
    if len(words) > 2 * sum(len(text) for text in options.values()) + 60:
        return set()
    found: set[str] = set()
    for letter, text in sorted(options.items(), key=lambda option: -len(option[1])):
        wanted = re.escape(normalised(text))
        if wanted and (match := re.search(rf"(?<![\w.]){wanted}(?!\w|\.\d)", words)):
            found.add(letter)
            words = words[: match.start()] + " " + words[match.end() :]
    return found
