"""Every kind of source, good and bad, through the real `datasets`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from tinyr1v_ray.config.data import DataSettings
from tinyr1v_ray.config.folders import default_cache_folder
from tinyr1v_ray.data.items import ItemReader
from tinyr1v_ray.data.sources import SourceKind, load_source, parse_source
from tinyr1v_ray.errors import DataError

Picture = Callable[..., bytes]
LOCAL = {"question": "How many?", "answer": "7"}


def write_jsonl(path: Path, *rows: Mapping[str, object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(source: str, cache: Path, **settings: str) -> ItemReader:
    return ItemReader(DataSettings(**settings), load_source(source, "train", cache))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "kind", "location", "split"),
    [
        ("lmms-lab/ChartQA", SourceKind.HUB, "lmms-lab/ChartQA", "train"),
        ("lmms-lab/ChartQA:test", SourceKind.HUB, "lmms-lab/ChartQA", "test"),
        ("a/b.c_d-e:train[:10%]", SourceKind.HUB, "a/b.c_d-e", "train[:10%]"),
        ("miniature:ocr", SourceKind.MINIATURE, "ocr", "train"),
        ("miniature:math:warmup", SourceKind.MINIATURE, "math", "warmup"),
        ("data/train.parquet", SourceKind.FILE, "data/train.parquet", "train"),
        ("/data/x.jsonl", SourceKind.FILE, "/data/x.jsonl", "train"),
    ],
)
def test_sources_are_told_apart(text: str, kind: SourceKind, location: str, split: str) -> None:
    source = parse_source(text, "train")
    assert (source.kind, source.location, source.split) == (kind, location, split)


def test_what_exists_comes_before_hub_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Picture) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert parse_source("owner/name", "train").kind is SourceKind.IMAGE_FOLDER
    (tmp_path / "owner" / "name" / "part-0.parquet").touch()
    assert parse_source("owner/name", "train").kind is SourceKind.PARQUET_FOLDER


@pytest.mark.parametrize("text", ["", "nothing", "/no/such/folder", "a/b/c", "https://example.org/x", "owner/name:"])
def test_what_is_no_source_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="is no file or folder"):
        parse_source(text, "train")


def test_parquet_with_images_as_datasets_writes_it(tmp_path: Path, picture: Picture) -> None:
    contents = [picture(seed=seed) for seed in range(3)]
    columns = {
        "question": ["a", "b", "c"],
        "answer": [1, 2, 3],
        "image": [Image.open(io.BytesIO(content)) for content in contents],
    }
    features = datasets.Features(
        {"question": datasets.Value("string"), "answer": datasets.Value("int64"), "image": datasets.Image()}
    )
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "data.parquet")
    reader = read(str(tmp_path / "data.parquet"), tmp_path)
    assert [text.answer for text, _ in reader] == ["1", "2", "3"]
    for index, content in enumerate(contents):
        (stored,) = reader.images(index)
        assert np.array_equal(Image.open(io.BytesIO(stored)), Image.open(io.BytesIO(content)))


def test_parquet_with_raw_bytes_and_lists_of_images(tmp_path: Path, picture: Picture) -> None:
    one, two = picture(seed=1), picture(seed=2)
    table = pyarrow.table({"question": ["a", "b", "c"], "answer": ["1", "2", "3"], "image": [[one, two], [], None]})
    pyarrow.parquet.write_table(table, tmp_path / "data.parquet")
    reader = read(str(tmp_path / "data.parquet"), tmp_path)
    assert [reader.images(index) for index in range(3)] == [[one, two], [], []]
    single = pyarrow.table({"question": ["a", "b"], "answer": ["1", "2"], "image": [one, None]})
    pyarrow.parquet.write_table(single, tmp_path / "single.parquet")
    assert read(str(tmp_path / "single.parquet"), tmp_path).images(0) == [one]


def test_a_folder_of_parquet_files_is_one_source_in_order(tmp_path: Path) -> None:
    for part in (2, 0, 1):
        table = pyarrow.table({"question": [f"q{part}"], "answer": ["1"]})
        pyarrow.parquet.write_table(table, tmp_path / f"part-{part}.parquet")
    reader = read(str(tmp_path), tmp_path / "cache", image_column="")
    assert [text.question for text, _ in reader] == ["q0", "q1", "q2"]


def test_jsonl_with_paths_beside_it(tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "images").mkdir()
    contents = [picture(seed=seed) for seed in range(3)]
    for index, content in enumerate(contents):
        (tmp_path / "images" / f"{index}.png").write_bytes(content)
    source = write_jsonl(
        tmp_path / "data.jsonl",
        {**LOCAL, "image": ["images/0.png", str(tmp_path / "images" / "1.png")]},
        {**LOCAL, "image": ["images/2.png"]},
        {**LOCAL, "image": []},
        {**LOCAL, "image": None},
    )
    reader = read(source, tmp_path / "cache")
    assert [reader.images(index) for index in range(4)] == [contents[:2], contents[2:], [], []]


def test_jsonl_of_mixed_types_keeps_what_was_written(tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "0.png").write_bytes(picture())
    source = write_jsonl(
        tmp_path / "data.jsonl",
        {"question": "a", "answer": 12, "image": "0.png"},
        {"question": "b", "answer": 'x "y"', "image": ["0.png", "0.png"]},
        {"question": "c", "answer": 2.5, "image": None},
        {"question": "d", "answer": ["u", "v"], "image": []},
    )
    reader = read(source, tmp_path / "cache")
    assert [text.answer for text, _ in reader] == ["12", 'x "y"', "2.5", "u"]
    assert reader.text(3).other_answers == ("v",)
    assert [len(reader.images(index)) for index in range(4)] == [1, 2, 0, 0]


def test_json_lines_are_read_as_written(tmp_path: Path) -> None:
    """Dates are texts, integers keep their digits, floats get no exponent, and blank lines are no items."""
    answers = ["2021-05-07 00:00", "2020-01-01", "2019-12-31T00:00:00Z", 2**70 + 1, 10**20, 1e20, 2.50, 12.0, True]
    rows = [{"question": f"q{index}", "answer": answer} for index, answer in enumerate(answers)]
    source = write_jsonl(tmp_path / "data.jsonl", *rows)
    (tmp_path / "data.jsonl").write_text("\ufeff" + "\n  \n".join(map(json.dumps, rows)), encoding="utf-8")
    reader = read(source, tmp_path / "cache", image_column="")
    assert [text.answer for text, _ in reader] == [
        *("2021-05-07 00:00", "2020-01-01", "2019-12-31T00:00:00Z", "1180591620717411303425"),
        *("100000000000000000000", "100000000000000000000", "2.5", "12", "True"),
    ]
    assert reader.text(8).question == "q8" and len(reader) == 9


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"question": "torn', "line 3 is not JSON"),
        ("[1, 2]", "line 3 holds a list"),
        ('"text"', "line 3 holds a str"),
        ('{"answer": ' + "[" * 100_000, "line 3 is not JSON"),
    ],
)
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str, reason: str) -> None:
    good = json.dumps(LOCAL)
    (tmp_path / "data.jsonl").write_text(f"{good}\n\n{line}\n{good}\n")
    with pytest.raises(DataError, match=rf"data\.jsonl cannot be loaded: {reason}"):
        load_source(str(tmp_path / "data.jsonl"), "train", tmp_path / "cache")


@pytest.mark.parametrize("encoding", ["gbk", "big5", "euc_jp", "utf-16"])
def test_a_file_of_another_encoding_is_one_line(tmp_path: Path, encoding: str) -> None:
    text = json.dumps({"question": "小三年", "answer": "7"}, ensure_ascii=False)
    (tmp_path / "data.jsonl").write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=r"cannot be loaded: it is not UTF-8 \(.* at byte \d+\).*iconv") as caught:
        load_source(str(tmp_path / "data.jsonl"), "train", tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_text_of_a_table_that_is_not_utf8_costs_its_item(tmp_path: Path) -> None:
    raw = pyarrow.array([b"fine", "价格".encode("gbk"), "价格".encode()], pyarrow.binary())
    questions = pyarrow.StringArray.from_buffers(3, *raw.buffers()[1:])
    pyarrow.parquet.write_table(pyarrow.table({"question": questions, "answer": ["1"] * 3}), tmp_path / "a.parquet")
    found = list(read(str(tmp_path / "a.parquet"), tmp_path / "cache", image_column=""))
    assert [found[0][0].question, found[2][0].question] == ["fine", "价格"]
    assert isinstance(found[1][1], DataError) and "not UTF-8" in str(found[1][1])


def test_tables_keep_the_width_of_their_numbers(tmp_path: Path) -> None:
    columns = {
        "answer": pyarrow.array([0.1, 7.0, float("nan"), None, 1e-7], pyarrow.float32()),
        "question": pyarrow.array(["q"] * 5),
        "difficulty": pyarrow.array([2**63 - 1, 1, 2, 3, 4], pyarrow.int64()),
        "parts": pyarrow.array([[{"a": 0.3}]] * 5, pyarrow.list_(pyarrow.struct([("a", pyarrow.float32())]))),
        "half": pyarrow.array(np.array([0.1] * 5, np.float16)),
        "exact": pyarrow.array([Decimal("0.10"), Decimal("3.00"), Decimal("1E+2"), None, Decimal("2.5")]),
    }
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)

    def answers(column: str) -> list[str]:
        found = read(str(path), tmp_path / "cache", image_column="", answer_column=column)
        return [text.answer if not isinstance(images, DataError) else "-" for text, images in found]

    assert answers("answer") == ["0.1", "7", "-", "-", "0.0000001"]
    assert answers("parts.a") == ["0.3"] * 5 and answers("half") == ["0.1"] * 5
    assert answers("exact") == ["0.10", "3", "100", "-", "2.50"]
    assert answers("difficulty")[0] == "9223372036854775807"


def test_a_class_label_is_its_name(tmp_path: Path) -> None:
    features = datasets.Features(
        {"question": datasets.Value("string"), "answer": datasets.ClassLabel(names=["cat", "dog"])}
    )
    datasets.Dataset.from_dict({"question": ["a", "b"], "answer": [1, 0]}, features).to_parquet(tmp_path / "a.parquet")
    assert [text.answer for text, _ in read(str(tmp_path / "a.parquet"), tmp_path / "c", image_column="")] == [
        "dog",
        "cat",
    ]


STRUCTS = {"prompt": "Why?", "reward_model": {"style": "rule", "ground_truth": "B"}, "extra.info": {"index": 4}}
DOTTED = {
    "question_column": "prompt",
    "answer_column": "reward_model.ground_truth",
    "id_column": "extra.info.index",
    "image_column": "",
}


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_dot_leads_into_structs_and_json_texts(tmp_path: Path, ending: str, as_text: bool) -> None:
    row = {**STRUCTS, "reward_model": json.dumps(STRUCTS["reward_model"])} if as_text else STRUCTS
    source = write_jsonl(tmp_path / "data.jsonl", row)
    if ending == "parquet":
        source = str(tmp_path / "data.parquet")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), source)
    ((text, images),) = read(source, tmp_path / "cache", **DOTTED)
    assert (text.question, text.answer, text.item_id, images) == ("Why?", "B", "4", [])


def test_a_struct_as_answer_is_refused_with_its_parts(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "data.jsonl", STRUCTS)
    ((_, error),) = read(source, tmp_path / "cache", **{**DOTTED, "answer_column": "reward_model"})
    assert isinstance(error, DataError) and "mapping of style, ground_truth" in str(error)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([STRUCTS]), tmp_path / "data.parquet")
    with pytest.raises(DataError, match=r"no column 'reward_model\.truth'.*reward_model\.ground_truth"):
        read(str(tmp_path / "data.parquet"), tmp_path / "c", **{**DOTTED, "answer_column": "reward_model.truth"})


@pytest.mark.parametrize("role", ["question", "id", "domain", "difficulty"])
def test_only_an_answer_has_several_values(tmp_path: Path, role: str) -> None:
    source = write_jsonl(tmp_path / "data.jsonl", {**LOCAL, "x": {"y": ["a", "b"]}}, {**LOCAL, "x": {"y": ["a", "a"]}})
    found = list(read(source, tmp_path / "cache", image_column="", **{f"{role}_column": "x.y"}))
    assert "column 'x.y' holds 2 values; only an answer is a list" in str(found[0][1])
    assert found[1][1] == [] and "a" in vars(found[1][0]).values()


def test_answers_of_a_list_are_accepted_each_once(tmp_path: Path) -> None:
    cells: list[object] = [["a", "b", "a", None, " "], {"text": ["c"]}, [], [[1, 2], [3]], [7, 0.5]]
    rows = [{"question": "q", "answer": cell} for cell in cells]
    found = list(read(write_jsonl(tmp_path / "data.jsonl", *rows), tmp_path / "cache", image_column=""))
    assert [(found[index][0].answer, found[index][0].other_answers) for index in (0, 4)] == [
        ("a", ("b",)),
        ("7", ("0.5",)),
    ]
    reasons = [str(error).partition(";")[0] for _, error in found if isinstance(error, DataError)]
    assert (
        reasons[:2] == ["column 'answer' holds a mapping of text", "nothing in column 'answer'"]
        and "list of lists" in reasons[2]
    )
    source = str(tmp_path / "squad.parquet")
    pyarrow.parquet.write_table(
        pyarrow.table({"question": ["q"], "answers": [{"text": ["x", "y"], "start": [1, 2]}]}), source
    )
    ((text, _),) = read(source, tmp_path / "cache", image_column="", answer_column="answers.text")
    assert (text.answer, text.other_answers) == ("x", ("y",))


def test_a_folder_of_images_with_metadata(tmp_path: Path, picture: Picture) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.png").write_bytes(picture(seed=index))
    rows = [{"file_name": f"{index}.png", "question": "q", "answer": str(index)} for index in range(3)]
    write_jsonl(folder / "metadata.jsonl", *rows)
    reader = read(str(folder), tmp_path / "cache")
    assert {text.answer: reader.images(index) for index, (text, _) in enumerate(reader)} == {
        str(index): [picture(seed=index)] for index in range(3)
    }


def test_columns_are_mapped_and_defaults_filled(tmp_path: Path) -> None:
    row = {"problem": "a", "solution": " 1 ", "key": 17, "topic": "ocr", "level": 3}
    source = write_jsonl(tmp_path / "data.jsonl", row, {**row, "topic": None, "key": 18})
    mapping = {
        "question_column": "problem",
        "answer_column": "solution",
        "image_column": "",
        "id_column": "key",
        "domain_column": "topic",
        "difficulty_column": "level",
        "domain": "structure",
    }
    texts = [text for text, _ in read(source, tmp_path / "cache", **mapping)]
    assert [(text.item_id, text.domain, text.answer, text.difficulty) for text in texts] == [
        ("17", "ocr", "1", "3"),
        ("18", "structure", "1", "3"),
    ]


@pytest.mark.parametrize(
    ("settings", "column"),
    [
        ({}, "image"),
        ({"image_column": "", "question_column": "prompt"}, "prompt"),
        ({"image_column": "", "answer_column": "label"}, "label"),
        ({"image_column": "", "id_column": "key"}, "key"),
        ({"image_column": "", "domain_column": "topic"}, "topic"),
        ({"image_column": "", "difficulty_column": "level"}, "level"),
    ],
)
def test_missing_columns_are_named_beside_those_there_are(
    tmp_path: Path, settings: dict[str, str], column: str
) -> None:
    source = write_jsonl(tmp_path / "data.jsonl", LOCAL)
    with pytest.raises(DataError, match=rf"no column '{column}'; its columns are question, answer; set data\."):
        read(source, tmp_path / "cache", **settings)


def test_ids_domains_and_difficulties_may_be_absent_under_their_default_names(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "data.jsonl", LOCAL)
    ((text, _),) = read(source, tmp_path / "cache", image_column="")
    assert (text.item_id, text.domain, text.difficulty) == ("", "math", "")


@pytest.mark.parametrize("cell", [None, "", "  ", float("nan"), []])
@pytest.mark.parametrize("column", ["question", "answer"])
def test_an_item_without_question_or_answer_comes_with_the_reason(tmp_path: Path, column: str, cell: object) -> None:
    source = write_jsonl(tmp_path / "data.jsonl", LOCAL, {**LOCAL, column: cell}, LOCAL)
    errors = [images for _, images in read(source, tmp_path / "cache", image_column="")]
    assert errors[0] == errors[2] == [] and f"nothing in column '{column}'" in str(errors[1])


def test_text_that_cannot_be_encoded_costs_its_item(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"question": "half \\ud83d", "answer": "1"}\n')
    ((_, error),) = read(str(tmp_path / "data.jsonl"), tmp_path / "cache", image_column="")
    assert isinstance(error, DataError) and "surrogate" in str(error)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("missing.parquet", None, "does not exist"),
        ("empty.parquet", b"", "is empty"),
        ("empty.jsonl", b"", "is empty"),
        ("blank.jsonl", b"\n\n", "data source"),
        ("broken.parquet", b"PAR1 no more", "cannot be loaded"),
        ("broken.jsonl", b'{"question": ', "cannot be loaded"),
        ("data.csv", b"question,answer\n", "ends in '.csv'; .parquet and .jsonl are read"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes | None, text: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=text) as caught:
        load_source(str(tmp_path / name), "train", tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_tables_without_rows_and_folders_without_images(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"question": pyarrow.array([], "string")}), tmp_path / "none.parquet")
    with pytest.raises(DataError, match="is empty"):
        load_source(str(tmp_path / "none.parquet"), "train", tmp_path / "cache")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder"):
        load_source(str(tmp_path / "folder"), "train", tmp_path / "cache")


def test_a_hub_name_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="taken for a hub name"):
        load_source("nobody-here/no-such-data:test", "train", tmp_path / "cache")


def test_changed_files_are_read_again(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "data.jsonl", LOCAL)
    assert len(read(source, tmp_path / "cache", image_column="")) == 1
    write_jsonl(tmp_path / "data.jsonl", LOCAL, {**LOCAL, "question": "And now?"})
    assert len(read(source, tmp_path / "cache", image_column="")) == 2


@pytest.mark.parametrize("domain", ["ocr", "math", "structure"])
def test_the_miniature_is_a_source(domain: str, tmp_path: Path) -> None:
    reader = read(f"miniature:{domain}:evaluation", tmp_path)
    assert len(reader) >= 1000
    assert reader.text(0).domain == domain and len(reader.images(0)) == 1


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "tinyr1v_ray"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_folder() == Path.home() / ".cache" / "tinyr1v_ray"


def test_unknown_miniature_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no domain 'poetry'"):
        load_source("miniature:poetry", "train", tmp_path)
