"""A few groups of each step kept whole, for looking at: question, image, every answer with its score and advantage.

`samples/step_000012.json` is for programs, `step_000012.html` beside it for a browser; images are linked (or copied
where the file system cannot) into `samples/images/` under their hash, so that the folder can be moved.
"""

from __future__ import annotations

import html
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyr1v_ray.files.durable import replace_file
from tinyr1v_ray.files.json_lines import to_json
from tinyr1v_ray.types import ImageRef, ScoredGroup, StepMetrics

PAGE_HEAD = """<!doctype html><meta charset="utf-8"><title>Step {step}</title>
<style>body {{ font: 14px sans-serif; max-width: 60em; margin: 1em auto }} img {{ max-width: 100%; max-height: 20em }}
table {{ border-collapse: collapse; width: 100% }} td, th {{ border: 1px solid #ccc; padding: .3em; text-align: left;
vertical-align: top }} pre {{ white-space: pre-wrap; margin: 0 }}</style>
<h1>Step {step}</h1>
"""


class SampleSink:
    """Keeps the first `num_groups` groups of each step: an unbiased choice, since the data are shuffled."""

    def __init__(self, folder: Path, num_groups: int) -> None:
        self._folder = folder
        self._num_groups = num_groups

    def log(self, metrics: StepMetrics, groups: Sequence[ScoredGroup], advantages_PG: Sequence[np.ndarray]) -> None:
        """Write the step's sample files."""
        pairs = list(zip(groups, advantages_PG, strict=True))[: self._num_groups]
        if not pairs:
            return
        (self._folder / "images").mkdir(parents=True, exist_ok=True)
        samples = [self._sample(group, advantages_G) for group, advantages_G in pairs]
        stem = self._folder / f"step_{metrics.step:06d}"
        replace_file(stem.with_suffix(".json"), to_json({"step": metrics.step, "groups": samples}, indent=1) + "\n")
        page = PAGE_HEAD.format(step=metrics.step) + "".join(_section(sample) for sample in samples)
        replace_file(stem.with_suffix(".html"), page)

    def close(self) -> None:
        """Nothing is held open."""

    def _sample(self, group: ScoredGroup, advantages_G: np.ndarray) -> dict[str, Any]:
        prompt = group.group.prompt
        rows = zip(group.group.completions, group.scores, advantages_G, strict=True)
        return {
            "prompt_id": prompt.prompt_id,
            "domain": prompt.domain,
            "difficulty": prompt.difficulty,
            "question": prompt.question,
            "answer": " or ".join((prompt.answer, *prompt.other_answers)),
            "images": [_keep_image(image, self._folder) for image in prompt.images],
            "completions": [
                {
                    "text": completion.text,
                    "num_tokens": completion.num_tokens,
                    "finish": str(completion.finish),
                    "reward": float(score.total),
                    "parts": {name: float(part) for name, part in score.parts.items()},
                    "correct": bool(score.correct),
                    "failure": score.failure,
                    "advantage": float(advantage),
                }
                for completion, score, advantage in rows
            ],
        }


def drop_samples_after(folder: Path, last_step: int) -> None:
    """Remove the sample files of steps after `last_step`."""
    for path in folder.glob("step_*.*"):
        number = path.stem.removeprefix("step_")
        if number.isdecimal() and int(number) > last_step:
            path.unlink()


def _keep_image(image: ImageRef, folder: Path) -> str:
    """Path of the kept image relative to `folder`; an image that has gone since is named by its old path."""
    source = Path(image.path)
    name = f"images/{image.sha256[:32]}{source.suffix}"
    target = folder / name
    if not target.exists():
        try:
            os.link(source, target)
        except FileNotFoundError:
            return image.path
        except OSError:
            temporary = target.with_name(f".{target.name}.tmp")
            shutil.copyfile(source, temporary)
            temporary.replace(target)
    return name


def _section(sample: dict[str, Any]) -> str:
    """One group as HTML; whatever a model wrote is escaped."""
    images = "".join(f'<p><img src="{html.escape(name, quote=True)}"></p>' for name in sample["images"])
    rows = "".join(
        f"<tr><td>{row['reward']:.3f}<td>{row['advantage']:+.3f}<td>{row['num_tokens']}"
        f"<td>{'yes' if row['correct'] else 'no'}<td>{html.escape(row['failure'] or row['finish'])}"
        f"<td><pre>{html.escape(row['text'])}</pre></tr>\n"
        for row in sample["completions"]
    )
    return (
        f"<h2>{html.escape(sample['prompt_id'])}</h2>{images}<pre>{html.escape(sample['question'])}</pre>\n"
        f"<p>Reference answer: <b>{html.escape(sample['answer'])}</b></p>\n"
        f"<table><tr><th>reward<th>advantage<th>tokens<th>correct<th>end<th>answer</tr>\n{rows}</table>\n"
    )
