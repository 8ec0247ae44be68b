"""Calls the C kernels of training: fused element-wise passes that PyTorch would do in many.

PyTorch's own element-wise operations on bfloat16 cost as much as the matrix products of a small model. The C
files are compiled by the system's `cc` when they are first needed (seconds, kept in the cache folder):
`kernel_building.py`. Without a compiler `available` is False, `why_not` says why, and callers take the plain path.
`kernel_arguments.py` checks what is handed to C.

Arrays are feature-major (see `kernels_training.c`). The kernels of decoding are in `decode_kernels.py`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foretaste.errors import ModelError
from foretaste.models.kernel_arguments import prepare
from foretaste.models.kernel_building import TYPES, build
from foretaste.models.sources import cache_folder

COLUMNS = 512
"""As in `kernels.h`."""
_reasons: dict[torch.dtype, str] = {}


@functools.cache
def matrix_unit() -> bool:
    """True if products of bfloat16 take a matrix unit (AMX): many times as fast as other arithmetic."""
    loaded = library(torch.bfloat16)
    return loaded is not None and loaded.whole_passes() == 2


def available(dtype: torch.dtype, device: torch.device) -> bool:
    """True if the kernels can be used for tensors of this type and place."""
    return device.type == "cpu" and dtype in TYPES and library(dtype) is not None


@functools.cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return the compiled kernels for a type, compiling them if they are not in the cache; None if that fails."""
    built = build(dtype, cache_folder())
    _reasons[dtype] = built.reason
    return built.library


def why_not(dtype: torch.dtype) -> str:
    """Return why there are no kernels for a type; empty if there are."""
    return "" if library(dtype) is not None else _reasons[dtype]


_prepared: dict[tuple[ctypes.CDLL, str], Callable[..., Any]] = {}


def call(name: str, like: Tensor, *arguments: Any) -> None:
    """Call a kernel: tensors and structures become pointers, ints int64, floats float.

    `like` has the type of numbers that it is compiled for.

    Raises: ModelError for an array of another type or place, one that is not contiguous or too short; or if there are
    no kernels (`why_not`).
    """
    loaded = library(like.dtype)
    if loaded is None:
        raise ModelError(f"The kernel {name!r} cannot be called: {why_not(like.dtype)}")
    prepared = _prepared.get((loaded, name))
    if prepared is None:
        prepared = _prepared[loaded, name] = prepare(getattr(loaded, name), name, like.dtype)
    prepared(*arguments)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the normed x and 1 / rms of each column. Shapes: H M, H -> H M, M."""
    out, inverse = torch.empty_like(x), torch.empty(x.shape[1])
    call("rms_norm", x, x, weight, epsilon, out, inverse, *x.shape)
    return out, inverse


def rms_norm_backward(
    x: Tensor, weight: Tensor, inverse: Tensor, gradient: Tensor, residual: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x (with `residual` added) and of the weight."""
    out, along = torch.empty_like(x), torch.empty(-(-x.shape[1] // COLUMNS), x.shape[0])
    call("rms_norm_backward", x, x, weight, inverse, gradient, residual, out, along, *x.shape)
    return out, along.sum(0).to(weight.dtype)


def swiglu(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up. Shapes: 2I M -> I M."""
    out = gate_up.new_empty(len(gate_up) // 2, gate_up.shape[1])
    call("swiglu", gate_up, gate_up, out, out.numel())
    return out


def swiglu_backward(gate_up: Tensor, gradient: Tensor) -> Tensor:
    """Turn `gate_up` into its gradient; return what `swiglu` returned."""
    out = torch.empty_like(gradient)
    call("swiglu_backward", gate_up, gate_up, gradient, out, out.numel())
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, back: bool = False) -> None:
    """Rotate by the positions, in place. Shapes: heads D M, D/2 M twice."""
    call("rotate", x, x, cos, sin, -1.0 if back else 1.0, len(x), len(cos), cos.shape[1])


def softmax(prefix: Tensor, own: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Turn raw scores into unnormalised weights; return log-sum-exps and the inverse sums, heads x B S.

    Shapes: heads P BS (P may be 0), heads B S S with keys before queries.
    """
    heads, batch, width, _ = own.shape
    lse, inverse = torch.empty(heads, batch * width), torch.empty(heads, batch * width)
    call("softmax", own, prefix, own, scale, lse, inverse, heads, prefix.shape[1], batch, width)
    return lse, inverse


def softmax_backward(
    prefix: Tensor, dprefix: Tensor, own: Tensor, down: Tensor, scale: float, lse: Tensor, delta: Tensor
) -> None:
    """Turn raw scores into probabilities and gradients of probabilities into those of raw scores, in place."""
    heads, batch, width, _ = own.shape
    sizes = heads, prefix.shape[1], batch, width
    call("softmax_backward", own, prefix, dprefix, own, down, scale, lse, delta, *sizes)


def join(far: Tensor | None, near: Tensor, inverse: Tensor | None, out: Tensor) -> None:
    """Write (far + near) * inverse to `out`. Shapes: heads D BS, heads B D S, heads BS -> heads D BS (strided)."""
    heads, batch, size, width = near.shape
    call("join", near, far, near, inverse, out, out.stride(1), heads, size, batch, width)


def part(x: Tensor, sequences: int, *, group: int = 1, turned: bool = False) -> Tensor:
    """Return the sequences of some columns apart, each head `group` times, their two sides exchanged if `turned`.

    Shapes: heads D BS (rows may be apart) -> heads * group B D S, or heads * group B S D.
    """
    heads, size, columns = x.shape
    width = columns // sequences
    out = x.new_empty(heads * group, sequences, *((width, size) if turned else (size, width)))
    call("part", x, x, x.stride(1), out, int(turned), heads, group, size, sequences, width)
    return out


def row_dot(gradient: Tensor, out: Tensor) -> Tensor:
    """Return the sum over D of their product. Shapes: heads D M twice (equal strides) -> heads M."""
    heads, size, columns = out.shape
    delta = torch.empty(heads, columns)
    call("row_dot", out, gradient, out, delta, out.stride(1), heads, size, columns)
    return delta


def score(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probabilities of the targets, entropies and log-sum-exps. Shapes: N V, N -> N, N, N."""
    logprobs, entropies, lse = torch.empty(3, len(targets)).unbind()
    call("score", logits, logits, targets, 1.0 / temperature, logprobs, entropies, lse, *logits.shape)
    return logprobs, entropies, lse


def score_backward(
    logits: Tensor,
    targets: Tensor,
    temperature: float,
    kept: tuple[Tensor, Tensor],
    gradients: tuple[Tensor, Tensor],
) -> None:
    """Turn logits into their gradient. `kept`: lse, entropies; `gradients`: of log-probabilities, of entropies."""
    call("score_backward", logits, logits, targets, 1.0 / temperature, *kept, *gradients, *logits.shape)


def transpose(x: Tensor) -> Tensor:
    """Return the transpose of a matrix, contiguous."""
    out = x.new_empty(x.shape[1], x.shape[0])
    call("transpose", x, x, out, *x.shape)
    return out
