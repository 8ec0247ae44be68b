"""Layers of the quick decode path in one call (`kernels_pass.c`), for processors with bfloat16 products of their own.

That is a matrix unit (AMX), or vector instructions for pairs of bfloat16 (AVX-512 BF16); packed weights are the same.

Between two products of a small model, starting the next one costs as much as the product itself: here threads are
started once for many layers, and weights are read ahead from memory while the panel before them is multiplied.

Shape letters: N tokens of a pass, B rows, H hidden size, I inner size, V vocabulary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foretaste.models import kernels
from foretaste.models.critic import decoder_layers
from foretaste.models.fast_cache import Cache
from foretaste.models.fast_layers import Pass, merged
from foretaste.models.kernels import call

if TYPE_CHECKING:
    from foretaste.models.actor_critic import ActorCritic

TILE = 32
"""Every size must be a multiple of it; as PANEL in `kernels_matrix.c`."""


def supports(config: Any, head_size: int, weight: Tensor) -> bool:
    """True if this machine has such products and the sizes of a decoder fill the panels."""
    sizes = config.hidden_size, config.intermediate_size, config.vocab_size, head_size
    if weight.dtype != torch.bfloat16 or any(size % TILE for size in sizes):
        return False
    loaded = kernels.library(weight.dtype)
    return loaded is not None and bool(loaded.whole_passes())


class _Pass(ctypes.Structure):
    """As `Pass` in `kernels_pass.c`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "wanted", "hidden", "inner", "heads", "key_heads")),
        *((name, ctypes.c_int64) for name in ("size", "slots", "cached")),
        *((name, ctypes.c_void_p) for name in ("rows", "places", "parents", "inherited", "last", "cos", "sin")),
        *((name, ctypes.c_void_p) for name in ("qkv", "left", "gated")),
        ("epsilon", ctypes.c_float),
    )


class Panels:
    """Weights of linear layers of the same input, as the right operand of a product."""

    def __init__(self, layers: Sequence[Any], room: Tensor, *, by_turns: bool = False) -> None:
        """Lie in `room`. `by_turns`: two layers, 16 outputs of each in a panel; else one below the other."""
        self._outputs = [layer.out_features for layer in layers]
        self._by_turns = by_turns
        self.weight = room.view(sum(self._outputs), layers[0].in_features)
        self.bias: Tensor | None = None
        self.refresh(layers)

    def refresh(self, layers: Sequence[Any]) -> None:
        """Copy the weights (LoRA adapters added in) into the memory that they had."""
        dense = [merged(layer) for layer in layers]
        weights = [weight.contiguous() for weight, _ in dense]
        if self._by_turns:
            _pack(weights[0], weights[1], self.weight, step=TILE // 2)
        else:
            for weight, part in zip(weights, self.weight.split(self._outputs), strict=True):
                _pack(weight, weight[TILE // 2 :], part, step=TILE)
        biases = [bias for _, bias in dense]
        if any(bias is not None for bias in biases):
            zeros = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)]
            self.bias = torch.stack([b.view(-1, TILE // 2) for b in zeros], 1) if self._by_turns else torch.cat(zeros)


def _pack(low: Tensor, high: Tensor, packed: Tensor, *, step: int) -> None:
    call("pack", packed, low, high, packed, len(packed) // TILE, step, packed.shape[1])


class PackedLayers:
    """Implements `fast_layers.Layers`."""

    def __init__(self, config: Any) -> None:
        """Hold no weights yet."""
        self._config = config
        self._panels: list[dict[str, Panels]] = []

    def refresh(self, model: ActorCritic) -> None:
        """See `Layers`."""
        layers = [layer for decoder in (model.decoder, model.critic.decoder) for layer in decoder_layers(decoder)]
        linears = [*(_linears(layer) for layer in layers), {"head": [model.language_model.get_output_embeddings()]}]
        if self._panels:
            for group, panels in zip(linears, self._panels, strict=True):
                for name, members in group.items():
                    panels[name].refresh(members)
        else:
            self._panels = _panels(linears, model.decoder.get_input_embeddings().weight)
        self._head = self._panels[-1]["head"]
        self._norm = model.decoder.norm.weight.detach()
        rows = [_pointers(layer, panels) for layer, panels in zip(layers, self._panels[:-1], strict=True)]
        self._table = torch.tensor(rows, dtype=torch.long)

    def forget(self) -> None:
        """See `Layers`."""
        self._panels = []
        del self._head

    def run(self, numbers: range, x: Tensor, plan: Pass, cache: Cache, *, last_only: bool = False) -> Tensor:
        """See `Layers`. Changes x."""
        if not numbers:
            return x
        config, keys, values = self._config, cache.keys[numbers[0]], cache.values[numbers[0]]
        heads, key_heads, size = config.num_attention_heads, values.shape[1], values.shape[3]
        tokens, hidden = x.shape
        last = x.new_empty(len(plan.last_B), hidden) if last_only else None
        qkv = x.new_empty(tokens, (heads + 2 * key_heads) * size)
        left = x.new_empty(_padded(tokens), max(hidden, heads * size))
        gated = x.new_empty(_padded(tokens), config.intermediate_size)
        sizes = tokens, len(plan.last_B), hidden, config.intermediate_size, heads, key_heads, size, values.shape[2]
        arrays = *plan.places, *plan.tree, plan.last_B, plan.cos, plan.sin, qkv, left, gated
        given = _Pass(*sizes, values.numel(), *(array.data_ptr() for array in arrays), config.rms_norm_eps)
        call("run_layers", x, self._table[numbers[0] :], given, keys, values, x, last, len(numbers))
        return x if last is None else last

    def logits(self, x: Tensor) -> Tensor:
        """See `Layers`."""
        rows, hidden = x.shape
        logits = x.new_empty(rows, len(self._head.weight))
        left = x.new_empty(_padded(rows), hidden)
        weights = self._norm, self._head.weight, self._head.bias
        call("run_head", x, x, *weights, self._config.rms_norm_eps, left, logits, rows, hidden, logits.shape[1])
        return logits


def _linears(layer: Any) -> dict[str, list[Any]]:
    attention, mlp = layer.self_attn, layer.mlp
    return {
        "qkv": [attention.q_proj, attention.k_proj, attention.v_proj],
        "out": [attention.o_proj],
        "gate_up": [mlp.gate_proj, mlp.up_proj],
        "down": [mlp.down_proj],
    }


def _panels(linears: Sequence[dict[str, list[Any]]], like: Tensor) -> list[dict[str, Panels]]:
    """Lay out all weights in one piece of memory: the system gives big ones big pages, which are read faster."""
    sizes = [sum(one.in_features * one.out_features for one in found) for group in linears for found in group.values()]
    room = iter(like.new_empty(sum(sizes)).split(sizes))
    return [
        {name: Panels(found, next(room), by_turns=name == "gate_up") for name, found in group.items()}
        for group in linears
    ]


def _pointers(layer: Any, panels: dict[str, Panels]) -> list[int]:
    """Return one row of the table of layers, `Layer` in `kernels_pass.c`."""
    attention = layer.self_attn
    norms = (getattr(getattr(attention, name, None), "weight", None) for name in ("q_norm", "k_norm"))
    qkv, out, gate_up, down = ((panels[name].weight, panels[name].bias) for name in ("qkv", "out", "gate_up", "down"))
    before, after = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
    row = before, *qkv, *norms, *out, after, *gate_up, *down
    return [0 if tensor is None else tensor.data_ptr() for tensor in row]


def _padded(rows: int) -> int:
    return -(-rows // TILE) * TILE
