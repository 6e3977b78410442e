"""Whether a training's records are sound: every group once, in the order of issue and in time; all else follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np

from tinyr1v_ray.algorithms.advantages import build_advantages
from tinyr1v_ray.checkpoint.manifest import verify
from tinyr1v_ray.checkpoint.store import CheckpointFolder
from tinyr1v_ray.config.base import parse_settings, read_yaml
from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.errors import TinyR1VError
from tinyr1v_ray.evaluation.held_out import held_out_metrics, read_answers
from tinyr1v_ray.evaluation.reading import UNREADABLE, read_object, reason
from tinyr1v_ray.telemetry.metrics import step_metrics
from tinyr1v_ray.telemetry.run_folder import CONFIG_FILE, check_readable
from tinyr1v_ray.telemetry.sinks import GROUPS_FILE, METRICS_FILE
from tinyr1v_ray.types import Completion, Finish, LearnerUpdate, Prompt, RolloutGroup, Score, ScoredGroup
from tinyr1v_ray.verify.records import Row, agree, broken, read_rows

_ONCE = "every group is trained once, in the order of issue"
_FOLLOW = "metrics follow from what was answered"
_COLUMNS = "a group has an entry per completion in each list"
_SECONDS = "seconds_"


def verify_training(folder: Path) -> str:
    """What was checked, in one line.

    Raises RunFolderError for a folder that is no run or of a newer version, RecordError where the records break,
    CheckpointError for a checkpoint that is not as it was written.
    """
    check_readable(folder)
    ledger = _Ledger(parse_settings(TrainConfig, read_yaml(folder / CONFIG_FILE)))
    groups = read_rows(folder / GROUPS_FILE)
    for metrics in read_rows(folder / METRICS_FILE):
        ledger.add_step(metrics, list(islice(groups, ledger.num_per_step)))
    ledger.check_unfinished(list(islice(groups, ledger.num_per_step + 1)))
    checkpoints = _check_checkpoints(CheckpointFolder(folder / "checkpoints", 1), ledger)
    _check_summary(folder)
    return (
        f"{ledger.num_groups} groups of {ledger.step} steps, once each and in order (cursor {ledger.cursor}); "
        f"staleness {ledger.most_late}, allowed {ledger.max_staleness}; advantages and metrics follow from them; "
        f"checkpoints: {checkpoints}"
    )


class _Ledger:
    """The steps read so far; `cursor` counts the prompts issued for them, `after` has cursor and state by step."""

    def __init__(self, config: TrainConfig) -> None:
        self.num_per_step, self.max_staleness = config.run.num_prompts_per_step, config.run.max_staleness
        self._advantages = build_advantages(config.algorithm, config.rollout.max_tokens)
        self.step = self.cursor = self.num_groups = self.most_late = self._epoch = 0
        self._seen: set[str] = set()
        self._state: Mapping[str, float] = {}
        self.after: dict[int, tuple[int, Mapping[str, float]]] = {}

    def add_step(self, metrics: Row, rows: Sequence[Row]) -> None:
        """Hold a step's groups against those before, and its metrics against its groups."""
        try:
            self._add_step(self.step + 1, metrics, rows)
        except TinyR1VError:
            raise
        except UNREADABLE as error:
            raise broken(f"the records of step {self.step + 1} are damaged ({reason(error)})", _COLUMNS) from error

    def _add_step(self, step: int, metrics: Row, rows: Sequence[Row]) -> None:
        if metrics["step"] != step or metrics["version"] != step:
            raise broken(f"{metrics} is of step {metrics['step']} where step {step} is due", "steps follow each other")
        num_rejected = int(metrics["num_rejected_groups"])
        first = self.cursor
        self._take(step, rows, num_rejected)
        if len(rows) < self.num_per_step or self.cursor != first + len(rows) + num_rejected:
            raise broken(f"{GROUPS_FILE} lacks group {self.cursor} of step {step}, which {metrics} counts", _ONCE)
        groups = [_as_group(row) for row in rows]
        advantages = self._advantages(groups, self._state)
        for row, advantages_G in zip(rows, advantages.by_group_PG, strict=True):
            if not agree(row["advantages"], advantages_G.tolist()):
                raise broken(
                    f"{row} has advantages {row['advantages']} where its rewards and lengths give "
                    f"{advantages_G.round(6).tolist()}",
                    "advantages follow from rewards and lengths",
                )
        seconds = {key.removeprefix(_SECONDS): at for key, at in metrics.values.items() if key.startswith(_SECONDS)}
        update = LearnerUpdate(step, {})
        for name, value in step_metrics(step, update, groups, advantages, num_rejected, seconds).as_row().items():
            if not agree(metrics[name], value):
                raise broken(
                    f"{metrics} has {name} {metrics[name]} where the groups of step {step} give {value:g}",
                    _FOLLOW,
                )
        self.step, self._state = step, advantages.state
        self.after[step] = self.cursor, self._state

    def check_unfinished(self, rows: Sequence[Row]) -> None:
        """The rows after those of the last step with metrics: a run that is killed may leave one step of them."""
        if rows[self.num_per_step :]:
            raise broken(f"{rows[-1]} is past step {self.step + 1}, which {METRICS_FILE} lacks", "steps have metrics")
        for row in rows:
            if row["step"] != self.step + 1:
                raise broken(f"{row} is of step {row['step']} where step {self.step + 1} is due", _ONCE)

    def _take(self, step: int, rows: Sequence[Row], num_rejected: int) -> None:
        """Move on by a step's groups; `num_rejected` positions among theirs are those of groups turned away."""
        for row in rows:
            position, skipped = row["position"], row["position"] - self.cursor
            if row["step"] != step or not 0 <= skipped <= num_rejected:
                raise broken(
                    f"{row} holds group {position} ({row['prompt_id']}) of step {row['step']} where group "
                    f"{self.cursor} of step {step} is due",
                    _ONCE,
                )
            num_rejected -= skipped
            self.cursor, self.num_groups = position + 1, self.num_groups + 1
            self._check_prompt(row)
            self._check_versions(row)

    def _check_prompt(self, row: Row) -> None:
        if row["epoch"] > self._epoch:
            self._epoch, self._seen = row["epoch"], set()
        if row["prompt_id"] in self._seen or row["epoch"] < self._epoch:
            raise broken(f"{row} holds {row['prompt_id']} of epoch {row['epoch']} again", "an epoch has a prompt once")
        self._seen.add(row["prompt_id"])

    def _check_versions(self, row: Row) -> None:
        """Update v trains the weights of version v - 1."""
        now, first, last = row["step"] - 1, row["first_versions"], row["last_versions"]
        if row["version"] != now + 1 or any(not 0 <= old <= new <= now for old, new in zip(first, last, strict=True)):
            raise broken(
                f"{row} has version {row['version']} and was sampled under versions {min(first)} to {max(last)} for "
                f"step {now + 1}",
                "a group is sampled before its step, and trained into the version of the step's number",
            )
        late = now - min(first)
        if late > self.max_staleness:
            raise broken(
                f"{row} was sampled under version {min(first)} and trained by step {now + 1}, {late} versions late",
                f"run.max_staleness allows {self.max_staleness}",
            )
        self.most_late = max(self.most_late, late)


def _as_group(row: Row) -> ScoredGroup:
    """What a row says of a group; texts and parts of rewards are left out."""
    graded = zip(row["rewards"], row["correct"], row["failures"], strict=True)
    scores = tuple(Score(total, correct=correct, failure=failure) for total, correct, failure in graded)
    return ScoredGroup(
        RolloutGroup(Prompt(row["prompt_id"], row["domain"], "", "", ()), tuple(_completions(row))), scores
    )


def _completions(row: Row) -> Iterator[Completion]:
    columns = (row[name] for name in ("lengths", "finish", "first_versions", "last_versions"))
    for length, finish, first, last in zip(*columns, strict=True):
        yield Completion(np.zeros(length, np.int32), np.zeros(0, np.float32), "", Finish(finish), first, last)


def _check_checkpoints(store: CheckpointFolder, ledger: _Ledger) -> str:
    """Every file against its manifest, and the manifests' states against the records; the steps in words."""
    for step in store.steps():
        state, name = verify(store.path(step)), store.path(step).name
        if state.step != step or step not in ledger.after:
            raise broken(f"{name} is a checkpoint of step {state.step}", f"the records end at step {ledger.step}")
        cursor, advantages = ledger.after[step]
        if state.cursor != cursor:
            raise broken(f"{name} counts {state.cursor} groups as consumed", f"the records have {cursor} by then")
        if not agree(dict(state.advantages), advantages):
            raise broken(f"{name} has the state {dict(state.advantages)}", f"the records give {dict(advantages)}")
    return ", ".join(f"step {step}" for step in store.steps()) or "none"


def _check_summary(folder: Path) -> None:
    """The closing metrics against the stored held-out answers, where both are there."""
    path = folder / "summary.json"
    try:
        summary = read_object(path) if path.is_file() else {}
        answers = {when: folder / "evaluation" / f"{when}.jsonl" for when in ("before", "after")}
        metrics = {when: held_out_metrics(read_answers(file)) for when, file in answers.items() if file.is_file()}
    except UNREADABLE as error:
        raise broken(f"{path.name} or evaluation/ is damaged ({reason(error)})", "both are JSON") from error
    for when, rows in metrics.items():
        if summary and not agree(summary.get(when), [asdict(row) for row in rows]):
            raise broken(f"{path.name} has other metrics {when} training than evaluation/{when}.jsonl", _FOLLOW)
