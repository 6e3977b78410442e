"""Tables in VLMEvalKit's real layout, made here as pandas writes them, and everything that can be wrong with them."""

from __future__ import annotations

import base64
import csv
from pathlib import Path

import pytest
from benchmark_cells import picture
from PIL import Image

from tinyr1v_ray.config.benchmark import UserBenchmarkSettings
from tinyr1v_ray.errors import ConfigError, DataError
from tinyr1v_ray.evaluation.benchmarks.item import BenchmarkItem
from tinyr1v_ray.evaluation.benchmarks.load import EMPTY_KEY, find_file, load_items
from tinyr1v_ray.evaluation.benchmarks.registry import TEN_BENCHMARKS, find_benchmark
from tinyr1v_ray.evaluation.tsv import read_tsv

MMSTAR = TEN_BENCHMARKS["mmstar"]
COLUMNS = ("index", "question", "image", "answer", "A", "B", "C", "D", "category", "l2_category")


def row(index: str, image: str, question: str = "Which?", answer: str = "A") -> list[str]:
    return [index, question, image, answer, "cat", "dog", "cow", "pig", "logic", "fine"]


def write(
    path: Path,
    rows: list[list[str]],
    columns: tuple[str, ...] = COLUMNS,
    *,
    encoding: str = "utf-8",
    delimiter: str = "\t",
    quoting: int = csv.QUOTE_ALL,
) -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def load(path: Path) -> dict[str, BenchmarkItem]:
    return {item.index: item for item in load_items(MMSTAR, path, path.parent / "store", 64.0)}


def test_a_table_in_the_real_layout(tmp_path: Path) -> None:
    long = "x" * 100_000
    question = 'Which "one"?\nA line\tand a tab'
    rows = [row("0", picture(10), question), row("1", picture(20), long), row("2", "0"), row("3", "2", answer="")]
    items = load(write(tmp_path / "MMStar.tsv", rows))
    assert items["0"].question == question and items["1"].question == long
    assert items["0"].options == {"A": "cat", "B": "dog", "C": "cow", "D": "pig"}
    assert items["0"].category == "logic" and items["0"].columns == {"category": "logic", "l2_category": "fine"}
    assert items["0"].images[0].width_px == 28
    assert items["2"].images == items["3"].images == items["0"].images != items["1"].images
    assert items["3"].failure == EMPTY_KEY and not items["0"].failure
    assert len(list((tmp_path / "store").rglob("*.png"))) == 2


def test_a_reference_may_name_a_later_row(tmp_path: Path) -> None:
    items = load(write(tmp_path / "MMStar.tsv", [row("a", "b"), row("b", picture(1))]))
    assert items["a"].images == items["b"].images


def test_broken_images_cost_their_items_and_are_named(tmp_path: Path) -> None:
    noise = base64.b64encode(b"no image at all" * 10).decode()
    truncated = base64.b64encode(base64.b64decode(picture(7))[:60]).decode()
    rows = [
        row("good", picture(1)),
        row("base64", picture(2)[:-7] + "!!" + "a" * 80),
        row("noise", noise),
        row("short", truncated),
        row("nowhere", "does-not-exist"),
        row("self", "self"),
        row("to a broken one", "base64"),
        row("none", ""),
    ]
    failures = {index: item.failure for index, item in load(write(tmp_path / "MMStar.tsv", rows)).items()}
    assert failures.pop("good") == ""
    assert all(failures.values())
    assert "broken base64" in failures["base64"] and "no known format" in failures["noise"]
    assert "names row" in failures["nowhere"] and "names row" in failures["self"] and "no image" in failures["none"]


def test_several_images_and_data_urls(tmp_path: Path) -> None:
    both = str([picture(1), picture(2)])
    items = load(write(tmp_path / "MMStar.tsv", [row("0", both), row("1", "data:image/png;base64," + picture(1))]))
    assert len(items["0"].images) == 2 and items["1"].images[0] == items["0"].images[0]


def test_images_in_files_beside_the_table(tmp_path: Path) -> None:
    Image.new("RGB", (28, 56)).save(tmp_path / "one.png")
    columns = ("index", "question", "image_path", "answer", "category")
    rows = [["0", "q", "one.png", "Yes", "color"], ["1", "q", "gone.png", "No", "color"]]
    path = write(tmp_path / "MME.tsv", rows, columns)
    found, gone = load_items(TEN_BENCHMARKS["mme"], path, tmp_path / "store", 64.0)
    assert found.images[0].height_px == 56 and found.columns["image_path"] == "one.png"
    assert "gone.png cannot be read" in gone.failure


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    assert "0" in load(write(tmp_path / "MMStar.tsv", [row("0", picture(1))], encoding="utf-8-sig"))


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_another_delimiter_is_named(tmp_path: Path, delimiter: str) -> None:
    path = write(tmp_path / "MMStar.tsv", [row("0", "1")], delimiter=delimiter, quoting=csv.QUOTE_MINIMAL)
    with pytest.raises(DataError, match=r"divided by '[,;]'; cells are divided by tabs"):
        load(path)


@pytest.mark.parametrize("name", TEN_BENCHMARKS)
def test_missing_columns_are_named(tmp_path: Path, name: str) -> None:
    benchmark = TEN_BENCHMARKS[name]
    keys = [] if benchmark.hidden_key else ["answer"]
    needed = ["index", "question", *keys, *benchmark.columns]
    for missing in needed:
        columns = tuple(column for column in (*needed, "image") if column != missing)
        path = write(tmp_path / benchmark.files[0], [["1"] * len(columns)], columns)
        with pytest.raises(DataError, match=f"no column '{missing}'"):
            load_items(benchmark, path, tmp_path / "store", 64.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"index\tquestion\tanswer\tA\tB\timage\n", "has no rows"),
        (b"index\tquestion\tanswer\tA\tB\n1\tq\tA\tx\ty\n", "no column image or image_path"),
        (b"index\tquestion\tanswer\tA\tB\timage\n1\tq\tA\tx\ty\tz\tmore\n", "7 cells for 6 columns"),
        (b"index\tquestion\tanswer\tA\tB\timage\n1\tq\t\tx\ty\tz\n", "no answers"),
        (b"index\tquestion\tanswer\tA\tB\timage\n1\tq\tA\tx\ty\tz\n1\tq\tA\tx\ty\tz\n", "twice the index '1'"),
        (b"index\tquestion\tanswer\tA\tB\timage\n1\t\xff\xfe\tA\tx\ty\tz\n", "cannot be read"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "cannot be read"),
        (b"index\tquestion\tanswer\tA\tA\timage\n1\tq\tA\tx\ty\tz\n", "has the column 'A' twice"),
        (
            b'index\tquestion\tanswer\tA\tB\timage\n0\t"q\nr"\tA\tx\ty\tz\n1\t"q\tA\tx\ty\tz\n2\tq\tA\tx\ty\tz\n',
            "line 4 of .* never",
        ),
        (b'index\tquestion\tanswer\tA\tB\t"image\n1\tq\tA\tx\ty\tz\n', "line 1 of .* never closed"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "MMStar.tsv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_tables_are_read_side_by_side(tmp_path: Path) -> None:
    """As two evaluations do in their threads: the one that ends first leaves the other's long cells readable."""
    rows = [row(str(number), "x" * 200_000) for number in range(3)]
    first, second = (read_tsv(write(tmp_path / name, rows), ()) for name in ("first.tsv", "second.tsv"))
    assert next(first)["index"] == next(second)["index"] == "0"
    assert [cells["index"] for cells in first] == ["1", "2"]
    assert [len(cells["image"]) for cells in second] == [200_000, 200_000]


def test_quotes_inside_and_at_the_end_of_a_table_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "MMStar.tsv"
    path.write_text('index\tquestion\tanswer\tA\tB\timage\n1\ta 5" disk\tA\tx\ty\tz\n2\t"q\n"\tA\tx\ty\t"z"')
    assert [row["question"] for row in read_tsv(path, ())] == ['a 5" disk', "q\n"]


def test_the_metric_choice_needs_options(tmp_path: Path) -> None:
    described = UserBenchmarkSettings(file="own.tsv", metric="choice")
    path = write(tmp_path / "own.tsv", [["1", "q", "A", picture(1)]], ("index", "question", "answer", "image"))
    with pytest.raises(DataError, match=r"has no column A, B, .*; add them, or set another user.own.metric"):
        load_items(find_benchmark("own", {"own": described}), path, tmp_path / "store", 64.0)


@pytest.mark.parametrize("name", ["mme", "ten"])
def test_a_users_benchmark_has_a_name_of_its_own(name: str) -> None:
    described = UserBenchmarkSettings(file="own.tsv", metric="exact")
    for asked in (name, "chartqa"):
        with pytest.raises(ConfigError, match=f"user.{name} has the name of a built-in; .* rename yours"):
            find_benchmark(asked, {name: described})


GRADING_QUERY = """Examples:
* Question: Which?
* Ground Truth: (b)
* Response: b

Your turn:
    * Question: How high is the red bar?
    * Ground Truth: 0.30
    * Response: {PREDICTION}
"""


def test_a_key_may_stand_in_the_grading_query_alone(tmp_path: Path) -> None:
    columns = ("index", "question", "image", "grading_query", "inst_category")
    rows = [["1", "How high?", picture(1), GRADING_QUERY, "3.0"], ["2", "q", picture(1), "no key in here", "1.0"]]
    path = write(tmp_path / "CharXiv_reasoning_val.tsv", rows, columns)
    found, keyless = load_items(TEN_BENCHMARKS["charxiv"], path, tmp_path / "store", 64.0)
    assert (found.answer, found.category, found.failure) == ("0.30", "3", "")
    assert TEN_BENCHMARKS["charxiv"].grade(found, "<answer>0.3</answer>").correct
    assert keyless.failure == EMPTY_KEY
    write(path, [["1", "q", picture(1)]], ("index", "question", "image"))
    with pytest.raises(DataError, match="no answers"):
        load_items(TEN_BENCHMARKS["charxiv"], path, tmp_path / "store", 64.0)


def test_an_answer_column_goes_before_the_grading_query(tmp_path: Path) -> None:
    columns = ("index", "question", "image", "answer", "grading_query")
    path = write(tmp_path / "CharXiv_reasoning_val.tsv", [["1", "q", picture(1), "7", GRADING_QUERY]], columns)
    [item] = load_items(TEN_BENCHMARKS["charxiv"], path, tmp_path / "store", 64.0)
    assert item.answer == "7"


@pytest.mark.parametrize("name", ["MathVerse_MINI_Vision_Only.tsv", "MathVerse_MINIVOnly.tsv", "MathVerse_MINI.tsv"])
def test_mathverse_goes_by_vlmevalkits_local_and_downloaded_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert find_file(TEN_BENCHMARKS["mathverse"], tmp_path).name == name


def test_missing_files_say_what_they_are_called(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"MathVista_MINI\.tsv or MathVista\.tsv"):
        find_file(TEN_BENCHMARKS["mathvista"], tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        list(read_tsv(tmp_path / "gone.tsv", ()))


@pytest.mark.parametrize(
    ("name", "near"), [("MathVista", "mathvista"), ("ocr-bench", "ocrbench"), ("miniature:ocr2", "miniature:ocr")]
)
def test_an_unknown_benchmark_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {near}"):
        find_benchmark(name, {})
