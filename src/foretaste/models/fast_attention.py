"""Attention of the quick training path: a shared prefix apart from each sequence's own tokens, by hand.

Queries, keys and values are feature-major (heads x D x columns): columns of a block are B sequences of S
tokens, all of which see the P tokens of the prefix, if there is one, and their own tokens up to themselves.
Scores against the prefix are one matrix product for all sequences; they are computed again in the backward
pass, where the log-sum-exp restores their softmax (as in FlashAttention, Dao et al. 2022). That is for bfloat16 where
the processor has a matrix unit; everywhere else one kernel does it all (`fused_attention.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foretaste.models import fused_attention, kernels


class Block(NamedTuple):
    """Queries, keys and values of some columns, and how many sequences they are. Views, never copied."""

    queries: Tensor
    """heads x D x columns."""
    keys: Tensor
    """key heads x D x columns."""
    values: Tensor
    sequences: int

    def own(self, x: Tensor, *, group: int = 1, turned: bool = False) -> Tensor:
        """Part the sequences of an array of columns; see `kernels.part`."""
        return kernels.part(x, self.sequences, group=group, turned=turned)


class Prefix(NamedTuple):
    """Keys and values that all sequences of a block see."""

    keys: Tensor
    """key heads x D x P."""
    values: Tensor


def _fused(dtype: torch.dtype) -> bool:
    return dtype == torch.float32 or not kernels.matrix_unit()


def attend(block: Block, prefix: Prefix | None, out: Tensor) -> Tensor:
    """Write the attention of a block's columns to `out` (heads D columns); return the log-sum-exps."""
    if _fused(out.dtype):
        return fused_attention.attend(block, prefix, out)
    group = len(block.queries) // len(block.keys)
    scale = block.queries.shape[1] ** -0.5
    far, near = _scores(block, prefix, group)
    lse, inverse = kernels.softmax(far, near, scale)
    near_out = torch.matmul(block.own(block.values, group=group), near)
    far_out = None if prefix is None else torch.bmm(_repeat(prefix.values, group), far)
    kernels.join(far_out, near_out, inverse, out)
    return lse


def attend_backward(
    block: Block, prefix: Prefix | None, out: Tensor, lse: Tensor, gradient: Tensor, into: Block
) -> Tensor | None:
    """Write the gradients of queries, keys and values to `into`; return those of the prefix's keys and values.

    Shapes: 2 key heads x D x P.
    """
    delta = kernels.row_dot(gradient, out)
    if _fused(out.dtype):
        return fused_attention.attend_backward(block, prefix, delta, lse, gradient, into)
    group = len(block.queries) // len(block.keys)
    scale = block.queries.shape[1] ** -0.5
    gradient_own = block.own(gradient)
    far, near = _scores(block, prefix, group)
    dnear = torch.matmul(block.own(block.values, group=group, turned=True), gradient_own)
    dfar = far
    if prefix is not None:
        dfar = torch.bmm(_repeat(prefix.values.transpose(1, 2), group), gradient)
    kernels.softmax_backward(far, dfar, near, dnear, scale, lse, delta)
    queries_near = torch.matmul(block.own(block.keys, group=group), dnear)
    queries_far = None if prefix is None else torch.bmm(_repeat(prefix.keys, group), dfar)
    kernels.join(queries_far, queries_near, None, into.queries)
    queries_own = block.own(block.queries)
    kernels.join(None, _sum(torch.matmul(queries_own, dnear.transpose(-1, -2)), group), None, into.keys)
    kernels.join(None, _sum(torch.matmul(gradient_own, near.transpose(-1, -2)), group), None, into.values)
    if prefix is None:
        return None
    keys = _sum(torch.bmm(block.queries, dfar.transpose(1, 2)), group)
    return torch.cat([keys, _sum(torch.bmm(gradient, far.transpose(1, 2)), group)])


def _scores(block: Block, prefix: Prefix | None, group: int) -> tuple[Tensor, Tensor]:
    """Return raw scores, keys before queries: against the prefix heads P BS, and against their own heads B S S."""
    near = torch.matmul(block.own(block.keys, group=group, turned=True), block.own(block.queries))
    if prefix is None:
        return near.new_empty(len(near), 0, block.queries.shape[2]), near
    return torch.bmm(_repeat(prefix.keys.transpose(1, 2), group), block.queries), near


def _repeat(x: Tensor, group: int) -> Tensor:
    """Give every query head of a group its key head. Shapes: key heads ... -> heads ..., contiguous."""
    return x[:, None].expand(-1, group, *x.shape[1:]).flatten(0, 1).contiguous()


def _sum(x: Tensor, group: int) -> Tensor:
    """Return the sum over the query heads of each key head, in float32 and back."""
    return x.unflatten(0, (-1, group)).sum(1, dtype=torch.float32).to(x.dtype) if group > 1 else x
