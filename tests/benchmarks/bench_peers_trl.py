"""TRL's `GRPOTrainer`, stepped from outside. Runs in an environment of its own: torch, transformers, trl.

`python bench_peers_trl.py JOB.json`: a line on stdin lets one step go, a JSON line on stdout reports it; a closed stdin
ends the process. A step is timed from one `on_step_begin` to the next, so logging and the next batch belong to it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from datasets import Dataset, Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from tinyr1v_ray.rewards.score import AnswerScorer


class Reward:
    """The run's own scoring function; remembers lengths and verdicts of the step."""

    __name__ = "reward"

    def __init__(self, rules: dict[str, Any]) -> None:
        self._scorer = AnswerScorer(SimpleNamespace(**rules))
        self.lengths: list[int] = []
        self.correct: list[bool] = []

    def __call__(self, completions: list[Any], completion_ids: list[list[int]], **columns: Any) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        rows = zip(texts, columns["answer"], columns["question"], columns["domain"], strict=True)
        scores = [self._scorer(*row) for row in rows]
        self.lengths += [len(ids) for ids in completion_ids]
        self.correct += [score.correct for score in scores]
        return [score.total for score in scores]


class Gate(TrainerCallback):
    """Waits for permission before each step and reports the one before."""

    def __init__(self, channel: Any, reward: Reward) -> None:
        self._channel, self._reward = channel, reward
        self._start: float | None = None
        self.prompts_agree: bool | None = None

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Report, then wait."""
        report: dict[str, Any] = {"ready": True}
        if self._start is not None:
            report = {
                "seconds": time.perf_counter() - self._start,
                "num_tokens": sum(self._reward.lengths),
                "num_completions": len(self._reward.lengths),
                "accuracy": sum(self._reward.correct) / len(self._reward.correct),
                "prompts_agree": self.prompts_agree,
            }
        self._channel.write(json.dumps(report) + "\n")
        self._channel.flush()
        self._reward.lengths, self._reward.correct = [], []
        if not sys.stdin.readline():
            os._exit(0)
        self._start = time.perf_counter()


class Trainer(GRPOTrainer):
    """Compares the prompts of its first step with the run's own, token by token."""

    gate: Gate
    expected: list[list[int]]

    def _generate_single_turn(self, prompt_ids: Any, *others: Any, **named: Any) -> Any:
        if self.gate.prompts_agree is None:
            unique = [list(map(int, ids)) for ids in prompt_ids][:: self.num_generations]
            self.gate.prompts_agree = unique == self.expected[: len(unique)]
        return super()._generate_single_turn(prompt_ids, *others, **named)


def main() -> None:
    """Read the job, build the trainer, let the gate decide."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    job = json.loads(Path(sys.argv[1]).read_text())
    reward = Reward(job["rules"])
    gate = Gate(channel, reward)
    items = [
        {
            "prompt": [{"role": "user", "content": item["question"]}],
            **{name: item[name] for name in ("image", "question", "answer", "domain")},
        }
        for item in job["items"]
    ]
    trainer = Trainer(
        model=Qwen2_5_VLForConditionalGeneration.from_pretrained(job["model"], dtype="float32"),
        reward_funcs=reward,
        args=_settings(job),
        train_dataset=Dataset.from_list(items).cast_column("image", Image()),
        processing_class=AutoProcessor.from_pretrained(job["model"], size=job["size"], padding_side="left"),
        callbacks=[gate],
    )
    trainer.gate, trainer.expected = gate, [item["token_ids"] for item in job["items"]]
    trainer.train()


def _settings(job: dict[str, Any]) -> GRPOConfig:
    num_rows = job["num_prompts"] * job["num_completions"]
    num_micro_batches = job["num_micro_batches"]
    return GRPOConfig(
        output_dir=job["folder"],
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=num_rows // num_micro_batches,
        gradient_accumulation_steps=num_micro_batches,
        steps_per_generation=num_micro_batches,
        num_generations=job["num_completions"],
        max_completion_length=job["max_tokens"],
        max_steps=100_000,
        learning_rate=job["learning_rate"],
        weight_decay=job["weight_decay"],
        max_grad_norm=job["max_grad_norm"],
        lr_scheduler_type="constant",
        temperature=job["temperature"],
        beta=0.0,
        epsilon=job["clip_low"],
        epsilon_high=job["clip_high"],
        gradient_checkpointing=False,
        shuffle_dataset=False,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        seed=job["seed"],
    )


if __name__ == "__main__":
    main()
