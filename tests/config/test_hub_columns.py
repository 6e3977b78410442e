"""The 3B configurations read rows with the columns that their data sets' cards declare.

The hub is not asked: each case is a table with the card's features and two rows, read through the configuration's own
column mapping.
"""

import io
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Picture

from tinyr1v_ray.config.base import load_settings
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.data.items import ItemReader
from tinyr1v_ray.data.sources import Source, SourceKind, parse_source

CONFIGS = Path(__file__).parents[2] / "configs"
TEXT = Value("string")
CARDS = {
    "hiyouga/geometry3k": (
        {
            "images": List(Image()), "problem": TEXT, "answer": TEXT, "id": Value("int64"), "choices": List(TEXT),
            "ground_truth": TEXT,
        },
        {"images": 1, "problem": "<image>Find x.", "answer": "3", "id": 7, "choices": ["3", "4"], "ground_truth": "A"},
        ("<image>Find x.", "3"),
    ),
    "Kun-Xiang/ViRL39K": (
        {"answer": TEXT, "category": TEXT, "qid": TEXT, "images": List(Image()), "problem": TEXT, "id": Value("int64")},
        {"answer": "B", "category": "charts", "qid": "q1", "images": 2, "problem": "Which?", "id": 7},
        ("Which?", "B"),
    ),
    "HuggingFaceM4/ChartQA": (
        {
            "image": Image(), "query": TEXT, "label": List(TEXT),
            "human_or_machine": ClassLabel(names=["human", "machine"]),
        },
        {"image": 1, "query": "How many?", "label": ["14"], "human_or_machine": 0},
        ("How many?", "14"),
    ),
    "danjacobellis/stvqa_task1": (
        {"path": TEXT, "question": TEXT, "dictionary": List(TEXT), "answer": List(TEXT), "image": Image()},
        {"path": "a.jpg", "question": "What sign?", "dictionary": ["x"], "answer": ["STOP"], "image": 1},
        ("What sign?", "STOP"),
    ),
}  # fmt: skip
"""Data set -> features of its card, a row (numbers of images where the images go), and what must be read of it."""


def picture():
    buffer = io.BytesIO()
    Picture.new("RGB", (56, 56), "white").save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def table(name):
    features, row, _ = CARDS[name]
    images = {key: [picture()] * row[key] if isinstance(kind, List) else picture()
              for key, kind in features.items() if key in ("image", "images")}  # fmt: skip
    return Dataset.from_list([{**row, **images}] * 2, features=Features(features))


@pytest.mark.parametrize("domain", ["math", "structure", "ocr"])
def test_sources_are_hub_names_whose_rows_the_mapping_reads(domain, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    data = load_settings(TrainConfig, CONFIGS / f"lipo_{domain}_8gpu.yaml").data
    for text in (*data.train, *data.evaluation):
        source = parse_source(text, "train")
        assert source.kind is SourceKind.HUB and source.location in CARDS and source.split in text
        dataset = table(source.location)
        reader = ItemReader(data, Source(text, dataset.with_format("arrow"), tmp_path))
        for item, contents in reader:
            assert (item.question, item.answer) == CARDS[source.location][2]
            assert (item.domain, item.item_id) == (domain, "")
            assert [Picture.open(io.BytesIO(content)).size for content in contents] == [(56, 56)] * len(contents)
            assert len(contents) == next(
                CARDS[source.location][1][key] for key in ("image", "images") if key in dataset.features
            )
