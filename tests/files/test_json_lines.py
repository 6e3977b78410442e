"""JSON lines that a kill may tear at any byte, and files that are replaced as a whole."""

import json
import subprocess
import sys

import pytest

from tinyr1v_ray.errors import RunFolderError
from tinyr1v_ray.files.durable import replace_file
from tinyr1v_ray.files.json_lines import JsonLines, to_json, truncate_after

STEPS = [1, 1, 2, 2, 3]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = JsonLines(path)
    lines.append({"step": step, "text": f"é{number}\n"} for number, step in enumerate(STEPS))
    lines.close()
    return path


def test_rows_read_back_and_not_finite_is_null(tmp_path):
    lines = JsonLines(tmp_path / "rows.jsonl")
    lines.append([{"step": 1, "kl": float("nan"), "deep": [{"high": float("inf")}, (1.5, None, True)], "text": "a\nb"}])
    text = (tmp_path / "rows.jsonl").read_text()  # readable before the file is closed
    lines.close()
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert strict == {"step": 1, "kl": None, "deep": [{"high": None}, [1.5, None, True]], "text": "a\nb"}
    assert text.count("\n") == 1


@pytest.mark.parametrize("last_step, num_kept", [(0, 0), (1, 2), (2, 4), (3, 5), (9, 5)])
def test_truncating_after_a_step_at_every_torn_byte(rows, last_step, num_kept):
    whole = rows.read_bytes()
    ends = [0, *(index + 1 for index, byte in enumerate(whole) if byte == ord("\n"))]
    for length in range(len(whole) + 1):
        rows.write_bytes(whole[:length])
        complete = sum(end <= length for end in ends) - 1
        assert truncate_after(rows, last_step) == min(num_kept, complete)
        assert rows.read_bytes() == whole[: ends[min(num_kept, complete)]]
    lines = JsonLines(rows)
    lines.append([{"step": last_step + 1}])
    lines.close()
    assert json.loads(rows.read_text().splitlines()[-1]) == {"step": last_step + 1}


def test_a_missing_file_has_no_rows(tmp_path):
    assert truncate_after(tmp_path / "none.jsonl", 3) == 0
    assert not (tmp_path / "none.jsonl").exists()


def test_a_last_line_of_zeros_is_torn(rows):
    whole = rows.read_bytes()
    rows.write_bytes(whole + b"\0" * 40 + b"\n")
    assert truncate_after(rows, 9) == len(STEPS)
    assert rows.read_bytes() == whole


@pytest.mark.parametrize("bad", ["{not json\n", "[1]\n", '{"no_step": 1}\n', '{"step": "one"}\n'])
def test_damage_before_the_last_line_is_refused_and_left_as_it_is(rows, bad):
    first, rest = rows.read_text().split("\n", 1)
    rows.write_text(f"{first}\n{bad}{rest}")
    before = rows.read_bytes()
    with pytest.raises(RunFolderError, match=r"line 2 of .*rows.jsonl"):
        truncate_after(rows, 3)
    assert rows.read_bytes() == before


def test_rows_survive_sigkill(tmp_path):
    path = tmp_path / "rows.jsonl"
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tinyr1v_ray.files.json_lines import JsonLines\n"
        "lines = JsonLines(Path(sys.argv[1]))\n"
        "for step in range(1, 4): lines.append([{'step': step}] * 2)\n"
        'lines._file.write(\'{"step": 4, "torn\')\n'
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)])
    assert done.returncode == -9
    assert truncate_after(path, 9) == 6


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "a.json"
    replace_file(path, "old")
    with pytest.raises(UnicodeEncodeError):
        replace_file(path, "new \ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    replace_file(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_json_refuses_what_it_cannot_hold():
    with pytest.raises(TypeError):
        to_json({"object": object()})
