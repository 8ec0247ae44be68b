"""Weights of the quick decode path: fused matrices, packed for the matrix unit.

`fast_decode.py` strings them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foretaste.models.critic import decoder_layers

SHAPES = ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model")
"""Decoder classes of transformers that compute what `FastDecoder` computes."""

_PACK_ROWS = 64
"""Batch size that packed weights are laid out for."""


def supported(decoder: Any, max_context: int) -> bool:
    """True for a known decoder class with silu, no attention window within reach, and a fixed rotary scale."""
    config = decoder.config
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    return (
        type(decoder).__name__ in SHAPES
        and config.hidden_act == "silu"
        and rope in ("default", "linear", "llama3", "yarn")
        and (window is None or window >= max_context)
    )


class Matrix:
    """One linear layer, or several of the same input side by side, packed for the CPU's matrix unit if it has one."""

    def __init__(self, layers: Sequence[Any]) -> None:
        """Copy the weights (LoRA adapters added in)."""
        dense = [_dense(layer) for layer in layers]
        weights, biases = [weight for weight, _ in dense], [bias for _, bias in dense]
        self.weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        zeros = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)]
        self.bias = torch.cat(zeros) if any(bias is not None for bias in biases) else None
        self.packed = _packable(self.weight)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous(), _PACK_ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        """Return x W' + b."""
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return torch.nn.functional.linear(x, self.weight, self.bias)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return residual + x W' + b."""
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, residual, self.weight, self.bias, "add")
        return residual + torch.nn.functional.linear(x, self.weight, self.bias)


class FastLayer(NamedTuple):
    """The weights of one decoder layer."""

    norm_before: Tensor
    qkv: Matrix
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: Matrix
    norm_after: Tensor
    gate_up: Matrix
    down: Matrix


def fast_layers(decoder: Any) -> list[FastLayer]:
    """Return the layers of a Hugging Face decoder of a supported class."""
    return [_fast_layer(layer) for layer in decoder_layers(decoder)]


def _fast_layer(layer: Any) -> FastLayer:
    attention, mlp = layer.self_attn, layer.mlp
    return FastLayer(
        layer.input_layernorm.weight.detach(),
        Matrix([attention.q_proj, attention.k_proj, attention.v_proj]),
        attention.q_norm.weight.detach() if hasattr(attention, "q_norm") else None,
        attention.k_norm.weight.detach() if hasattr(attention, "k_norm") else None,
        Matrix([attention.o_proj]),
        layer.post_attention_layernorm.weight.detach(),
        Matrix([mlp.gate_proj, mlp.up_proj]),
        Matrix([mlp.down_proj]),
    )


def _dense(layer: Any) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a linear layer, a LoRA adapter merged into the copy."""
    base = getattr(layer, "base_layer", layer)
    weight = base.weight.detach()
    for adapter in getattr(layer, "active_adapters", ()):
        weight = (weight.float() + layer.get_delta_weight(adapter).detach().float()).to(weight.dtype)
    return weight, None if base.bias is None else base.bias.detach()


def _packable(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
