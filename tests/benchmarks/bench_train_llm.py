"""vLLM's in-process `LLM` in a child process: the rate that the rollout actor is measured against."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from tinyr1v_ray.config.train import TrainConfig
from tinyr1v_ray.jobs.train.inputs import RunInputs
from tinyr1v_ray.rollout.sampling import Sampling, group_seed
from tinyr1v_ray.types import Prompt


class PlainLlm:
    """Asks the child for one round after another."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def wait_ready(self) -> None:
        """Until the model is loaded; raises EOFError when the child died."""
        self._connection.recv()

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> tuple[float, list[tuple[int, ...]]]:
        """Seconds of `LLM.generate`, timed in the child, and the sampled tokens."""
        self._connection.send((list(prompts), sampling))
        return self._connection.recv()


@contextmanager
def plain_llm(config: TrainConfig, inputs: RunInputs, num_threads: int) -> Iterator[PlainLlm]:
    """A child with an `LLM` of the run's own engine settings and this many threads; it ends with the block.

    What it prints goes to a log in the run's folder.
    """
    log = Path(config.run.folder) / config.run.name / f"plain_llm_{num_threads}.log"
    facts = inputs.model_folder, inputs.max_images, inputs.stop_ids
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(theirs, config, log, *facts), daemon=True)
    wanted = {"OMP_NUM_THREADS": str(num_threads), "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ |= wanted
    process.start()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    theirs.close()
    try:
        yield PlainLlm(ours)
    finally:
        ours.close()
        process.join(timeout=20)
        process.kill()


def _serve(
    connection: Connection,
    config: TrainConfig,
    log: Path,
    model_folder: Path,
    max_images: int,
    stop_ids: tuple[int, ...],
) -> None:
    with log.open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    from vllm import LLM

    from tinyr1v_ray.rollout.engine import _engine_args

    llm = LLM.from_engine_args(_engine_args(config, model_folder, max_images))
    connection.send("ready")
    while True:
        try:
            prompts, sampling = connection.recv()
        except EOFError:
            return
        connection.send(_generate(llm, prompts, sampling, stop_ids))


def _generate(
    llm: object, prompts: Sequence[Prompt], sampling: Sampling, stop_ids: tuple[int, ...]
) -> tuple[float, list[tuple[int, ...]]]:
    from vllm import SamplingParams

    from tinyr1v_ray.data.images import open_image

    llm.reset_prefix_cache()
    start = time.perf_counter()
    requests = [
        {
            "prompt_token_ids": list(prompt.token_ids),
            "multi_modal_data": {"image": [open_image(image) for image in prompt.images]},
        }
        for prompt in prompts
    ]
    params = [
        SamplingParams(
            n=sampling.num_completions,
            seed=group_seed(sampling.seed, prompt),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop_token_ids=list(stop_ids),
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
        )
        for prompt in prompts
    ]
    outputs = llm.generate(requests, params, use_tqdm=False)
    seconds = time.perf_counter() - start
    return seconds, [tuple(row.token_ids) for output in outputs for row in output.outputs]
