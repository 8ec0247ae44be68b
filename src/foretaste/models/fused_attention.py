"""Attention of the quick training path as one kernel that keeps no scores (`kernels_training_attention.c`).

Heads are narrow and sequences short: their matrix products are soon done, and what is left is starting them, and
writing and reading the scores, half of which nobody sees. Arithmetic is float32, whatever the arrays are.
`fast_attention.py` says what the arguments are, and does the same by products of bfloat16.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foretaste.models import kernels

if TYPE_CHECKING:
    from foretaste.models.fast_attention import Block, Prefix


class _Attention(ctypes.Structure):
    """As `Attention` in `kernels_training_attention.c`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "prefix_k", "prefix_v")),
        *((name, ctypes.c_int64) for name in ("stride", "prefix_stride", "heads", "K", "D", "P", "B", "S")),
        ("scale", ctypes.c_float),
    )


def attend(block: Block, prefix: Prefix | None, out: Tensor) -> Tensor:
    """Write the attention of a block's columns to `out`, whose rows are as far apart; return the log-sum-exps."""
    lse = torch.empty(len(block.queries), block.queries.shape[2])
    kernels.call("attend_training", out, _described(block, prefix), out, lse)
    return lse


def attend_backward(
    block: Block, prefix: Prefix | None, delta: Tensor, lse: Tensor, gradient: Tensor, into: Block
) -> Tensor | None:
    """Write the gradients to `into`; return those of the prefix's keys and values, 2 key heads x D x P.

    `delta`: the sum over D of the output and its `gradient`, heads x columns. All rows are as far apart as the block's.
    """
    heads, size, _ = block.keys.shape
    parts = min(block.sequences, torch.get_num_threads())  # each thread adds up the prefix's gradients on its own
    found = torch.empty(parts, 2 * heads, size, prefix.keys.shape[2] if prefix else 0)
    into_three = (into.queries, into.keys, into.values)
    described = _described(block, prefix)
    kernels.call("attend_training_backward", gradient, described, gradient, lse, delta, *into_three, found, parts)
    return found.sum(0) if prefix else None


def _described(block: Block, prefix: Prefix | None) -> _Attention:
    heads, size, columns = block.queries.shape
    far = (prefix.keys.data_ptr(), prefix.values.data_ptr()) if prefix else (None, None)
    return _Attention(
        *(x.data_ptr() for x in (block.queries, block.keys, block.values)),
        *far,
        block.queries.stride(1),
        prefix.keys.stride(1) if prefix else 0,
        heads,
        len(block.keys),
        size,
        prefix.keys.shape[2] if prefix else 0,
        block.sequences,
        columns // block.sequences,
        size**-0.5,
    )
