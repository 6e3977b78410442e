"""Kept samples: whole, escaped, with images that stay when the originals go."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tinyr1v_ray.telemetry.samples import SampleSink
from tinyr1v_ray.types import StepMetrics


@pytest.fixture
def image(tmp_path, make):
    path = tmp_path / "data" / "digit.png"
    path.parent.mkdir()
    path.write_bytes(b"pixels")
    return make.image(str(path), "ab" * 32, 6, 28, 28, 1)


def log(sink, make, step, **arguments):
    groups, advantages_PG, update = make.step(step, **arguments)
    sink.log(StepMetrics(step, update.version, {}, {}), groups, advantages_PG)


def test_json_holds_the_first_groups_whole(tmp_path, make, image):
    log(SampleSink(tmp_path / "samples", 2), make, 12, num_groups=3, images=[image])
    kept = json.loads((tmp_path / "samples" / "step_000012.json").read_text())
    assert kept["step"] == 12 and [group["prompt_id"] for group in kept["groups"]] == ["p12-0", "p12-1"]
    first = kept["groups"][0]
    assert (first["question"], first["answer"]) == ("Read <b>this</b>.", "407")
    assert first["completions"][0] == {
        "text": "4 < 5",
        "num_tokens": 4,
        "finish": "stop",
        "reward": 1.0,
        "parts": {"answer": 1.0},
        "correct": True,
        "failure": "",
        "advantage": 0.5,
    }
    Path(image.path).unlink()
    assert (tmp_path / "samples" / first["images"][0]).read_bytes() == b"pixels"


def test_all_accepted_answers_are_shown(tmp_path, make):
    groups, advantages_PG, _ = make.step(1)
    group = groups[0].group
    prompt = replace(group.prompt, other_answers=("four <o> seven",))
    groups[0] = replace(groups[0], group=replace(group, prompt=prompt))
    SampleSink(tmp_path, 1).log(StepMetrics(1, 1, {}, {}), groups, advantages_PG)
    assert "<b>407 or four &lt;o&gt; seven</b>" in (tmp_path / "step_000001.html").read_text()


def test_the_page_escapes_what_a_model_wrote(tmp_path, make, image):
    log(SampleSink(tmp_path, 1), make, 1, images=[image])
    page = (tmp_path / "step_000001.html").read_text()
    assert "4 &lt; 5" in page and "Read &lt;b&gt;this" in page and "<b>this" not in page
    assert 'src="images/abababababababababababababababab.png"' in page


def test_images_are_copied_where_they_cannot_be_linked(tmp_path, make, image, monkeypatch):
    def refuse(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    log(SampleSink(tmp_path / "samples", 1), make, 1, images=[image])
    assert [path.read_bytes() for path in (tmp_path / "samples" / "images").iterdir()] == [b"pixels"]


def test_an_image_that_has_gone_is_named_by_its_old_path(tmp_path, make, image):
    Path(image.path).unlink()
    log(SampleSink(tmp_path / "samples", 1), make, 1, images=[image])
    kept = json.loads((tmp_path / "samples" / "step_000001.json").read_text())
    assert kept["groups"][0]["images"] == [image.path]


def test_a_step_without_groups_keeps_nothing(tmp_path, make):
    log(SampleSink(tmp_path / "samples", 2), make, 1, num_groups=0)
    assert not (tmp_path / "samples").exists()
