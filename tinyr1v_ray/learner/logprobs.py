"""Log-probabilities of selected tokens without ever holding the logits of a whole sequence.

A plain cross entropy keeps [T, V] float32 logits and their softmax for the backward pass: at V = 152k, 8192 tokens
take 2 x 5 GB. Here the vocabulary projection runs over `chunk_tokens` positions at a time, in the forward pass
and once more in the backward pass, so the peak is one [chunk, V] float32 buffer (and the weight's own gradient).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _SelectedLogprobs(torch.autograd.Function):
    """logprob_t = z_t[target_t] - logsumexp(z_t), z = hidden W^T / temperature, in float32.

    Gradient: dz_t = g_t (onehot(target_t) - softmax(z_t)) / temperature.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_TH: Tensor, weight_VH: Tensor, targets_T: Tensor, temperature: float, chunk_tokens: int
    ) -> Tensor:
        logprobs_T = torch.empty(hidden_TH.shape[0], dtype=torch.float32, device=hidden_TH.device)
        normaliser_T = torch.empty_like(logprobs_T)
        for part in _chunks(hidden_TH.shape[0], chunk_tokens):
            logits_CV = _logits(hidden_TH[part], weight_VH, temperature)
            selected_C = logits_CV.gather(1, targets_T[part, None]).squeeze(1)
            largest_C = logits_CV.amax(dim=1)
            total_C = logits_CV.sub_(largest_C[:, None]).exp_().sum(dim=1)
            normaliser_T[part] = largest_C + total_C.log()
            logprobs_T[part] = selected_C - normaliser_T[part]
        ctx.save_for_backward(hidden_TH, weight_VH, targets_T, normaliser_T)
        ctx.temperature, ctx.chunk_tokens = temperature, chunk_tokens
        return logprobs_T

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        hidden_TH, weight_VH, targets_T, normaliser_T = ctx.saved_tensors
        scaled_T = grad_outputs[0] / ctx.temperature
        grad_hidden_TH = torch.empty_like(hidden_TH)
        # Several low-precision products are added up in float32, so that chunking does not cost accuracy.
        grad_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for part in _chunks(hidden_TH.shape[0], ctx.chunk_tokens):
            grad_CV = _logits(hidden_TH[part], weight_VH, ctx.temperature)
            grad_CV.sub_(normaliser_T[part, None]).exp_().mul_(-scaled_T[part, None])
            grad_CV.scatter_add_(1, targets_T[part, None], scaled_T[part, None])
            grad_CV = grad_CV.to(hidden_TH.dtype)
            grad_hidden_TH[part] = grad_CV @ weight_VH
            if grad_weight_VH is None:
                continue
            if weight_VH.dtype == torch.float32:
                grad_weight_VH.addmm_(grad_CV.T, hidden_TH[part])
            else:
                grad_weight_VH += grad_CV.T @ hidden_TH[part]
        grad_weight = None if grad_weight_VH is None else grad_weight_VH.to(weight_VH.dtype)
        return grad_hidden_TH, grad_weight, None, None, None


def _chunks(num_tokens: int, chunk_tokens: int) -> list[slice]:
    return [slice(start, start + chunk_tokens) for start in range(0, num_tokens, chunk_tokens)]


def _logits(hidden_CH: Tensor, weight_VH: Tensor, temperature: float) -> Tensor:
    """float32 [C, V], a fresh buffer that the caller may overwrite.

    A GPU writes the sums of low-precision products, which it has in float32, as they are: no second buffer, and no
    rounding of logits to steps of 0.125 from 16 on. On the CPU, which has no such product, they are rounded first.
    """
    if hidden_CH.dtype == torch.float32 or hidden_CH.is_cpu:
        logits_CV = (hidden_CH @ weight_VH.T).float()
    else:
        logits_CV = torch.mm(hidden_CH, weight_VH.T, out_dtype=torch.float32)
    return logits_CV.div_(temperature) if temperature != 1.0 else logits_CV


def selected_logprobs(
    hidden_TH: Tensor, weight_VH: Tensor, targets_T: Tensor, temperature: float, chunk_tokens: int
) -> Tensor:
    """log pi(target_t | hidden_t) at `temperature`, float32 [T]; see the module's docstring for the memory."""
    return _SelectedLogprobs.apply(hidden_TH, weight_VH, targets_T, temperature, chunk_tokens)


class SelectedLogprobHead(nn.Linear):
    """A vocabulary head that returns log-probs of given tokens instead of logits.

    It takes the place of `lm_head` and shares its weight, tied or not, so that parameter names and DeepSpeed's
    per-module gathering (ZeRO 3) stay as they are for a plain linear layer.
    """

    def __init__(self, head: nn.Linear, chunk_tokens: int) -> None:
        super().__init__(head.in_features, head.out_features, bias=False, device="meta")
        self.weight = head.weight
        self.chunk_tokens = chunk_tokens

    def forward(  # type: ignore[override]
        self, hidden_TH: Tensor, targets_T: Tensor, temperature: float
    ) -> Tensor:
        """log pi(target) at `temperature`, float32 [T]."""
        return selected_logprobs(hidden_TH, self.weight, targets_T, temperature, self.chunk_tokens)
