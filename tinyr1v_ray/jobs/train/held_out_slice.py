"""Evaluation on the way: a slice of held-out items every n steps, and the best model kept."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.evaluation.held_out import held_out_row, is_better
from tinyr1v_ray.files.durable import replace_file
from tinyr1v_ray.files.json_lines import JsonLines, to_json, truncate_after
from tinyr1v_ray.jobs.train.answering import answer_items
from tinyr1v_ray.jobs.train.components import Components
from tinyr1v_ray.learner.rank import LearnerRank
from tinyr1v_ray.rollout.sampling import Sampling
from tinyr1v_ray.telemetry.progress import RunProgress
from tinyr1v_ray.types import Prompt

STEPS = "steps.jsonl"
BEST = "best.json"


class HeldOutSlice:
    """Port `HeldOutEvaluator`. `evaluation/steps.jsonl` gets a row an evaluation; `best/` holds the best model seen.

    `best/best.json` names the folder beside it and its metrics; it changes only when that folder is whole. A run that
    went back to a checkpoint keeps a best that it saw after it, for those are weights that it had and measured.
    """

    def __init__(
        self,
        run_folder: Path,
        config: TrainConfig,
        prompts: tuple[Prompt, ...],
        components: Components,
        progress: RunProgress,
    ) -> None:
        self._config, self._components, self._progress = config, components, progress
        self._prompts = prompts[: config.evaluation.num_slice_items]
        self._best_folder = run_folder / "best"
        self._rows = run_folder / "evaluation" / STEPS

    def go_back_to(self, step: int) -> None:
        """Forget the rows of later steps, which are made again."""
        truncate_after(self._rows, step)

    async def evaluate(self, step: int) -> None:
        """Answer the slice if the step is due, and export the model if it is the best so far."""
        every = self._config.evaluation.every_n_steps
        if not every or step % every:
            return
        config = self._config
        sampling = Sampling(
            1, config.evaluation.temperature, config.rollout.top_p, config.rollout.max_tokens, config.run.seed
        )
        answers = await answer_items(
            self._prompts, self._components.engines, self._components.rewards, sampling, lambda _: None
        )
        row = {"step": step, **held_out_row(answers)}
        await asyncio.to_thread(self._record, row)
        better = is_better(row, self._best())
        if better:
            await self._keep(step, row)
        self._progress.line(
            f"step {step}: held out accuracy {row['accuracy']:.3f}  tokens {row['tokens']:.1f}"
            + ("  best so far" if better else "")
        )

    def _record(self, row: Mapping[str, Any]) -> None:
        self._rows.parent.mkdir(exist_ok=True)
        rows = JsonLines(self._rows)
        try:
            rows.append([row])
        finally:
            rows.close()

    def _best(self) -> dict[str, Any] | None:
        path = self._best_folder / BEST
        if not path.is_file():
            return None
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return row

    async def _keep(self, step: int, row: Mapping[str, Any]) -> None:
        """Export beside the one before, point to it, and only then remove that."""
        folder = self._best_folder / f"step-{step:06d}"
        self._best_folder.mkdir(exist_ok=True)
        timeout_s = self._config.learner.update_timeout_s
        await self._components.learner.everywhere(LearnerRank.export, timeout_s, folder)
        replace_file(self._best_folder / BEST, to_json({"folder": folder.name, **row}, indent=2) + "\n")
        for other in self._best_folder.iterdir():
            if other.is_dir() and other != folder:
                shutil.rmtree(other)
