"""Every kind of source, good and bad, through the real `datasets`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from tinyr1v_ray.config.folders import default_cache_folder
from tinyr1v_ray.config.train import DataSettings
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
    assert [text.answer for text, _ in reader] == ["12", 'x "y"', "2.5", "u, v"]
    assert [len(reader.images(index)) for index in range(4)] == [1, 2, 0, 0]


def test_guessed_types_are_undone(tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "data.jsonl",
        {"question": "2020-01-01", "answer": 1},
        {"question": "2020-02-03", "answer": 2.5},
    )
    texts = [text for text, _ in read(source, tmp_path / "cache", image_column="")]
    assert [(text.question, text.answer) for text in texts] == [("2020-01-01", "1"), ("2020-02-03", "2.5")]


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


@pytest.mark.parametrize("cell", [None, "", "  "])
@pytest.mark.parametrize("column", ["question", "answer"])
def test_items_without_question_or_answer_are_refused(tmp_path: Path, column: str, cell: str | None) -> None:
    source = write_jsonl(tmp_path / "data.jsonl", LOCAL, {**LOCAL, column: cell})
    reader = read(source, tmp_path / "cache", image_column="")
    with pytest.raises(DataError, match=rf"item 1 of .*data\.jsonl has nothing in column '{column}'"):
        list(reader)


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
