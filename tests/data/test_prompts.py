"""The prompt table: order, cursor, ids, skipped items, limits."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from tinyr1v_ray.config.data import DataSettings
from tinyr1v_ray.data.images import open_image
from tinyr1v_ray.data.processor import PromptProcessor
from tinyr1v_ray.data.prompts import PromptTable, TableOptions, build_prompt_table
from tinyr1v_ray.errors import DataError

Picture = Callable[..., bytes]
Build = Callable[..., PromptTable]
NUM_ITEMS = 23


def write(path: Path, images: list[bytes | None], **columns: list[object]) -> str:
    count = len(images)
    given = {"question": [f"What is {index}?" for index in range(count)], "answer": [str(n) for n in range(count)]}
    pyarrow.parquet.write_table(pyarrow.table({**given, "image": images, **columns}), path)
    return str(path)


@pytest.fixture
def source(tmp_path: Path, picture: Picture) -> str:
    return write(tmp_path / "data.parquet", [picture(28 * (1 + index % 3), 28, index) for index in range(NUM_ITEMS)])


@pytest.fixture
def build(processor: PromptProcessor, tmp_path: Path) -> Build:
    def build_table(*sources: str, seed: int = 0, max_prompt_tokens: int = 1000, **settings: object) -> PromptTable:
        options = TableOptions(tmp_path / "images", tmp_path / "cache", max_prompt_tokens, seed)
        return build_prompt_table(DataSettings(train=sources, **settings), "train", processor, options)  # type: ignore

    return build_table


def ids(table: PromptTable, cursor: int, count: int) -> list[tuple[int, str]]:
    return [(prompt.epoch, prompt.prompt_id) for prompt in islice(table.iterate(cursor), count)]


def test_a_prompt_has_everything_that_follows_needs(build: Build, source: str, processor: PromptProcessor) -> None:
    prompt = build(source, question_template="Q: {question} Think {x}.", system_prompt="Be brief.")[4]
    text = processor.tokenizer.decode(prompt.token_ids)
    assert "Q: What is 4? Think {x}." in text and "Be brief." in text
    assert (prompt.question, prompt.answer, prompt.domain, prompt.epoch) == ("What is 4?", "4", "math", 0)
    (image,) = prompt.images
    assert (image.width_px, image.height_px, image.num_tokens) == (56, 28, 2)
    assert prompt.num_expanded_tokens == len(prompt.token_ids) + 1
    assert open_image(image).size == (56, 28)


def test_every_epoch_has_every_item_once_in_an_order_of_its_own(build: Build, source: str) -> None:
    table = build(source)
    order = ids(table, 0, 3 * NUM_ITEMS)
    assert [prompt.position for prompt in islice(table.iterate(5), 40)] == list(range(5, 45))
    epochs = [order[epoch * NUM_ITEMS : (epoch + 1) * NUM_ITEMS] for epoch in range(3)]
    for number, epoch in enumerate(epochs):
        assert {position[0] for position in epoch} == {number}
        assert len({position[1] for position in epoch}) == NUM_ITEMS
    assert len({tuple(prompt_id for _, prompt_id in epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize("cursor", [0, 1, 22, 23, 24, 45, 46, 100])
def test_a_cursor_resumes_anywhere_in_a_new_process(build: Build, source: str, cursor: int) -> None:
    uninterrupted = ids(build(source, seed=3), 0, cursor + 30)
    assert ids(build(source, seed=3), cursor, 30) == uninterrupted[cursor:]


def test_the_seed_decides_the_order_and_no_shuffling_keeps_it(build: Build, source: str) -> None:
    orders = {tuple(ids(build(source, seed=seed), 0, NUM_ITEMS)) for seed in range(4)}
    assert len(orders) == 4
    questions = [prompt.question for prompt in islice(build(source, shuffle=False).iterate(0), NUM_ITEMS + 2)]
    assert questions == [f"What is {index % NUM_ITEMS}?" for index in range(NUM_ITEMS + 2)]


def test_in_order_spaces_a_limited_evaluation_evenly(build: Build, source: str) -> None:
    table = build(source)
    assert [prompt.answer for prompt in table.in_order()] == [str(index) for index in range(NUM_ITEMS)]
    assert [prompt.answer for prompt in table.in_order(4)] == ["0", "5", "11", "17"]
    assert len(list(table.in_order(1000))) == NUM_ITEMS


def test_content_ids_stay_when_rows_move_and_differ_when_content_does(
    build: Build, tmp_path: Path, picture: Picture
) -> None:
    images: list[bytes | None] = [picture(seed=seed) for seed in range(4)]
    forwards = {p.question: p.prompt_id for p in build(write(tmp_path / "a.parquet", images)).in_order()}
    questions: list[object] = [f"What is {index}?" for index in reversed(range(4))]
    answers: list[object] = [str(index) for index in reversed(range(4))]
    backwards = write(tmp_path / "b.parquet", images[::-1], question=questions, answer=answers)
    assert {p.question: p.prompt_id for p in build(backwards).in_order()} == forwards
    other = write(tmp_path / "c.parquet", [picture(seed=9), *images[1:]])
    changed = {p.question: p.prompt_id for p in build(other).in_order()}
    assert {question for question in forwards if forwards[question] != changed[question]} == {"What is 0?"}


def test_ids_are_taken_from_their_column_and_duplicates_refused(build: Build, tmp_path: Path) -> None:
    good = write(tmp_path / "a.parquet", [None] * 3, prompt_id=[7, 8, 9])
    assert [prompt.prompt_id for prompt in build(good).in_order()] == ["7", "8", "9"]
    with pytest.raises(
        DataError, match=r"3 of 6 items .* item 0 of \S*a\.parquet \(same id '7' as item 0 of \S*a\.par"
    ):
        build(good, good)
    twice: list[object] = ["Same?", "Other?", "Same?"]
    bad = write(tmp_path / "b.parquet", [None] * 3, question=twice, answer=["1", "1", "1"])
    with pytest.raises(DataError, match=r"item 2 of \S* \(same question, answer and images as item 0 of"):
        build(bad)


def test_several_sources_are_one_table(build: Build, tmp_path: Path, picture: Picture) -> None:
    first = write(tmp_path / "a.parquet", [None, picture()], domain=["ocr", "structure"])
    second = write(tmp_path / "b.parquet", [None], question=["Else?"])
    table = build(first, second)
    assert [prompt.domain for prompt in table.in_order()] == ["ocr", "structure", "math"]
    assert table.domains == {"ocr", "structure", "math"} and len(table) == 3
    assert [len(prompt.images) for prompt in table.in_order()] == [0, 1, 0] and table.max_images == 1


def test_unreadable_images_are_skipped_counted_and_named(
    build: Build, tmp_path: Path, picture: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    images: list[bytes | None] = [picture(seed=seed) for seed in range(40)]
    images[7] = picture(seed=7)[:200]
    images[31] = b"no image"
    source = write(tmp_path / "data.parquet", images)
    with caplog.at_level(logging.WARNING):
        table = build(source)
    assert len(table) == 38
    assert [item.name for item in table.skipped] == [f"item {index} of {source}" for index in (7, 31)]
    (message,) = caplog.messages
    assert message.startswith(f"2 of 40 items are left out: item 7 of {source} (image cannot be decoded: ")
    assert f"item 31 of {source} (image is of no known format" in message
    assert Counter(prompt.answer for prompt in islice(table.iterate(0), 38)).keys() & {"7", "31"} == set()
    with pytest.raises(
        DataError, match=r"2 of 40 items cannot be used: item 7 of .*item 31 of .*at most 4\.0% may be left out"
    ):
        build(source, max_skipped_share=0.04)


def test_missing_image_files_and_bombs_count_as_unreadable(build: Build, tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "0.png").write_bytes(picture())
    (tmp_path / "2.png").write_bytes(picture(200, 100))
    names: list[object] = ["0.png", "1.png", "2.png"]
    source = write(tmp_path / "data.parquet", [None] * 3, image=names)
    table = build(source, max_skipped_share=1.0, max_image_megapixels=0.01)
    assert [prompt.answer for prompt in table.in_order()] == ["0"]
    assert "No such file" in table.skipped[0].reason and "megapixels" in table.skipped[1].reason
    (tmp_path / "0.png").unlink()
    with pytest.raises(DataError, match=r"3 of 3 items cannot be used: .*, and never all; it must exist; restore it$"):
        build(source, max_skipped_share=1.0, max_image_megapixels=0.01)


def test_a_prompt_that_does_not_fit_is_named_with_its_numbers(
    build: Build, tmp_path: Path, picture: Picture, processor: PromptProcessor
) -> None:
    questions: list[object] = ["short", "long " * 20, "shörter"]
    images: list[bytes | None] = [picture(28, 28), picture(280, 140), None]
    source = write(tmp_path / "data.parquet", images, question=questions)
    longest = max(prompt.num_expanded_tokens for prompt in build(source).in_order())
    assert len(build(source, max_prompt_tokens=longest)) == 3
    text = (
        rf"item 1 of \S* \(prompt of {longest} tokens, 50 of them image\); .* which leaves {longest - 1}; lower model"
    )
    with pytest.raises(DataError, match=text):
        build(source, max_prompt_tokens=longest - 1)


def test_questions_that_break_the_template_are_found_before_the_run(
    build: Build, tmp_path: Path, picture: Picture
) -> None:
    questions: list[object] = ["fine", "<image> or <image>?"]
    source = write(tmp_path / "data.parquet", [picture(), picture()], question=questions)
    with pytest.raises(DataError, match=r"item 1 of \S* \(the question marks 2 images and has 1\)"):
        build(source)


def test_what_cannot_be_asked_costs_itself_and_not_the_run(
    build: Build, tmp_path: Path, picture: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    """Four of a hundred: empty, too long, twice, unreadable; a question with a control token is asked."""
    questions: list[object] = [f"What is {index}?" for index in range(100)]
    answers: list[object] = [str(index) for index in range(100)]
    images: list[bytes | None] = [picture(28, 28, seed) for seed in range(100)]
    questions[3], questions[20], questions[21] = "  ", "long " * 300, "What is <|image_pad|> <|im_end|>?"
    questions[40], answers[40], images[40], images[60] = questions[39], answers[39], images[39], b"GIF89a"
    source = write(tmp_path / "data.parquet", images, question=questions, answer=answers)
    table = build(source)
    assert [item.name for item in table.skipped] == [f"item {index} of {source}" for index in (3, 20, 40, 60)]
    assert sorted({int(prompt.answer) for prompt in islice(table.iterate(0), 96)}) == [
        index for index in range(100) if index not in (3, 20, 40, 60)
    ]
    (message,) = caplog.messages
    assert all(f"item {index} of {source} (" in message for index in (3, 20, 40, 60))
    with pytest.raises(
        DataError, match=r"4 of 100 items .*at most 3\.0% .* fill or remove it, or raise data\.max_skip"
    ):
        build(source, max_skipped_share=0.03)


def test_the_first_ten_are_named(build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    questions: list[object] = [None if index % 2 else f"What is {index}?" for index in range(26)]
    build(write(tmp_path / "data.parquet", [None] * 26, question=questions), max_skipped_share=0.5)
    (message,) = caplog.messages
    assert message.count("nothing in column 'question'") == 10 and message.endswith(" and 3 more")


@pytest.mark.parametrize("purpose", ["train", "evaluation"])
def test_a_source_without_images_stands_beside_one_with_them(
    processor: PromptProcessor, tmp_path: Path, picture: Picture, purpose: str
) -> None:
    seen = write(tmp_path / "seen.parquet", [picture()])
    plain = str(tmp_path / "plain.jsonl")
    Path(plain).write_text('{"question": "2 + 2?", "answer": 4}\n')
    options = TableOptions(tmp_path / "images", tmp_path / "cache", 1000)
    both = DataSettings(train=(seen, plain), evaluation=(plain, seen))
    table = build_prompt_table(both, purpose, processor, options)  # type: ignore[arg-type]
    assert {prompt.question: len(prompt.images) for prompt in table.in_order()} == {"What is 0?": 1, "2 + 2?": 0}
    apart = DataSettings(train=(seen,), evaluation=(plain,))
    assert [len(p.images) for p in build_prompt_table(apart, "evaluation", processor, options).in_order()] == [0]
    with pytest.raises(DataError, match=r"no column 'image'; .* set data\.image_column \(empty: none is read\)"):
        build_prompt_table(DataSettings(train=(plain,)), "train", processor, options)


@pytest.mark.parametrize(
    ("column", "is_like"),
    [
        ("images", True),
        ("img_path", True),
        ("Picture", True),
        ("looks", True),
        ("has_image", False),
        ("image_id", False),
    ],
)
def test_images_under_another_name_are_not_passed_over(
    build: Build, tmp_path: Path, picture: Picture, column: str, is_like: bool
) -> None:
    """`looks` is an image by its declared type; the others are told by their names."""
    seen = write(tmp_path / "seen.parquet", [picture()])
    cells = {"question": ["Other?"], "answer": ["1"], column: [{"bytes": picture(), "path": None}]}
    features = datasets.Features(
        {"question": datasets.Value("string"), "answer": datasets.Value("string"), column: datasets.Image()}
    )
    other = str(tmp_path / "other.parquet")
    if column == "looks":
        datasets.Dataset.from_dict(cells, features).to_parquet(other)
    else:
        pyarrow.parquet.write_table(pyarrow.table({**cells, column: ["x"]}), other)
    if not is_like:
        assert len(build(seen, other)) == 2
        return
    with pytest.raises(DataError, match=rf"other\.parquet has no column 'image' but one named '{column}'.* rename it"):
        build(seen, other)


def test_a_conversation_is_asked_as_one(build: Build, tmp_path: Path, picture: Picture) -> None:
    address = "data:image/png;base64," + base64.b64encode(picture(56, 28)).decode()
    content = [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": "What?"}]
    chats: list[list[dict[str, object]]] = [
        [{"role": "system", "content": "Own."}, {"role": "user", "content": content}],
        [
            {"role": "user", "content": "2 + 2?"},
            {"role": "assistant", "content": "4"},
            {"role": "user", "content": "?"},
        ],
        [{"role": "user", "content": "Alone?"}],
    ]
    rows = [{"prompt": chat, "reward_model": {"ground_truth": [str(n), "x"]}} for n, chat in enumerate(chats)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"question_column": "prompt", "answer_column": "reward_model.ground_truth", "image_column": ""}
    table = build(str(path), question_template="{question} Now.", system_prompt="Be brief.", **columns)
    decode = table._processor.tokenizer.decode
    texts = [decode(prompt.token_ids) for prompt in table.in_order()]
    assert "systemOwn.<|im_end|>" in texts[0] and "<|vision_end|>What? Now.<|im_end|>" in texts[0]
    assert "user2 + 2?<|im_end|><|im_start|>assistant4<|im_end|><|im_start|>user? Now." in texts[1]
    assert "systemBe brief.<|im_end|>" in texts[1] and [len(p.images) for p in table.in_order()] == [1, 0, 0]
    assert (table[0].question, table[0].answer, table[0].other_answers) == ("<image>What?", "0", ("x",))
    plain = write(tmp_path / "plain.parquet", [None], question=["Alone?"])
    alone = build(plain, question_template="{question} Now.", system_prompt="Be brief.")[0]
    assert alone.token_ids == table[2].token_ids


def test_images_are_written_when_asked_for_and_once(build: Build, source: str, tmp_path: Path) -> None:
    table = build(source)
    assert not (tmp_path / "images").exists()
    first = [table[0], table[1]]
    paths = [Path(prompt.images[0].path) for prompt in first]
    assert sorted(path for path in (tmp_path / "images").rglob("*.png")) == sorted(paths)
    written = [path.stat().st_mtime_ns for path in paths]
    assert [table[0], table[1]] == first and [path.stat().st_mtime_ns for path in paths] == written


def test_data_that_changes_under_a_run_is_noticed(build: Build, tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "0.png").write_bytes(picture(seed=1))
    table = build(write(tmp_path / "data.parquet", [None], image=["0.png"]))
    (tmp_path / "0.png").write_bytes(picture(seed=2))
    with pytest.raises(DataError, match="has changed since"):
        table[0]


def test_no_sources_is_a_data_error(build: Build) -> None:
    with pytest.raises(DataError, match=r"data\.train is empty"):
        build()


def test_progress_is_reported(processor: PromptProcessor, source: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    options = TableOptions(
        tmp_path / "images", tmp_path / "cache", 1000, on_progress=lambda done, total: seen.append((done, total))
    )
    build_prompt_table(DataSettings(train=(source,)), "train", processor, options)
    assert seen == [(done, NUM_ITEMS) for done in range(1, NUM_ITEMS + 1)]


def test_a_thousand_prompts_take_well_under_two_seconds(build: Build, tmp_path: Path, picture: Picture) -> None:
    images: list[bytes | None] = [picture(112, 28, seed) for seed in range(1000)]
    table = build(write(tmp_path / "data.parquet", images))
    list(table.in_order())
    started = time.perf_counter()
    assert len(list(table.in_order())) == 1000
    assert time.perf_counter() - started < 2.0
