"""Selected-token log-probs: the plain computation's values and gradients, without its memory."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tinyr1v_ray.learner.logprobs import SelectedLogprobHead, selected_logprobs


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return torch.log_softmax((hidden @ weight.T).double() / temperature, -1).gather(1, targets[:, None])[:, 0]


@pytest.mark.parametrize("chunk_tokens", [1, 7, 32, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_values_and_gradients(chunk_tokens: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = (0.3 * torch.randn(32, 16, generator=generator)).requires_grad_()
    weight = torch.randn(101, 16, generator=generator).requires_grad_()
    targets = torch.randint(0, 101, (32,), generator=generator)
    upstream = torch.randn(32, generator=generator)
    ours = selected_logprobs(hidden, weight, targets, temperature, chunk_tokens)
    gradients = torch.autograd.grad((ours * upstream).sum(), [hidden, weight])
    theirs = plain(hidden, weight, targets, temperature)
    expected = torch.autograd.grad((theirs * upstream.double()).sum(), [hidden, weight])
    assert torch.allclose(ours.double(), theirs, atol=5e-6, rtol=0)
    for gradient, reference in zip(gradients, expected, strict=True):
        assert torch.allclose(gradient, reference, atol=2e-5, rtol=1e-4)


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4], [-1e4]]).requires_grad_()
    weight = torch.tensor([[1.0], [-1.0]]).requires_grad_()
    logprobs = selected_logprobs(hidden, weight, torch.tensor([0, 0]), 1.0, 1)
    assert logprobs.tolist() == [0.0, -2e4]
    gradients = torch.autograd.grad(logprobs.sum(), [hidden, weight])
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_chunking_does_not_cost_accuracy_in_bfloat16() -> None:
    """The weight's gradient of 64 chunks is added up in float32: no worse than that of a single chunk."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(256, 32, generator=generator).bfloat16()
    weight = torch.randn(50, 32, generator=generator).bfloat16()
    targets = torch.randint(0, 50, (256,), generator=generator)
    exact_weight = weight.double().requires_grad_()
    (exact,) = torch.autograd.grad(plain(hidden.double(), exact_weight, targets, 1.0).sum(), [exact_weight])
    errors = {}
    for chunk_tokens in (4, 256):
        leaf = weight.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(selected_logprobs(hidden, leaf, targets, 1.0, chunk_tokens).sum(), [leaf])
        errors[chunk_tokens] = float((gradient.double() - exact).norm() / exact.norm())
    assert errors[4] < max(1.5 * errors[256], 0.01)


class Made(TorchDispatchMode):
    """Shape and dtype of every tensor that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: set[tuple[tuple[int, ...], torch.dtype]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.tensors.add((tuple(result.shape), result.dtype))
        return result


def test_logits_off_the_cpu_are_made_in_float32_alone() -> None:
    """The meta device, which has a GPU's products without their numbers, sees no bfloat16 logits beside them."""
    for device, expected in (("meta", {torch.float32}), ("cpu", {torch.float32, torch.bfloat16})):
        hidden, weight = (torch.zeros(rows, 8, dtype=torch.bfloat16, device=device) for rows in (6, 30))
        with torch.no_grad(), Made() as made:
            selected_logprobs(hidden, weight, torch.zeros(6, dtype=torch.long, device=device), 0.7, 6)
        assert {dtype for shape, dtype in made.tensors if shape == (6, 30)} == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_bfloat16_on_a_gpu_rounds_no_logits() -> None:
    """Logits up to 100 that bfloat16 would hold in steps of 0.5; both sides start from the same rounded factors."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(64, 256, generator=generator).bfloat16()
    weight = (1.5 * torch.randn(1000, 256, generator=generator)).bfloat16()
    targets = (hidden.double() @ weight.double().T).argmax(dim=1)
    ours = selected_logprobs(hidden.cuda(), weight.cuda(), targets.cuda(), 1.0, 32).cpu()
    assert torch.allclose(ours.double(), plain(hidden.double(), weight.double(), targets, 1.0), atol=1e-3, rtol=0)


def test_a_frozen_weight_gets_no_gradient() -> None:
    head = nn.Linear(8, 20, bias=False).requires_grad_(False)
    hidden = torch.randn(5, 8, requires_grad=True)
    logprobs = SelectedLogprobHead(head, 2)(hidden, torch.zeros(5, dtype=torch.long), 1.0)
    logprobs.sum().backward()
    assert hidden.grad is not None and head.weight.grad is None


PEAK = """
import re, torch
from tinyr1v_ray.learner.logprobs import selected_logprobs
torch.set_num_threads(1)
V, T, H = 152064, 512, 16
def mib(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
hidden = torch.randn(T, H, requires_grad=True)
weight = torch.randn(V, H, requires_grad=True)
targets = torch.arange(T)
def chunks_of(tokens):
    return lambda: selected_logprobs(hidden, weight, targets, 1.0, tokens)
def plain():
    return torch.log_softmax((hidden @ weight.T).float(), -1).gather(1, targets[:, None])
for logprobs in (chunks_of(8), chunks_of(32), chunks_of(256), plain):   # the first warms the libraries up
    hidden.grad = weight.grad = None
    open("/proc/self/clear_refs", "w").write("5")   # the peak starts again from what is resident now
    before = mib("VmRSS")
    logprobs().sum().backward()
    print(mib("VmHWM") - before)
"""


def test_peak_memory_at_the_real_vocabulary() -> None:
    """512 tokens at V = 152064: logits are 297 MiB in float32, a chunk of 32 takes 19.

    Chunked, forward and backward never hold a whole logits tensor, and less the smaller a chunk is; that the same
    measure sees more than two of them in the plain computation shows that it works. (Resident memory, counted from a
    peak that is reset before.)
    """
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}  # what is freed goes back to the system at once
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, check=True, text=True, env=environment)
    _, small, large, whole = map(float, done.stdout.split())
    assert small < 0.25 * large and large < 0.5 * whole
    assert whole > 2 * 297
