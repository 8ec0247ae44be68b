"""Layers of the quick decode path as a chain of PyTorch's products and compiled passes, for any processor.

Query, key and value weights are one matrix, gate and up another, packed for the matrix unit. Where the processor has
bfloat16 products of its own, `packed_layers.py` runs the same layers in one call. `fast_decode.py` strings either
together.

Shape letters: B rows, N tokens of a pass over several rows, H hidden size, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from foretaste.models import decode_kernels
from foretaste.models.critic import decoder_layers
from foretaste.models.decode_kernels import rms_norm_rows as rms_norm
from foretaste.models.decode_kernels import swiglu_rows as swiglu
from foretaste.models.fast_cache import Cache

if TYPE_CHECKING:
    from foretaste.models.actor_critic import ActorCritic

SHAPES = ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model")
"""Decoder classes of transformers that compute what `FastDecoder` computes."""

_PACK_ROWS = 64
"""Batch size that packed weights are laid out for."""


class Pass(NamedTuple):
    """Where the tokens of one pass go; the same for every layer."""

    ids_N: Tensor
    places: tuple[Tensor, Tensor]
    """Cache row and slot of each token, N and N."""
    tree: tuple[Tensor, Tensor]
    cos: Tensor
    sin: Tensor
    """N x D/2."""
    all_N: Tensor
    last_B: Tensor
    """Indices among the N tokens: all, and each row's last."""


class Layers(Protocol):
    """The layers of policy and critic, numbered in this order, with copies of their weights."""

    def refresh(self, model: ActorCritic) -> None:
        """Copy the weights again."""
        ...

    def forget(self) -> None:
        """Give the copies' memory back until the next `refresh`."""
        ...

    def run(self, numbers: range, x: Tensor, plan: Pass, cache: Cache, *, last_only: bool = False) -> Tensor:
        """Run layers over x, which may be changed. With `last_only`, return what is made of each row's last token.

        Shapes: NH -> NH, or BH.
        """
        ...

    def logits(self, x: Tensor) -> Tensor:
        """Return the policy's logits from what comes out of its last layer. Shapes: BH -> BV."""
        ...


def supported(decoder: Any, max_context: int) -> bool:
    """True for a known decoder class with silu, no attention window within reach, and a fixed rotary scale."""
    return not why_not(decoder, max_context)


def why_not(decoder: Any, max_context: int) -> str:
    """Return why the quick paths do not compute a decoder; empty if they do."""
    config = decoder.config
    if type(decoder).__name__ not in SHAPES:
        return f"they know {', '.join(name.removesuffix('Model') for name in SHAPES)} and not {type(decoder).__name__}"
    if config.hidden_act != "silu":
        return f"they know silu and not {config.hidden_act}"
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in ("default", "linear", "llama3", "yarn"):
        return f"they do not know rotary positions of the type {rope}"
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window is not None and window < max_context:
        return f"its attention window of {window} tokens is shorter than a context of {max_context}"
    return ""


class Matrix:
    """One linear layer, or several of the same input side by side, packed for the CPU's matrix unit if it has one."""

    def __init__(self, layers: Sequence[Any]) -> None:
        """Copy the weights (LoRA adapters added in)."""
        dense = [merged(layer) for layer in layers]
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


class ChainedLayers:
    """Implements `Layers`."""

    def __init__(self, config: Any) -> None:
        """Hold no weights yet."""
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._epsilon = config.rms_norm_eps

    def refresh(self, model: ActorCritic) -> None:
        """See `Layers`."""
        decoders = model.decoder, model.critic.decoder
        self._layers = [_fast_layer(layer) for decoder in decoders for layer in decoder_layers(decoder)]
        self._norm = model.decoder.norm.weight.detach()
        self._head = Matrix([model.language_model.get_output_embeddings()])

    def forget(self) -> None:
        """See `Layers`."""
        self._layers = []
        del self._head

    def run(self, numbers: range, x: Tensor, plan: Pass, cache: Cache, *, last_only: bool = False) -> Tensor:
        """See `Layers`."""
        for number in numbers:
            wanted = plan.last_B if last_only and number == numbers[-1] else plan.all_N
            x = self._layer(number, x, plan, cache, wanted)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """See `Layers`."""
        return self._head(rms_norm(x, self._norm, self._epsilon))

    def _layer(self, number: int, x: Tensor, plan: Pass, cache: Cache, wanted: Tensor) -> Tensor:
        """Run one layer: keys and values of all tokens, the output of those that are wanted."""
        layer, heads, key_heads = self._layers[number], self._heads, self._key_heads
        keys, values = cache.keys[number], cache.values[number]
        qkv = layer.qkv(rms_norm(x, layer.norm_before, self._epsilon)).view(len(x), -1, values.shape[-1])
        if layer.query_norm is not None and layer.key_norm is not None:
            qkv[:, :heads] = rms_norm(qkv[:, :heads], layer.query_norm, self._epsilon)
            own = qkv[:, heads : heads + key_heads]
            own.copy_(rms_norm(own, layer.key_norm, self._epsilon))
        decode_kernels.remember(qkv, plan.cos, plan.sin, *plan.places, keys, values, heads)
        attended = decode_kernels.attend(qkv, wanted, plan.places, plan.tree, keys, values, heads)
        if len(wanted) < len(x):
            x = x[wanted]
        x = layer.out.add(attended.view(len(x), -1), x)
        gate_up = layer.gate_up(rms_norm(x, layer.norm_after, self._epsilon))
        return layer.down.add(swiglu(gate_up), x)


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


def merged(layer: Any) -> tuple[Tensor, Tensor | None]:
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
