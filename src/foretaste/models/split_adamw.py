"""AdamW for bfloat16 weights, with the precision of float32 weights in two bytes more.

A float32 number is a bfloat16 number, its upper half, and 16 more bits. The upper half, rounded, is the parameter
itself; the optimiser keeps the rest, so that no second copy of the weights exists. Both moments are bfloat16: with
beta1 = 0.9 and beta2 = 0.95 a moment moves by a tenth or a twentieth of what it is off, and stands still only within
2% (4%) of where it should be, less than a micro-batch's noise. (With the usual beta2 = 0.999 it would not do.)

8 bytes a weight, gradient included, where float32 masters, moments and gradients beside a bfloat16 weight take 18.

Source: AdamW, Loshchilov & Hutter 1711.05101, algorithm 2; split weights, Kalamkar et al. 2005.04680 (Split-SGD-BF16).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foretaste.models import kernels

PIECE = 1 << 22
"""Numbers that the plain path works on at a time."""
_KERNEL_CHUNK = 4096
"""As CHUNK in `kernels.h`."""


class _Adam(ctypes.Structure):
    """As `Adam` in `kernels_optimizer.c`."""

    _fields_ = tuple((name, ctypes.c_float) for name in ("clip", "beta1", "beta2", "rate", "root", "epsilon", "kept"))


class _Moments(NamedTuple):
    first: Tensor
    second: Tensor


class SplitAdamW:
    """Owns the lower halves, the moments, and the sums of gradients of some bfloat16 parameters."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        betas: tuple[float, float],
        weight_decay: float,
        epsilon: float = 1e-8,
    ) -> None:
        """Begin with lower halves of 0: the weights are what they are. Moments are made at the first step."""
        self.parameters = list(parameters)
        self.betas, self.weight_decay, self.epsilon = betas, weight_decay, epsilon
        self._low = [torch.zeros_like(parameter, dtype=torch.int16) for parameter in self.parameters]
        self._moments: list[_Moments | None] = [None] * len(self.parameters)
        self._sums: list[Tensor | None] = [None] * len(self.parameters)
        self._steps = [0] * len(self.parameters)

    def accumulate(self) -> None:
        """Add the parameters' gradients to the sums, in float32, and clear them."""
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                before = self._sums[index]
                self._sums[index] = parameter.grad.float() if before is None else before.add_(parameter.grad)
                parameter.grad = None

    def norm(self) -> float | None:
        """Return the Euclidean norm of all gradients; None if there is none."""
        self._settle()
        found = [_squared(gradient) for _, gradient in self._gradients()]
        return float(torch.stack(found).sum().sqrt()) if found else None

    def step(self, rate: float, *, clip: float) -> None:
        """Update the weights that have a gradient, multiplied by `clip`."""
        self._settle()
        for index, gradient in self._gradients():
            parameter, low = self.parameters[index], self._low[index]
            moments = self._moments[index]
            if moments is None:
                moments = _Moments(torch.zeros_like(parameter.data), torch.zeros_like(parameter.data))
                self._moments[index] = moments
            self._steps[index] += 1
            one, two = (1 - beta ** self._steps[index] for beta in self.betas)
            kept = 1 - rate * self.weight_decay
            adam = _Adam(clip, *self.betas, rate / one, two**-0.5, self.epsilon, kept)
            arrays = parameter.data, low, *moments
            if kernels.available(parameter.dtype, parameter.device):
                small = gradient.dtype == torch.bfloat16
                given = (gradient, None) if small else (None, gradient)
                kernels.call("adamw", parameter, *arrays, *given, adam, parameter.numel())
            else:
                for weight, *others in zip(*(a.view(-1).split(PIECE) for a in (*arrays, gradient)), strict=True):
                    _plain(adam, weight, *others)
            torch.autograd.graph.increment_version(parameter)

    def clear(self) -> None:
        """Forget all gradients."""
        self._sums = [None] * len(self.parameters)
        for parameter in self.parameters:
            parameter.grad = None

    def weights(self) -> list[Tensor]:
        """Return the weights in float32, computed anew."""
        return [_join(parameter.data, low) for parameter, low in zip(self.parameters, self._low, strict=True)]

    def state(self) -> dict[str, Any]:
        """Return what `load` takes; the tensors are those in use."""
        return {
            "weights": [parameter.data for parameter in self.parameters],
            "low": self._low,
            "moments": [None if moments is None else tuple(moments) for moments in self._moments],
            "steps": list(self._steps),
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state, the weights included."""
        for parameter, low, saved, saved_low in zip(
            self.parameters, self._low, state["weights"], state["low"], strict=True
        ):
            parameter.copy_(saved)
            low.copy_(saved_low)
        self._moments = [pair and _Moments(*(one.clone() for one in pair)) for pair in state["moments"]]
        self._steps = list(state["steps"])

    def _settle(self) -> None:
        """Where there is a sum, the gradient goes there too."""
        for parameter, before in zip(self.parameters, self._sums, strict=True):
            if before is not None and parameter.grad is not None:
                before.add_(parameter.grad)
                parameter.grad = None
            elif parameter.grad is not None and not parameter.grad.is_contiguous():
                parameter.grad = parameter.grad.contiguous()

    def _gradients(self) -> Iterator[tuple[int, Tensor]]:
        for index, (parameter, before) in enumerate(zip(self.parameters, self._sums, strict=True)):
            gradient = parameter.grad if before is None else before
            if gradient is not None:
                yield index, gradient


def _squared(gradient: Tensor) -> Tensor:
    """Return the sum of squares, float64."""
    if kernels.available(gradient.dtype, gradient.device) and gradient.dtype == torch.bfloat16:
        sums = torch.empty(-(-gradient.numel() // _KERNEL_CHUNK))
        kernels.call("squares", gradient, gradient, sums, gradient.numel())
        return sums.sum(dtype=torch.float64)
    return torch.linalg.vector_norm(gradient, dtype=torch.float32).double() ** 2


def _join(upper: Tensor, low: Tensor) -> Tensor:
    """Return the float32 numbers of two halves."""
    return ((upper.view(torch.int16).to(torch.int32) << 16) + low).view(torch.float32)


def _plain(adam: _Adam, weight: Tensor, low: Tensor, first: Tensor, second: Tensor, gradient: Tensor) -> None:
    """Do what the kernel does, by PyTorch."""
    slope = gradient.float() * adam.clip
    m = first.float().mul_(adam.beta1).add_(slope, alpha=1 - adam.beta1)
    v = second.float().mul_(adam.beta2).addcmul_(slope, slope, value=1 - adam.beta2)
    first.copy_(m)
    second.copy_(v)
    whole = _join(weight, low) * adam.kept
    bits = whole.sub_(m.mul_(adam.rate).div_(v.sqrt_().mul_(adam.root).add_(adam.epsilon))).view(torch.int32)
    rest = ((bits & 0xFFFF) ^ 0x8000) - 0x8000
    low.copy_(rest)
    weight.view(torch.int16).copy_((bits - rest) >> 16)
