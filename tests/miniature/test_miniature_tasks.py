"""Questions, answers and images agree: recomputed from the source data, from the equations and from the pixels."""

import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from vega_datasets import local_data

from tinyr1v_ray.miniature.tasks.catalogue import items
from tinyr1v_ray.miniature.tasks.digits import draw_handwritten
from tinyr1v_ray.miniature.tasks.item import Item, Style
from tinyr1v_ray.miniature.tasks.pools import Domain, Pool
from tinyr1v_ray.miniature.tasks.structure import COLOURS, draw_chart

NUM_ITEMS = 400


def _items(domain: Domain) -> list[Item]:
    return list(items(domain, Pool.TRAIN, NUM_ITEMS, seed=1))


def test_ocr_answers_are_the_labels_of_the_samples() -> None:
    labels = load_digits().target
    for item in _items(Domain.OCR):
        indices = [int(source.removeprefix("digit-")) for source in item.sources]
        digits = [str(labels[index]) for index in indices]
        is_sorted = "smallest to largest" in item.question
        assert item.answer == "".join(sorted(digits) if is_sorted else digits)
        assert item.need == (len(digits) if is_sorted else 0)
        assert item.image.size == (28 * len(indices), 28)
        assert item.difficulty == len(indices) - 1


def test_drawn_digits_can_be_read_back_from_the_pixels() -> None:
    """A nearest-neighbour reader of 8 x 8 samples reads most of what was drawn (chance is 0.1)."""
    bunch = load_digits()
    reader = KNeighborsClassifier(3).fit(bunch.data[:800], bunch.target[:800])
    rng = np.random.default_rng(0)
    digits = rng.integers(0, 10, size=300)
    small = []
    for digit in digits:
        cell, _ = draw_handwritten(int(digit), Pool.EVALUATION, rng)
        ink = 255 - np.asarray(cell.crop((3, 3, 25, 25)).resize((8, 8), Image.Resampling.BOX), dtype=float)
        small.append(ink.ravel() * 16 / 255)
    assert np.mean(reader.predict(small) == digits) > 0.6


def test_math_steps_are_true_and_lead_to_the_answer() -> None:
    kinds = set()
    for item in _items(Domain.MATH):
        steps = [step.rstrip(".") for step in item.thoughts.long.split() if "=" in step]
        assert item.thoughts.needed.count("=") == len(steps) == item.need
        if not steps:
            continue
        assert all(step.split("=", 1)[1] in item.thoughts.needed for step in steps)
        for step in steps:
            left, right = step.split("=")
            assert re.fullmatch(r"\d+[+*]\d+", left)
            assert eval(left) == int(right)
        assert steps[-1].split("=")[1] == item.answer
        assert item.difficulty == len(steps)
        kinds.add((item.question, len(steps)))
    assert len(kinds) >= 7


def test_math_look_ups_name_the_operand_that_is_asked_for() -> None:
    labels = load_digits().target
    asked = [item for item in _items(Domain.MATH) if item.need == 0]
    assert {item.question for item in asked} == {"What is the first number?", "What is the last number?"}
    for item in asked:
        source = item.sources[0 if "first" in item.question else -1]
        assert item.answer == str(labels[int(source.removeprefix("digit-"))])


def test_math_formulas_equal_the_result_by_precedence() -> None:
    """The digits' labels and the usual order of operations give the answer of every sum or product-and-sum."""
    labels = load_digits().target
    for item in _items(Domain.MATH):
        if item.question != "What is the result?":
            continue
        operands = [int(labels[int(source.removeprefix("digit-"))]) for source in item.sources]
        products = item.thoughts.long.count("*")
        if products == 0:
            expected = sum(operands)
        elif products == 1:
            expected = operands[0] * operands[1] + operands[2]
        else:
            expected = operands[0] * operands[1] + operands[2] * operands[3]
        assert item.answer == str(expected)


def test_structure_answers_follow_from_the_listed_values() -> None:
    for item in _items(Domain.STRUCTURE):
        listed = re.search(r"The values are (.*?)\.( |$)", item.thoughts.long)
        assert listed is not None
        values = {label: int(value) for label, value in (pair.rsplit(" ", 1) for pair in listed[1].split(", "))}
        question = item.question
        named = [label for label in values if re.search(rf"(for|and) {label}\b", question)]
        if "largest" in question or "smallest" in question:
            expected = (max if "largest" in question else min)(values, key=lambda label: values[label])
        elif "How much" in question:
            expected = str(abs(values[named[0]] - values[named[1]]))
        elif "sum" in question:
            expected = str(values[named[0]] + values[named[1]])
        elif "label" in question:
            expected = list(values)[0 if "first" in question else -1]
        else:
            expected = str(values[named[0]])
        assert item.answer == expected, question
        _check_needed_values(item, values, named)


def _check_needed_values(item: Item, values: dict[str, int], named: list[str]) -> None:
    """Values are gone through up to the last that the question is about; what is made of them is one more step."""
    read, _, result = item.thoughts.needed.partition(": ")
    pairs = read.split(",") if read else []
    assert pairs == [f"{label} {value}" for label, value in values.items()][: len(pairs)]
    assert item.need == len(pairs) + bool(result)
    if named:
        assert pairs[-1].rsplit(" ", 1)[0] in named and all(any(p.startswith(f"{n} ") for p in pairs) for n in named)
    elif "value" in item.question:
        assert len(pairs) == len(values)
    else:
        assert item.need == 0


@pytest.mark.filterwarnings("ignore:The 'convert_dates' keyword")
def test_structure_values_are_those_of_the_source() -> None:
    """Single values of cars and weather, looked up in the source table by the row's number."""
    sources = {
        "cars": (local_data.cars(), {"mpg": "Miles_per_Gallon", "cyl": "Cylinders", "sec": "Acceleration"}),
        "weather": (local_data.seattle_weather(), {"max": "temp_max", "min": "temp_min", "wind": "wind"}),
    }
    num_checked = 0
    for item in _items(Domain.STRUCTURE):
        table, _ = item.sources[0].rsplit("-", 1)
        asked = re.fullmatch(r"What is the value of (\w+) for (\w+)\?", item.question)
        if table not in sources or asked is None:
            continue
        frame, names = sources[table]
        rows = [int(source.rsplit("-", 1)[1]) for source in item.sources if "-" in source]
        found = {str(round(frame[names[asked[1]]].iloc[row])) for row in rows}
        assert item.answer in found
        num_checked += 1
    assert num_checked >= 10


@pytest.mark.parametrize("values", [(3, 40, 12), (99, 1, 50, 7, 98)])
def test_bars_are_as_high_as_their_values(values: tuple[int, ...]) -> None:
    labels = tuple("abcde"[: len(values)])
    pixels = np.asarray(draw_chart(labels, values, COLOURS[0])[0])
    coloured = (pixels == COLOURS[0]).all(axis=2).sum(axis=0)
    heights = [coloured[28 * column + 14] for column in range(len(values))]
    assert (np.diff(np.array(heights)[np.argsort(values)]) >= 0).all()
    assert heights == pytest.approx([40 * value / max(values) for value in values], abs=2)


@pytest.mark.parametrize("domain", list(Domain))
def test_every_style_ends_in_the_same_answer_and_grows(domain: Domain) -> None:
    for item in _items(domain)[:50]:
        bare, needed, long, full = responses = [item.response(style) for style in Style]
        assert all(response.endswith(f"</think><answer>{item.answer}</answer>") for response in responses)
        assert len(needed) < len(full) and len(bare) < len(long) < len(full)
        assert (bare == needed) is (item.need == 0)


@pytest.mark.parametrize("domain", list(Domain))
def test_images_are_whole_cells(domain: Domain) -> None:
    for item in _items(domain):
        assert item.image.width % 28 == 0 and item.image.height % 28 == 0
        assert 2 <= item.image.width * item.image.height // 784 <= 40


def test_cells_name_what_is_drawn_in_them() -> None:
    """As many texts as cells; digits and table values are among them, and a cell with text holds ink."""
    for domain in Domain:
        for item in _items(domain)[:100]:
            columns, rows = item.image.width // 28, item.image.height // 28
            assert len(item.cells) == columns * rows
            if domain is Domain.OCR and item.need == 0:
                assert "".join(item.cells) == item.answer
            grey = np.asarray(item.image.convert("L"), dtype=float)
            for place, text in enumerate(item.cells):
                top, left = 28 * (place // columns), 28 * (place % columns)
                if text:
                    assert grey[top : top + 28, left : left + 28].min() < 100
