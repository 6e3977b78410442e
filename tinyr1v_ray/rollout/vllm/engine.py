"""One vLLM engine on a thread of its own: groups in, groups out, and new weights between two of its steps.

vLLM's `LLMEngine` runs in this process (`VLLM_ENABLE_V1_MULTIPROCESSING=0`): on few cores its asynchronous front end,
spread over three processes, generates at half the rate. All calls into vLLM happen on one thread, which alternates
between commands and engine steps. So a pause is nothing but not stepping, continuous batching over groups comes by
itself, and each group is handed back as soon as its last completion ends.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from vllm import EngineArgs, RequestOutput, SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.llm_engine import LLMEngine

from tinyr1v_ray.config.engine import EngineSettings
from tinyr1v_ray.data.images import open_image
from tinyr1v_ray.errors import DataError, EngineDiedError, RolloutError
from tinyr1v_ray.rollout.engine import WeightSource, WeightUpdate
from tinyr1v_ray.rollout.sampling import Sampling, group_seed
from tinyr1v_ray.rollout.vllm.arguments import engine_arguments
from tinyr1v_ray.rollout.vllm.futures import all_of, fail_all
from tinyr1v_ray.types import Completion, Finish, Prompt, RolloutGroup

_FINISH = {"stop": Finish.STOP, "length": Finish.LENGTH}


@dataclass(frozen=True)
class _Request:
    """What vLLM works on: a prompt and the completion tokens that it is given.

    Keys and values of requests that share a cache are found by others of the same tokens.
    """

    prompt: Prompt
    given_token_ids: tuple[int, ...]
    future: Future[Any]
    convert: Callable[[RequestOutput], Any]
    shares_cache: bool = False


class VllmEngine:
    """An `InferenceEngine`: vLLM's, and the thread that drives it.

    When a step of the engine fails, every pending and later future raises EngineDiedError with the cause: the engine
    must be replaced. `max_images` is the largest number of images in a prompt, `stop_ids` are the token ids that end a
    completion.
    """

    def __init__(
        self, settings: EngineSettings, model_folder: Path, max_images: int, stop_ids: tuple[int, ...]
    ) -> None:
        self._weights, self._sleep_level, self._is_asleep = settings.weights, settings.sleep_level, False
        self._stop_ids = list(stop_ids)
        self._commands: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._pending: dict[str, _Request] = {}
        self._failure: BaseException | None = None
        self._num_requests = 0
        arguments = engine_arguments(settings, model_folder, max_images)
        self._thread = threading.Thread(target=self._run, args=(arguments,), name="vllm-engine", daemon=True)
        self._started: Future[None] = Future()
        self._thread.start()
        self._started.result(timeout=settings.start_timeout_s)

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> Future[list[RolloutGroup]]:
        """A group for each prompt; all are admitted before the next engine step."""
        shares_cache = sampling.shares_cache
        requests = [_Request(prompt, (), Future(), partial(self._group, prompt), shares_cache) for prompt in prompts]
        groups = all_of([request.future for request in requests])
        self._submit(requests, [self._sampling_params(prompt, sampling) for prompt in prompts])
        return groups

    def score(self, prompt: Prompt, token_ids_T: np.ndarray) -> Future[np.ndarray]:
        """Log-probs (float32 [T], natural) of given completion tokens after a prompt, under the current weights."""
        future: Future[np.ndarray] = Future()
        token_ids = [int(token) for token in token_ids_T]
        params = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False, temperature=0.0)
        params.output_kind = RequestOutputKind.FINAL_ONLY

        def logprobs(output: RequestOutput) -> np.ndarray:
            rows = (output.prompt_logprobs or [])[-len(token_ids) :]
            return np.array([row[token].logprob for row, token in zip(rows, token_ids, strict=True)], np.float32)

        self._submit([_Request(prompt, tuple(token_ids), future, logprobs)], [params])
        return future

    def connect(self, source: WeightSource) -> Future[None]:
        """First of vLLM's four phases of a weight transfer."""
        return self._command(lambda: self._rpc("init_weight_transfer_engine", init_info=asdict(source)))

    def load_weights(self, version: int, update: WeightUpdate) -> Future[None]:
        """The other three phases, between two engine steps; then every cache that depends on weights is emptied.

        Running requests keep their tokens and go on under the new weights, with their keys and values recomputed.
        """

        def load() -> None:
            if update.is_first:
                self._wake("weights")
                self._rpc("start_weight_update")
            self._rpc("update_weights", update_info=update.message())
            if update.is_last:
                self._rpc("finish_weight_update")
                self._wake("kv_cache")
                self._make_live(version)

        return self._command(load)

    def sleep(self) -> Future[None]:
        """vLLM's sleep mode at the level of the settings: on a GPU the KV cache is given back, and the weights too.

        On the CPU vLLM has no such mode. The same calls then pause its scheduler and empty its caches, and its memory
        stays. The mode itself was never run here, for want of a GPU.
        """

        def sleep() -> None:
            self._engine.sleep(self._sleep_level, mode="keep")
            self._is_asleep = True

        return self._command(sleep)

    def close(self) -> None:
        """Stop the thread after the current step; pending futures fail."""
        self._commands.put(None)
        self._thread.join(timeout=30)

    # Everything below runs on the engine's thread.

    def _run(self, engine_args: EngineArgs) -> None:
        try:
            self._engine = LLMEngine.from_engine_args(engine_args)
            self._engine.set_weight_version("0")
            self._started.set_result(None)
            while self._obey_commands():
                for output in self._engine.step():
                    self._finish(output)
        except BaseException as error:  # noqa: BLE001 - the thread's owner: whoever waits must learn of it
            self._failure = error
        self._release_everybody()

    def _obey_commands(self) -> bool:
        """Run waiting commands; block for one while there is nothing to step, or all sleeps. False: stop."""
        while True:
            try:
                command = self._commands.get(block=self._is_asleep or not self._pending)
            except queue.Empty:
                return True
            if command is None:
                return False
            action, future = command
            try:
                future.set_result(action())
            except BaseException as error:
                self._failure = error
                future.set_exception(self._death())
                raise

    def _wake(self, part: str) -> None:
        """Take a part of the memory back; the last part ends the sleep."""
        if self._is_asleep:
            self._is_asleep = not self._engine.wake_up([part])

    def _make_live(self, version: int) -> None:
        self._engine.set_weight_version(str(version))
        if not self._engine.reset_prefix_cache(reset_running_requests=True):
            raise RolloutError(
                f"prefix cache not emptied after loading version {version}; stale keys would be used; restart"
            )
        self._engine.reset_encoder_cache()
        self._engine.reset_mm_cache()

    def _admit(self, requests: list[_Request], params: list[SamplingParams]) -> None:
        """Hand requests to vLLM, all or none; one that it refuses is the request's fault, not the engine's."""
        admitted = []
        try:
            for request, how in zip(requests, params, strict=True):
                self._num_requests += 1
                request_id = str(self._num_requests)
                self._engine.add_request(request_id, _vllm_prompt(request), how)
                self._pending[request_id] = request
                admitted.append(request_id)
        except (VLLMValidationError, ValueError, TypeError, DataError) as error:
            self._engine.abort_request(admitted)
            for request_id in admitted:
                del self._pending[request_id]
            refusal = RolloutError(f"engine refused a request: {error}; its prompt or image is at fault; leave it out")
            fail_all([request.future for request in requests], refusal)

    def _finish(self, output: Any) -> None:
        if not output.finished:
            return
        request = self._pending.pop(output.request_id)
        num_prompt_tokens = len(output.prompt_token_ids or ()) - len(request.given_token_ids)
        if request.future.done():
            return
        if num_prompt_tokens != request.prompt.num_expanded_tokens:
            request.future.set_exception(_count_error(request.prompt, num_prompt_tokens))
        else:
            request.future.set_result(request.convert(output))

    def _group(self, prompt: Prompt, output: RequestOutput) -> RolloutGroup:
        by_index = sorted(output.outputs, key=lambda completion: completion.index)
        return RolloutGroup(prompt, tuple(self._completion(completion) for completion in by_index))

    def _completion(self, output: Any) -> Completion:
        token_ids_T = np.array(output.token_ids, np.int32)
        spans = output.weight_versions or []
        current = int(self._engine.get_weight_version())
        return Completion(
            token_ids_T=token_ids_T,
            logprobs_T=np.array(output.logprobs.logprobs, np.float32),
            text=self._engine.get_tokenizer().decode(token_ids_T.tolist(), skip_special_tokens=True),
            finish=_FINISH.get(output.finish_reason, Finish.ABORT),
            first_version=int(spans[0].version) if spans else current,
            last_version=int(spans[-1].version) if spans else current,
        )

    def _sampling_params(self, prompt: Prompt, sampling: Sampling) -> SamplingParams:
        return SamplingParams(
            n=sampling.num_completions,
            seed=group_seed(sampling.seed, prompt),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop_token_ids=self._stop_ids,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _rpc(self, method: str, **arguments: Any) -> None:
        timeout_s = self._weights.timeout_s if self._weights is not None else None
        self._engine.collective_rpc(method, timeout=timeout_s, kwargs=arguments)

    # Called from any thread.

    def _submit(self, requests: list[_Request], params: list[SamplingParams]) -> None:
        admitted = self._command(partial(self._admit, requests, params))
        admitted.add_done_callback(lambda done: fail_all([request.future for request in requests], done.exception()))

    def _command(self, action: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        if not self._thread.is_alive():
            future.set_exception(self._death())
            return future
        self._commands.put((action, future))
        return future

    def _death(self) -> EngineDiedError:
        return EngineDiedError(f"engine stopped: {self._failure!r}; it must be replaced; see the log of its actor")

    def _release_everybody(self) -> None:
        """Fail whatever still waits for the dead engine."""
        waiting = [*(request.future for request in self._pending.values()), self._started]
        while not self._commands.empty():
            command = self._commands.get()
            if command is not None:
                waiting.append(command[1])
        fail_all(waiting, self._death())


def _vllm_prompt(request: _Request) -> Any:
    prompt: dict[str, Any] = {"prompt_token_ids": [*request.prompt.token_ids, *request.given_token_ids]}
    if not request.shares_cache:
        prompt["cache_salt"] = "alone"
    if request.prompt.images:
        prompt["multi_modal_data"] = {"image": [open_image(image) for image in request.prompt.images]}
    return prompt


def _count_error(prompt: Prompt, num_seen: int) -> RolloutError:
    return RolloutError(
        f"engine expanded prompt {prompt.prompt_id} to {num_seen} tokens, the learner expects "
        f"{prompt.num_expanded_tokens}; image token counts must agree; give both the same pixel limits"
    )
