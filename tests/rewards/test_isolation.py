"""Scoring functions that really hang, crash and eat memory, in a real child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinyr1v_ray.config.reward import RewardSettings
from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.rewards.isolation import ScoringProcess
from tinyr1v_ray.types import Completion, Finish, Prompt, RolloutGroup

pytestmark = pytest.mark.slow

TIMEOUT_S = 1.0


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pid: int, timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


def group_of(*texts: str, domain: str = "ocr", answer: str = "407") -> RolloutGroup:
    completions = [
        Completion(np.array([1], np.int32), np.zeros(1, np.float32), text, Finish.STOP, 0, 0) for text in texts
    ]
    return RolloutGroup(Prompt("p", domain, "Read it.", answer, (1,)), tuple(completions))


@pytest.fixture(scope="module")
def hostile() -> Iterator[ScoringProcess]:
    settings = RewardSettings(function="hostile_rewards:by_text", format_weight=0.0, item_timeout_s=TIMEOUT_S)
    with ScoringProcess(settings) as process:
        yield process


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("hang", "took longer than 1 s (exit status -9)"),
        ("hang_in_c", "took longer than 1 s"),
        ("hang_deaf", "took longer than 1 s"),
        ("segfault", "the scoring process died (exit status -11)"),
        ("os_exit", "the scoring process died (exit status 3)"),
    ],
)
def test_an_item_that_takes_the_process_along_costs_only_itself(
    hostile: ScoringProcess, text: str, failure: str
) -> None:
    restarts = hostile.num_restarts
    started = time.monotonic()
    scores = hostile.score_group(group_of("give 0.25", text, "give 0.75")).scores
    assert [score.total for score in scores] == [0.25, 0.0, 0.75]
    assert [score.is_scored for score in scores] == [True, False, True]
    assert failure in scores[1].failure
    assert hostile.num_restarts == restarts + 1
    assert time.monotonic() - started < 8.0


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("sys_exit", "SystemExit"),
        ("raise", "KeyError: 'no\\nsuch key'"),
        ("recurse", "RecursionError"),
        ("eat_memory", "MemoryError: "),
        ("nan", "finite"),
        ("above_one", "in [0, 1]"),
        ("string", "a number"),
        ("none", "a number"),
        ("empty_mapping", "without 'score'"),
        ("bad_verdict", "True or False"),
    ],
)
def test_an_item_that_only_fails_keeps_the_process(hostile: ScoringProcess, text: str, failure: str) -> None:
    hostile.score_items([["give 1", "", "", ""]])
    restarts = hostile.num_restarts
    scores = hostile.score_group(group_of("give 0.25", text, "give 0.75")).scores
    assert [score.total for score in scores] == [0.25, 0.0, 0.75]
    assert failure in scores[1].failure and not scores[1].is_scored
    assert hostile.num_restarts == restarts


def test_every_item_has_a_deadline_of_its_own(hostile: ScoringProcess) -> None:
    scores = hostile.score_group(group_of("hang", "hang", "give 0.5")).scores
    assert [score.is_scored for score in scores] == [False, False, True]


def test_printing_does_not_disturb(hostile: ScoringProcess) -> None:
    assert [score.total for score in hostile.score_group(group_of("print", "give 1")).scores] == [0.5, 1.0]


def test_a_process_that_died_between_groups_is_replaced_at_no_items_cost(hostile: ScoringProcess) -> None:
    pid = int(hostile.score_group(group_of("pid")).scores[0].parts["pid"])
    os.kill(pid, signal.SIGKILL)
    assert wait_until_gone(pid)
    assert hostile.score_group(group_of("give 1")).scores[0].total == 1.0


def test_what_the_killed_process_started_dies_too(hostile: ScoringProcess, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    assert not hostile.score_group(group_of("spawn_and_hang", answer=str(note))).scores[0].is_scored
    assert wait_until_gone(int(note.read_text()))


def test_closing_leaves_no_process_and_can_be_repeated() -> None:
    process = ScoringProcess(RewardSettings(function="hostile_rewards:by_text"))
    pid = int(process.score_group(group_of("pid")).scores[0].parts["pid"])
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    process.close()
    process.close()
    assert wait_until_gone(pid)
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files - 2


def test_a_hung_process_dies_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    """The owner gets SIGKILL while its child sits in C code that no signal handler can interrupt."""
    script = (
        "from tinyr1v_ray.config.reward import RewardSettings\n"
        "from tinyr1v_ray.rewards.isolation import ScoringProcess\n"
        "process = ScoringProcess(RewardSettings(function='hostile_rewards:by_text', item_timeout_s=60))\n"
        "print(int(process.score_items([['pid', '', '', '']])[0].parts['pid']), flush=True)\n"
        "process.score_items([['hang_in_c', '', '', '']])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        time.sleep(0.2)
        owner.kill()
    assert wait_until_gone(pid)


def test_a_function_that_cannot_be_imported_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="hostile_rewards:missing cannot be imported"):
        ScoringProcess(RewardSettings(function="hostile_rewards:missing"))


def test_an_unknown_domain_is_not_an_items_failure() -> None:
    with ScoringProcess(RewardSettings()) as process, pytest.raises(ConfigError, match="no reward"):
        process.score_group(group_of("7", domain="chemistry"))


def test_own_domains_are_scored_as_in_process() -> None:
    with ScoringProcess(RewardSettings()) as process:
        group = group_of("<think>a</think><answer>47</answer>", "407", "", domain="ocr")
        totals = [score.total for score in process.score_group(group).scores]
        assert totals == pytest.approx([0.9 * 2 / 3 + 0.1, 0.9, 0.0])
        hard = process.score_items([[r"\boxed{2\sqrt{2}}", r"\sqrt{8}", "", "math"]])
        assert hard[0].correct


def test_the_other_answers_of_a_prompt_are_right_too() -> None:
    group = group_of("47", "12 g", "40")
    group = replace(group, prompt=replace(group.prompt, other_answers=("12 g", "47")))
    with ScoringProcess(RewardSettings()) as process:
        assert [score.correct for score in process.score_group(group).scores] == [True, True, False]


def test_a_group_of_answers_takes_milliseconds() -> None:
    with ScoringProcess(RewardSettings()) as process:
        group = group_of(*["<think>a</think><answer>407</answer>"] * 8)
        process.score_group(group)
        started = time.monotonic()
        for _ in range(16):
            process.score_group(group)
        assert time.monotonic() - started < 1.0


def test_the_child_starts_without_heavy_imports() -> None:
    heavy = ("torch", "transformers", "ray", "vllm", "deepspeed", "datasets")
    code = f"import sys, tinyr1v_ray.rewards.child; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "answer", [r"\boxed{9^{9^{9^{9}}}}", r"\boxed{(10^{10})!}", r"\boxed{\binom{10^9}{5 \times 10^8}}"]
)
def test_expressions_that_explode_do_not_hang_the_run(answer: str) -> None:
    """What math-verify does with them is its own affair; the next item is scored in any case."""
    with ScoringProcess(RewardSettings(item_timeout_s=1.0)) as process:
        started = time.monotonic()
        scores = process.score_group(group_of(answer, "7", domain="math", answer="7")).scores
        assert not scores[0].correct
        assert scores[1].correct
        assert time.monotonic() - started < 8.0


def test_a_process_that_does_not_read_is_replaced() -> None:
    """Stopped, it takes nothing from the socket, whose buffer is smaller than these items."""
    settings = RewardSettings(function="hostile_rewards:by_text", format_weight=0.0, item_timeout_s=TIMEOUT_S)
    with ScoringProcess(settings) as process:
        os.kill(int(process.score_group(group_of("pid")).scores[0].parts["pid"]), signal.SIGSTOP)
        scores = process.score_group(group_of("give 0.5 " + "x" * 4_000_000)).scores
        assert scores[0].total == 0.5 and process.num_restarts == 1
