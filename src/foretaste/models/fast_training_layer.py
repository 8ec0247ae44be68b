"""One decoder layer of the quick training path: its forward pass and its gradient, written out by hand.

    normed = norm(x); q, k, v = rotate(W normed); middle = x + W_out attention(q, k, v)
    y = middle + W_down (silu(W_gate norm(middle)) * W_up norm(middle))

Everything is feature-major (see `fast_training.py`). What the backward pass needs is kept, and given up as it is
used: a layer's backward pass can run once. Attention is in `fast_attention.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foretaste.models import kernels
from foretaste.models.fast_attention import Block, Prefix, attend, attend_backward
from foretaste.models.fast_layout import Node


class Layout(NamedTuple):
    """Columns of a pass (see `fast_layout.Arrangement`) and the shape of its heads; the same for every layer."""

    nodes: tuple[Node, ...]
    shared: int
    end: int
    heads: int
    key_heads: int
    cos: Tensor
    sin: Tensor
    """D/2 x M."""
    epsilon: float


def dense(layer: Any) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a linear layer, with gradient; a LoRA adapter is added in."""
    base = getattr(layer, "base_layer", layer)
    weight = base.weight
    for adapter in getattr(layer, "active_adapters", ()):
        weight = weight + layer.get_delta_weight(adapter).to(weight.dtype)
    return weight, base.bias


def run_layer(layer: Any, x: Tensor, layout: Layout) -> Tensor:
    """Run a transformers decoder layer. Shapes: H M -> H M."""
    attention, mlp = layer.self_attn, layer.mlp
    linears = (
        *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
        *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
    )
    weights, biases = zip(*map(dense, linears), strict=True)
    norms = (layer.input_layernorm.weight, layer.post_attention_layernorm.weight)
    head_norms = (getattr(getattr(attention, name, None), "weight", None) for name in ("q_norm", "k_norm"))
    return _Layer.apply(x, layout, *weights, *biases, *norms, *head_norms)  # pyright: ignore[reportReturnType]


class _Weights(NamedTuple):
    matrices: Sequence[Tensor]
    """Query, key, value, out, gate, up, down."""
    biases: Sequence[Tensor | None]
    norms: Sequence[Tensor]
    head_norms: Sequence[Tensor | None]
    """Of queries and keys (Qwen3)."""

    @classmethod
    def of(cls, flat: Sequence[Any]) -> _Weights:
        return cls(flat[:7], flat[7:14], flat[14:16], flat[16:18])


class _Saved(NamedTuple):
    """What norms return is not kept: they are computed again in little time, and would be a sixth of all this."""

    x: Tensor
    qkv: Tensor
    """heads + 2 key heads, D, M: rotated."""
    raw: Tensor | None
    """Queries and keys before their own norms, and those norms' inverse."""
    raw_inverse: Tensor | None
    out: Tensor
    """heads, D, M."""
    lse: list[Tensor]
    middle: Tensor
    gate_up: Tensor


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: Layout, *flat: Any) -> Tensor:
        weights = _Weights.of(flat)
        normed, _ = kernels.rms_norm(x, weights.norms[0], layout.epsilon)
        qkv = _linears(weights, (0, 1, 2), normed).view(layout.heads + 2 * layout.key_heads, -1, x.shape[1])
        raw, raw_inverse = _norm_heads(qkv, layout, weights)
        both = layout.heads + layout.key_heads
        kernels.rotate(qkv[:both], layout.cos, layout.sin)
        out = torch.empty_like(qkv[: layout.heads])
        lse = _attention(qkv, layout, out)
        middle = torch.addmm(x, weights.matrices[3], out.view(-1, x.shape[1]))
        _add_bias(middle, weights.biases[3])
        normed, _ = kernels.rms_norm(middle, weights.norms[1], layout.epsilon)
        gate_up = _linears(weights, (4, 5), normed)
        y = torch.addmm(middle, weights.matrices[6], kernels.swiglu(gate_up))
        _add_bias(y, weights.biases[6])
        ctx.saved = _Saved(x, qkv, raw, raw_inverse, out, lse, middle, gate_up)
        ctx.layout, ctx.flat = layout, flat
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        saved, layout, weights = ctx.saved, ctx.layout, _Weights.of(ctx.flat)
        if saved is None:
            raise RuntimeError("the quick training path keeps its activations for one backward pass only")
        ctx.saved = None
        found: list[Tensor | None] = [None] * 18
        needed = ctx.needs_input_grad[2:]
        dy = gradients[0].contiguous()

        def linear(number: int, gradient: Tensor, entered: Tensor) -> None:
            if needed[number]:
                found[number] = torch.mm(gradient, entered.t())
            if needed[7 + number]:
                found[7 + number] = gradient.sum(1, dtype=torch.float32).to(gradient.dtype)

        gated = kernels.swiglu_backward(saved.gate_up, _back(weights.matrices[6], dy))
        linear(6, dy, gated)
        normed, inverse = kernels.rms_norm(saved.middle, weights.norms[1], layout.epsilon)
        for number, gradient in zip((4, 5), saved.gate_up.chunk(2), strict=True):
            linear(number, gradient, normed)
        entering = _back_all(weights.matrices[4:6], saved.gate_up)
        dmiddle, found[15] = kernels.rms_norm_backward(saved.middle, weights.norms[1], inverse, entering, dy)
        linear(3, dmiddle, saved.out.view(-1, dy.shape[1]))
        dout = _back(weights.matrices[3], dmiddle).view_as(saved.out)
        dqkv = _attention_backward(saved, layout, dout)
        kernels.rotate(dqkv[: layout.heads + layout.key_heads], layout.cos, layout.sin, back=True)
        found[16], found[17] = _norm_heads_backward(saved, dqkv, layout, weights)
        flat = dqkv.view(-1, dy.shape[1])
        sizes = [len(matrix) for matrix in weights.matrices[:3]]
        normed, inverse = kernels.rms_norm(saved.x, weights.norms[0], layout.epsilon)
        for number, gradient in enumerate(flat.split(sizes)):
            linear(number, gradient, normed)
        entering = _back_all(weights.matrices[:3], flat)
        dx, found[14] = kernels.rms_norm_backward(saved.x, weights.norms[0], inverse, entering, dmiddle)
        return dx, None, *(value if need else None for value, need in zip(found, needed, strict=True))


def _linears(weights: _Weights, numbers: Sequence[int], x: Tensor) -> Tensor:
    """Return several linear layers of the same input, one below the other."""
    matrices = [weights.matrices[number] for number in numbers]
    out = x.new_empty(sum(map(len, matrices)), x.shape[1])
    for number, part in zip(numbers, out.split([len(matrix) for matrix in matrices]), strict=True):
        torch.mm(weights.matrices[number], x, out=part)
        _add_bias(part, weights.biases[number])
    return out


def _add_bias(y: Tensor, bias: Tensor | None) -> None:
    if bias is not None:
        y.add_(bias[:, None])


def _back(matrix: Tensor, gradient: Tensor) -> Tensor:
    """Return W' gradient, W transposed in memory first."""
    return torch.mm(kernels.transpose(matrix), gradient)


def _back_all(matrices: Sequence[Tensor], gradient: Tensor) -> Tensor:
    """Return the sum of W' gradient over layers of the same input."""
    parts = gradient.split([len(matrix) for matrix in matrices])
    total = _back(matrices[0], parts[0])
    for matrix, part in zip(matrices[1:], parts[1:], strict=True):
        total.addmm_(kernels.transpose(matrix), part)
    return total


def _block(qkv: Tensor, layout: Layout, node: Node) -> Block:
    """Return views of a node's queries, keys and values."""
    queries, keys, values = qkv[:, :, node.columns].split([layout.heads, layout.key_heads, layout.key_heads])
    return Block(queries, keys, values, node.sequences)


def _before(qkv: Tensor, layout: Layout, node: Node) -> Prefix | None:
    """Return the keys and values of what a node's sequences go on from."""
    if not node.before:
        return None
    ranges = [qkv[layout.heads :, :, columns] for columns in node.before]
    both = ranges[0] if len(ranges) == 1 else torch.cat(ranges, dim=2)
    return Prefix(*both.split(layout.key_heads))


def _attention(qkv: Tensor, layout: Layout, out: Tensor) -> list[Tensor]:
    out[:, :, layout.end :] = 0
    return [
        attend(_block(qkv, layout, node), _before(qkv, layout, node), out[:, :, node.columns]) for node in layout.nodes
    ]


def _attention_backward(saved: _Saved, layout: Layout, dout: Tensor) -> Tensor:
    dqkv = torch.empty_like(saved.qkv)
    dqkv[:, :, layout.end :] = 0
    # Many nodes may go on from the same columns: what they send there is summed up in float32.
    sent = torch.zeros(2 * layout.key_heads, dqkv.shape[1], layout.shared)
    for node, lse in zip(layout.nodes, saved.lse, strict=True):
        block, into, at = _block(saved.qkv, layout, node), _block(dqkv, layout, node), node.columns
        before = _before(saved.qkv, layout, node)
        found = attend_backward(block, before, saved.out[:, :, at], lse, dout[:, :, at], into)
        if found is not None:
            widths = [columns.stop - columns.start for columns in node.before]
            for columns, part in zip(node.before, found.split(widths, dim=2), strict=True):
                sent[:, :, columns] += part
    dqkv[layout.heads :, :, : layout.shared] += sent
    return dqkv


def _norm_heads(qkv: Tensor, layout: Layout, weights: _Weights) -> tuple[Tensor | None, Tensor | None]:
    """Norm each head's queries and keys in place, where the model does; return what they were, and 1 / rms."""
    if weights.head_norms[0] is None:
        return None, None
    both = layout.heads + layout.key_heads
    raw, inverse = qkv[:both].clone(), torch.empty(both, qkv.shape[2])
    for head in range(both):
        weight = weights.head_norms[head >= layout.heads]
        assert weight is not None
        qkv[head], inverse[head] = kernels.rms_norm(raw[head], weight, layout.epsilon)
    return raw, inverse


def _norm_heads_backward(
    saved: _Saved, dqkv: Tensor, layout: Layout, weights: _Weights
) -> tuple[Tensor | None, Tensor | None]:
    if saved.raw is None or saved.raw_inverse is None:
        return None, None
    sums: list[list[Tensor]] = [[], []]
    for head in range(layout.heads + layout.key_heads):
        kind = int(head >= layout.heads)
        weight = weights.head_norms[kind]
        assert weight is not None
        dqkv[head], along = kernels.rms_norm_backward(
            saved.raw[head], weight, saved.raw_inverse[head], dqkv[head], None
        )
        sums[kind].append(along)
    return torch.stack(sums[0]).sum(0), torch.stack(sums[1]).sum(0)
