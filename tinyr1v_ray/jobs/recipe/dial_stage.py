"""One point of the conflict dial as a stage: experts, as trained or with planted overlap, and what merges keep of them.

Answers are drawn here, in one process and many at once, by the way in which the miniature measures its base: at some
hundred models of a few megabytes each, starting an engine would take longer than all answers.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from tinyr1v_ray.config.merge import MergeConfig
from tinyr1v_ray.config.pipeline import DialPointSettings, PipelineConfig
from tinyr1v_ray.data.model_folder import MINIATURE, fetch_model_folder
from tinyr1v_ray.errors import ConfigError
from tinyr1v_ray.files.durable import replace_file
from tinyr1v_ray.files.json_lines import JsonLines, to_json
from tinyr1v_ray.jobs.recipe.merge_stage import merge_until
from tinyr1v_ray.jobs.recipe.stage import (
    BASE,
    Inputs,
    RecipeModel,
    Stage,
    Stopped,
    run_stoppable,
    stage_fingerprint,
    stage_folder,
    without,
)
from tinyr1v_ray.merging.planted_folders import write_planted
from tinyr1v_ray.merging.report import REPORT as MERGE_REPORT
from tinyr1v_ray.miniature.measure import answered
from tinyr1v_ray.miniature.tasks.pools import Domain
from tinyr1v_ray.report.dial import DIAL, ROWS
from tinyr1v_ray.report.geometry import cosines
from tinyr1v_ray.telemetry.display import Display

PLANTED = "planted"
"""Folder of the planted experts while they are needed."""


class DialStage(Stage[DialPointSettings]):
    """One overlap of one case; its result is a table of models by domains."""

    kind = "dial"
    typical_s = 150.0

    @classmethod
    def build(
        cls,
        config: PipelineConfig,
        point: tuple[str, float],
        experts: Sequence[tuple[RecipeModel, str]],
        shared: RecipeModel | None,
        inputs: Inputs,
    ) -> Self:
        """`point` is case and overlap, `experts` are with their domains; `shared` is None where nothing is planted."""
        _require_miniature(config, experts)
        (case, overlap), seed = point, experts[0][0].seed
        models = [model for model, _ in experts] + ([shared] if shared else [])
        settings = DialPointSettings(
            base=config.base,
            experts=tuple(str(model.folder) for model, _ in experts),
            domains=tuple(domain for _, domain in experts),
            shared=str(shared.folder) if shared else "none",
            overlap=overlap,
            case_name=case,
            case=config.dial.named_cases[case],
            methods=config.merge.methods,
            num_items=config.dial.num_items,
            seed=seed,
            job=config.merge.job,
        )
        same = without(settings, ("base", "experts", "shared", "job.", "case_name", "case.experts"))
        same["arithmetic"] = [settings.job.device, settings.job.threads_per_task]
        custom = [method.function for method in config.merge.methods.values() if method.function]
        read = [inputs.model(config.base), *(model.identity for model in models)]
        read += [inputs.function("method.function", path) for path in custom]
        digest = stage_fingerprint(same, inputs=read)
        name = f"{case}_{overlap:g}" if shared else case
        folder = stage_folder(config, cls, name, seed, digest)
        return cls(name, seed, tuple(model.made_by for model in models), settings, digest, folder)

    @property
    def result(self) -> Path:
        """Written last."""
        return self.folder / DIAL

    @property
    def placement(self) -> None:
        """It takes this process and runs alone."""
        return None

    def is_whole(self) -> bool:
        """Whether the table is there."""
        return self.result.is_file()

    async def run(self, display: Display, command: Sequence[str]) -> None:
        """Plant, merge, measure; when the recipe ends, it stops after the model at hand, and goes on there."""
        await run_stoppable(lambda stop: self._work(display, stop))

    def describe(self, model: RecipeModel, config: PipelineConfig) -> dict[str, Any]:
        """Its models are gone when it is done."""
        raise TypeError(f"stage {self.id} makes no model")

    def _work(self, display: Display, stop: threading.Event) -> None:
        base, experts, merged = fetch_model_folder(self.settings.base), self._experts(), self.folder / "merged"
        if not merged.is_dir():
            display.line("merging")
            self._plant(base, experts)
            merge_until(self._merge_settings(merged), display, stop)
        self._measure(base, merged, display, stop)
        first = json.loads((merged / next(iter(self.settings.methods)) / MERGE_REPORT).read_text(encoding="utf-8"))
        _, whole_KK, norms_K = cosines(first["tensors"])
        row = {
            "case": self.settings.case_name,
            "planted": self.settings.case.planted,
            "overlap": self.settings.overlap,
            "domains": list(self.settings.domains),
            "cosine": float(np.mean(whole_KK[np.triu_indices(len(whole_KK), 1)])),
            "norms": norms_K.tolist(),
            "methods": {name: method.name for name, method in self.settings.methods.items()},
            "num_items": self.settings.num_items,
            "rows": _rows(self.folder / ROWS),
        }
        replace_file(self.result, to_json(row, indent=1) + "\n")
        for folder in (merged, self.folder / PLANTED):
            shutil.rmtree(folder, ignore_errors=True)

    def _experts(self) -> dict[str, Path]:
        """Planted ones where they are made, others where they were trained."""
        found = {f"expert_{number}": Path(folder) for number, folder in enumerate(self.settings.experts)}
        return {name: self.folder / PLANTED / name for name in found} if self.settings.case.planted else found

    def _plant(self, base: Path, experts: Mapping[str, Path]) -> None:
        """All experts at once or none, and once: an interrupted merge goes on with the files that it began with."""
        if not self.settings.case.planted or (self.folder / PLANTED).is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            return
        point, making = self.settings, self.folder / f".{PLANTED}"
        making.mkdir(parents=True, exist_ok=True)
        sources, outputs = [Path(each) for each in point.experts], [making / name for name in experts]
        write_planted(base, sources, Path(point.shared), point.overlap, point.case, outputs)
        making.rename(self.folder / PLANTED)

    def _merge_settings(self, output: Path) -> MergeConfig:
        return MergeConfig(
            base=self.settings.base,
            experts=tuple(str(folder) for folder in self._experts().values()),
            output=str(output),
            methods=self.settings.methods,
            job=self.settings.job,
        )

    def _wanted(self, base: Path, merged: Path) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
        """(model, its folder, the domains that it is asked in): an expert in its own."""
        domains = tuple(dict.fromkeys(self.settings.domains))
        yield BASE, base, domains
        for (name, folder), domain in zip(self._experts().items(), self.settings.domains, strict=True):
            yield name, folder, (domain,)
        for name in self.settings.methods:
            yield name, merged / name, domains

    def _measure(self, base: Path, merged: Path, display: Display, stop: threading.Event) -> None:
        """A row for each model and domain that has none yet; of all models with the same items and the same seed."""
        rows = _rows(self.folder / ROWS)
        done = {(row["model"], row["domain"]) for row in rows}
        replace_file(self.folder / ROWS, "".join(to_json(row) + "\n" for row in rows))  # without what a kill tore
        journal = JsonLines(self.folder / ROWS)
        try:
            for name, folder, domains in self._wanted(base, merged):
                left = [Domain(domain) for domain in domains if (name, domain) not in done]
                if not left:
                    continue
                if stop.is_set():
                    raise Stopped
                display.line(f"measuring {name}")
                for domain, answers in answered(folder, left, self.settings.num_items, self.settings.seed):
                    right, tokens = [int(one.is_right) for one in answers], [one.num_tokens for one in answers]
                    journal.append([{"model": name, "domain": str(domain), "right": right, "tokens": tokens}])
        finally:
            journal.close()


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows so far; a last line that a kill tore is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _require_miniature(config: PipelineConfig, experts: Sequence[tuple[RecipeModel, str]]) -> None:
    if config.base != MINIATURE:
        raise ConfigError(
            f"dial has experts and base is {config.base}; the dial measures on the miniature's items; "
            f"set base={MINIATURE}, or remove dial"
        )
    for model, domain in experts:
        if domain not in set(Domain):
            raise ConfigError(
                f"dial.experts has {model.name}, which is trained on {domain or 'several domains'}; an expert is "
                f"measured on its one domain of {', '.join(Domain)}; name another"
            )
