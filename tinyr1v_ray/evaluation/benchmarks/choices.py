"""Multiple choice: which option an answer chooses, and how sure that is.

Read is the tagged or boxed answer, else what follows the reasoning. The first of these rules that finds something
decides:

1. the answer is a letter; one that lists several letters chooses none;
2. it is stated ("the answer is B", "B is correct", "I choose B"); of several statements the last one counts;
3. the first line is a letter, or the answer begins with one ("B. cat") and no other line does;
4. the answer is an option's text or value: in LaTeX, as an equal number, with or without its unit;
5. letters and texts of options that occur in it, when all of them are one option's. A letter occurs when it stands in
   brackets, after a word such as option, in a list of letters, at an end of the text, or in an answer of few words.

An article, the name of a point, a letter in a formula and what the answer rejects ("B is too large", "not B") do not
count. What rule 5 finds is sure only when it is right; nothing found is never sure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem, Grade, exact_grade
from tinyr1v_ray.evaluation.benchmarks.latex import shown_text, without_latex
from tinyr1v_ray.evaluation.benchmarks.letters import (
    is_rejected,
    leading_letter,
    listed_letters,
    occurring_letters,
    stated_letter,
    whole_letter,
)
from tinyr1v_ray.evaluation.benchmarks.options import letter_of_value, letters_of_key
from tinyr1v_ray.rewards.extract import TAGGED_ANSWER, after_reasoning, extract_answer, last_boxed
from tinyr1v_ray.rewards.structured import normalised

LENIENT = (
    "an option's value counts in another notation and without its unit",
    "a letter that the answer states counts wherever it stands; there a lone letter counts among the last four words",
)
STRICT = (
    "a letter that the answer rejects, an article, the name of a point and a letter in a formula do not count",
    "an option's text inside a formula or inside another option's text does not count",
)
"""Where the rules part from VLMEvalKit's way of finding a choice (`can_infer`), for the benchmarks' official rules."""


@dataclass(frozen=True)
class Choice:
    """A letter, or nothing where none is chosen, or several are; and whether there is no doubt about the letter."""

    letter: str = ""
    is_sure: bool = False


def find_choice(text: str, options: Mapping[str, str]) -> Choice:
    """The option that a completion chooses, by the rules above.

    >>> options = {"A": "3/11", "B": "8/11"}
    >>> find_choice("The correct answer is (B) 8/11.", options), find_choice("either A or B", options).letter
    (Choice(letter='B', is_sure=True), '')
    """
    conclusion, answer = after_reasoning(text), extract_answer(text)
    shown = shown_text(answer).strip()
    if letter := whole_letter(shown):
        return Choice(letter, True) if letter in options else Choice()
    if len(listed_letters(shown) & options.keys()) > 1:
        return Choice()
    is_marked = TAGGED_ANSWER.search(conclusion) or last_boxed(conclusion) is not None
    place = shown if is_marked else shown_text(conclusion).strip()
    if letter := (
        stated_letter(place, options) or leading_letter(place, shown, options) or letter_of_value(answer, options)
    ):
        return Choice(letter, True) if letter in options else Choice()
    occurring = occurring_letters(place, options) | _occurring_texts(place, options)
    return Choice(occurring.pop()) if len(occurring) == 1 else Choice()


def grade_letter(text: str, options: Mapping[str, str], key: str) -> Grade:
    """Right when the letter is the key's, or the letters are all of the key's where it has several."""
    wanted = letters_of_key(key, options)
    if len(wanted) > 1:
        listed = listed_letters(shown_text(extract_answer(text)))
        return exact_grade(listed == wanted, bool(listed))
    choice = find_choice(text, options)
    return exact_grade({choice.letter} == wanted, choice.is_sure)


def grade_choice(item: BenchmarkItem, text: str) -> Grade:
    """Grade by the options of the item."""
    return grade_letter(text, item.options, item.answer)


def _occurring_texts(place: str, options: Mapping[str, str]) -> set[str]:
    """Letters whose texts stand in a short answer as whole words outside formulas and are not rejected.

    A text inside a longer option's text is not one, and neither is a text that is a letter: that is read as a letter.
    """
    words = normalised(without_latex(place))
    if len(words) > 2 * sum(len(text) for text in options.values()) + 60:
        return set()
    found: set[str] = set()
    for letter, text in sorted(options.items(), key=lambda option: -len(option[1])):
        plain = normalised(without_latex(text))
        if len(plain) < 2 and not plain.isdecimal():
            continue
        whole = rf"(?<![\w.,/^\\{{(+*=-]){re.escape(plain)}(?![\w/^\\{{(+*]|[.,]\d|\s*[-+*/^=π√])"
        match = re.search(whole, words)
        if match and not is_rejected(words[: match.start()], words[match.end() :]):
            found.add(letter)
            words = words[: match.start()] + " " + words[match.end() :]
    return found
