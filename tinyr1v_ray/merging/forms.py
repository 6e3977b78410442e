"""Two ways to compute AMM's gradient without an autograd graph; both give the same numbers, at different cost.

With c_i = 1/||tau_i||^2, C = sum_i w_i c_i tau_i^T tau_i and D = sum_i w_i c_i tau_i tau_i^T tau_i the loss
L(m) = sum_i w_i c_i ||(m - tau_i) tau_i^T||_F^2 has the gradient g = 2(mC - D), and the penalty R = <g, Qg> with
Qg = nu g - sum_i a_i tau_i has, for fixed weights, the gradient 4 (Qg) C.

Gram form: keeps G_i = tau_i^T tau_i [in, in]; a product costs 2 out in^2 flops however many experts there are.
Thin form: keeps X, the stacked right factors of the task vectors [p, in] (tau_i itself, p = K out; A_i of a LoRA
adapter, p = sum of ranks) and never an in x in matrix. All of a step's coefficients live in [out, p].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from tinyr1v_ray.merging.task_vectors import LowRank, Vectors, dense, stacked

FormName = Literal["gram", "thin"]


@dataclass(frozen=True)
class Penalty:
    """R(m) = <g, Qg>, Qg = nu g - sum_i a_i tau_i, a = A b, b_i = <g, tau_i>.

    per_expert: nu = K, A = diag(1/||tau_i||^2) [R]. span: nu = 1, A = the pseudo-inverse of <tau_i, tau_j> [R].
    """

    nu: float
    solve_KK: Tensor


class Form(Protocol):
    """What a solver asks of a form. `observe` comes first in a step; the other calls are about that m."""

    def observe(self, merged: Tensor) -> Tensor:
        """<m, tau_i> for every expert, [K]."""
        ...

    def gradient(self, weights_K: Tensor) -> tuple[Tensor, Tensor]:
        """(dL/dm [out, in], L) at the observed m. The tensor is a buffer, overwritten by the next call."""
        ...

    def penalised_gradient(
        self, weights_K: Tensor, penalty: Penalty, strength: Tensor | None, relative: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(d(L + lambda R)/dm, L, lambda). `strength` None: lambda = relative * L/R is fixed here."""
        ...


def fixed_strength(loss: Tensor, whole: Tensor, removed: Tensor, relative: float) -> Tensor:
    """lambda = projection_weight * L_0 / R_0 with R_0 = whole - removed; 0 where R_0 is 0 up to rounding."""
    penalty = whole - removed
    counts = penalty > 64 * torch.finfo(whole.dtype).eps * whole
    return torch.where(counts, relative * loss / penalty, torch.zeros_like(loss))


class GramForm:
    """G_i [in, in] and tau_i G_i [out, in] per expert; combined per step, or once when the weights never change."""

    def __init__(self, vectors_K: Vectors, scales_K: Tensor) -> None:
        """`scales_K` is c_i = 1/||tau_i||^2."""
        self._tau = stacked(vectors_K)
        num, rows, columns = self._tau.shape
        self._scales_K = scales_K
        self._gram = self._tau.new_empty(num, columns, columns)
        self._cubic = torch.empty_like(self._tau)
        for tau, gram, cubic in zip(self._tau, self._gram, self._cubic, strict=True):
            torch.mm(tau.T, tau, out=gram)
            torch.mm(tau, gram, out=cubic)
        self._quartic_K = torch.stack([_dot(t, c) for t, c in zip(self._tau, self._cubic, strict=True)])
        self._curvature = self._tau.new_empty(columns, columns)
        self._gradient = self._tau.new_empty(rows, columns)
        self._second: Tensor | None = None
        self._merged = self._gradient

    def observe(self, merged: Tensor) -> Tensor:
        self._merged = merged
        return torch.mv(self._tau.view(len(self._tau), -1), merged.view(-1))

    def _half_gradient(self, weights_K: Tensor) -> Tensor:
        """Fills the buffer with mC - D and returns L."""
        scaled_K = weights_K * self._scales_K
        num = len(scaled_K)
        torch.mv(self._gram.view(num, -1).T, scaled_K, out=self._curvature.view(-1))
        torch.mm(self._merged, self._curvature, out=self._gradient)
        quadratic = _dot(self._merged, self._gradient)
        self._gradient.view(-1).addmv_(self._cubic.view(num, -1).T, scaled_K, alpha=-1)
        # <m, D> = <m, mC> - <m, mC - D>, so the loss costs two dot products
        linear = quadratic - _dot(self._merged, self._gradient)
        return quadratic - 2 * linear + torch.dot(scaled_K, self._quartic_K)

    def gradient(self, weights_K: Tensor) -> tuple[Tensor, Tensor]:
        loss = self._half_gradient(weights_K)
        return self._gradient.mul_(2), loss

    def penalised_gradient(
        self, weights_K: Tensor, penalty: Penalty, strength: Tensor | None, relative: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        gradient, loss = self.gradient(weights_K)
        if self._second is None:
            self._second = torch.empty_like(gradient)
        flat_tau = self._tau.view(len(weights_K), -1)
        along_K = torch.mv(flat_tau, gradient.view(-1))
        coefficients_K = penalty.solve_KK @ along_K
        if strength is None:
            whole = penalty.nu * _dot(gradient, gradient)
            strength = fixed_strength(loss, whole, torch.dot(along_K, coefficients_K), relative)
        torch.mul(gradient, penalty.nu, out=self._second)
        self._second.view(-1).addmv_(flat_tau.T, coefficients_K, alpha=-1)
        self._second.mul_(4 * strength)
        gradient.addmm_(self._second, self._curvature)
        return gradient, loss, strength


def is_wide(rows: int, columns: int) -> bool:
    """Whether two products with tau tau^T [out, out] cost less than one with tau^T tau [in, in]."""
    return 2 * rows < columns


class FrozenGramForm:
    """L for weights that never change: C [in, in] and D [out, in] alone, one product per step."""

    def __init__(self, vectors_K: Vectors, scaled_K: Tensor) -> None:
        """`scaled_K` is w_i c_i. Experts are taken one after the other, so that one product of two is held at a time.

        tau tau^T tau comes from whichever of tau^T tau and tau tau^T costs less; both have the same norm.
        """
        rows, columns = vectors_K[0].shape
        self.curvature = vectors_K[0].new_zeros(columns, columns)
        self.linear = vectors_K[0].new_zeros(rows, columns)
        self._constant = scaled_K.new_zeros(())
        for index, vector in enumerate(vectors_K):
            tau = dense(vector)
            scale = float(scaled_K[index])
            if is_wide(rows, columns):
                product = tau @ tau.T
                self.curvature.addmm_(tau.T, tau, alpha=scale)
                self.linear.addmm_(product, tau, alpha=scale)
            else:
                product = tau.T @ tau
                self.curvature.add_(product, alpha=scale)
                self.linear.addmm_(tau, product, alpha=scale)
            self._constant += scale * _dot(product, product)
        self._gradient = torch.empty_like(self.linear)

    def at(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        """(dL/dm, L) at m; the tensor is a buffer."""
        torch.mm(merged, self.curvature, out=self._gradient)
        self._gradient.sub_(self.linear)
        # <m, mC> - 2 <m, D> = <m, mC - D> - <m, D>
        loss = _dot(merged, self._gradient) - _dot(merged, self.linear) + self._constant
        return self._gradient.mul_(2), loss


class ThinForm:
    """X [p, in] and K = X X^T [p, p]; tau_i = L_i X_i with L_i = 1 (dense) or the adapter's left factor."""

    def __init__(self, vectors_K: Vectors, scales_K: Tensor, with_penalty: bool) -> None:
        rows = vectors_K[0].shape[0]
        self._scales_K = scales_K
        self._lefts = [vector.left if isinstance(vector, LowRank) else None for vector in vectors_K]
        self._stack = _right_factors(vectors_K)
        sizes = [rows if left is None else left.shape[1] for left in self._lefts]
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        self._blocks = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self._metrics = [None if left is None else left.T @ left for left in self._lefts]
        self._owners = torch.repeat_interleave(torch.tensor(sizes)).to(scales_K.device)
        self._products, self._lifted = self._stack.new_empty(0), self._stack.new_empty(0)
        if with_penalty:
            self._products = self._stack @ self._stack.T
            self._lifted = torch.stack(
                [_lift(left, self._products[block]) for left, block in zip(self._lefts, self._blocks, strict=True)]
            ).view(len(sizes), -1)
            own = [self._products[block, block] for block in self._blocks]
        else:
            own = [self._stack[block] @ self._stack[block].T for block in self._blocks]
        self._target = torch.cat([_lift(left, gram) for left, gram in zip(self._lefts, own, strict=True)], dim=1)
        self._projected = torch.empty_like(self._target)
        self._coefficients = torch.empty_like(self._target)
        self._seen = torch.empty_like(self._target) if with_penalty else self._products
        self._gradient = self._stack.new_empty(rows, self._stack.shape[1])

    def observe(self, merged: Tensor) -> Tensor:
        """m X^T is kept for the gradient; <m, tau_i> = <m X_i^T, L_i> comes with it for nothing."""
        torch.mm(merged, self._stack.T, out=self._projected)
        parts = [
            self._projected[:, block].trace() if left is None else (self._projected[:, block] * left).sum()
            for left, block in zip(self._lefts, self._blocks, strict=True)
        ]
        return torch.stack(parts)

    def _weigh(self, columns: Tensor, scaled_K: Tensor, out: Tensor) -> Tensor:
        """columns @ W with W = blockdiag(w_i c_i L_i^T L_i); `out` may be the columns."""
        torch.mul(columns, scaled_K[self._owners], out=out)
        for metric, block in zip(self._metrics, self._blocks, strict=True):
            if metric is not None:
                out[:, block] = out[:, block] @ metric
        return out

    def _half_coefficients(self, weights_K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(Z, L, w c) with mC - D = Z X."""
        scaled_K = weights_K * self._scales_K
        residual = self._projected.sub_(self._target)
        coefficients = self._weigh(residual, scaled_K, self._coefficients)
        return coefficients, _dot(coefficients, residual), scaled_K

    def gradient(self, weights_K: Tensor) -> tuple[Tensor, Tensor]:
        coefficients, loss, _ = self._half_coefficients(weights_K)
        return torch.mm(coefficients.mul_(2), self._stack, out=self._gradient), loss

    def penalised_gradient(
        self, weights_K: Tensor, penalty: Penalty, strength: Tensor | None, relative: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """g = H X, (Qg) X^T = nu H K - sum_i a_i tau_i X^T, and the whole gradient is (H + 4 lambda (Qg) X^T W) X."""
        coefficients, loss, scaled_K = self._half_coefficients(weights_K)
        coefficients.mul_(2)
        seen = torch.mm(coefficients, self._products, out=self._seen)
        along_K = torch.mv(self._lifted, coefficients.view(-1))
        combination_K = penalty.solve_KK @ along_K
        if strength is None:
            whole = penalty.nu * _dot(seen, coefficients)
            strength = fixed_strength(loss, whole, torch.dot(along_K, combination_K), relative)
        seen.mul_(penalty.nu).view(-1).addmv_(self._lifted.T, combination_K, alpha=-1)
        seen.mul_(4 * strength)
        coefficients.add_(self._weigh(seen, scaled_K, seen))
        return torch.mm(coefficients, self._stack, out=self._gradient), loss, strength


def _right_factors(vectors_K: Vectors) -> Tensor:
    """X [p, in]; a view where the task vectors already lie in one tensor."""
    if isinstance(vectors_K, Tensor):
        return vectors_K.view(-1, vectors_K.shape[-1])
    return torch.cat([vector.right if isinstance(vector, LowRank) else vector for vector in vectors_K])


def _lift(left: Tensor | None, block: Tensor) -> Tensor:
    return block if left is None else left @ block


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return torch.dot(first.reshape(-1), second.reshape(-1))
