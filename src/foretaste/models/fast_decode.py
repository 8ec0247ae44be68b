"""The quick decode path, for decoders of the Llama, Mistral, Qwen2 and Qwen3 shape on a CPU.

Same numbers as the plain path up to rounding, less work around them: tokens of all rows form one flat
batch without padding; query, key and value weights are one matrix, gate and up another, packed for the
matrix unit; what contexts share is read and stored once (`fast_cache.py`); attention looks at the slots that a
row has and at no others (`decode_kernels.py`).

Shape letters: B rows, N tokens of a pass over several rows, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from foretaste.models import decode_kernels, kernels
from foretaste.models.decode_kernels import rms_norm_rows as rms_norm
from foretaste.models.decode_kernels import swiglu_rows as swiglu
from foretaste.models.fast_cache import Cache
from foretaste.models.fast_layers import FastLayer, Matrix, fast_layers, supported

if TYPE_CHECKING:
    from foretaste.models.actor_critic import ActorCritic

PASS_TOKENS = 1024
"""Tokens of a pass; more are read in several, whose arrays stay within the processor's caches."""


class _Pass(NamedTuple):
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


class FastDecoder:
    """Implements `decode.Decoder`. `begin` takes up changed weights."""

    @staticmethod
    def supports(model: ActorCritic, max_context: int) -> bool:
        """True if policy and critic have a shape that this path computes."""
        weight = model.decoder.get_input_embeddings().weight
        decoders = model.decoder, model.critic.decoder
        return (
            kernels.available(weight.dtype, weight.device)
            and all(supported(decoder, max_context) for decoder in decoders)
            and _head_size(model.decoder.config) <= decode_kernels.MAX_HEAD_SIZE
        )

    def __init__(self, model: ActorCritic) -> None:
        """Copy the weights."""
        self.model = model
        config = model.decoder.config
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._head_size = _head_size(config)
        self._versions: list[int] = []
        layers = config.num_hidden_layers + model.critic.decoder.config.num_hidden_layers
        self._cache = Cache(layers, self._key_heads, self._head_size)
        self.begin()

    @torch.inference_mode()
    def begin(self) -> None:
        """See `decode.Decoder`."""
        self._refresh()
        self._cache.clear()
        self._rows: list[int] = []

    def admit(self, source: int | None = None, shared: int = 0) -> None:
        """See `decode.Decoder`."""
        self._rows.append(self._cache.open(None if source is None else self._rows[source], shared))

    def drop(self, row: int) -> None:
        """See `decode.Decoder`."""
        self._cache.close(self._rows[row])
        self._rows[row] = self._rows[-1]
        self._rows.pop()

    @torch.inference_mode()
    def extend(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """See `decode.Decoder`."""
        critic = self.model.critic
        passes = [self._pass(rows, [tokens[row] for row in rows]) for rows in _parts(tokens)]
        hidden, seen = (torch.cat(parts) for parts in zip(*passes, strict=True))
        logits_BV = self._logits(rms_norm(hidden, self._trunk_norm, self._epsilon))
        return logits_BV, critic.head.value(critic.head(rms_norm(seen, self._tower_norm, self._epsilon)))

    def _pass(self, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Read tokens of some rows; return what comes out of the last layers of policy and critic. Shapes: BH, BH."""
        critic, plan = self.model.critic, self._plan([self._rows[row] for row in rows], tokens)
        hidden = self.model.decoder.embed_tokens(plan.ids_N)
        entering = critic.decoder.embed_tokens(plan.ids_N) if critic.reads_tokens else hidden
        depth = len(self._trunk)
        for number, layer in enumerate(self._trunk):
            if number == critic.start and not critic.reads_tokens:
                entering = hidden
            hidden = self._layer(layer, number, hidden, plan, last_only=number == depth - 1)
        for number, layer in enumerate(self._tower):
            last_only = number == len(self._tower) - 1
            entering = self._layer(layer, depth + number, entering, plan, last_only=last_only)
        return hidden, entering

    def _layer(self, layer: FastLayer, number: int, x: Tensor, plan: _Pass, *, last_only: bool) -> Tensor:
        """Run one layer; with `last_only`, keys and values of all tokens, but the output of the last of each row."""
        heads, key_heads = self._heads, self._key_heads
        qkv = layer.qkv(rms_norm(x, layer.norm_before, self._epsilon)).view(len(x), -1, self._head_size)
        if layer.query_norm is not None and layer.key_norm is not None:
            qkv[:, :heads] = rms_norm(qkv[:, :heads], layer.query_norm, self._epsilon)
            keys = qkv[:, heads : heads + key_heads]
            keys.copy_(rms_norm(keys, layer.key_norm, self._epsilon))
        keys, values = self._cache.keys[number], self._cache.values[number]
        decode_kernels.remember(qkv, plan.cos, plan.sin, *plan.places, keys, values, heads)
        wanted = plan.last_B if last_only else plan.all_N
        attended = decode_kernels.attend(qkv, wanted, plan.places, plan.tree, keys, values, heads)
        if len(wanted) < len(x):
            x = x[wanted]
        x = layer.out.add(attended.view(len(x), -1), x)
        gate_up = layer.gate_up(rms_norm(x, layer.norm_after, self._epsilon))
        return layer.down.add(swiglu(gate_up), x)

    def _plan(self, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> _Pass:
        """Lay out one pass and count its tokens as held."""
        cache, counts = self._cache, [len(appended) for appended in tokens]
        before, positions = [cache.own[row] for row in rows], [cache.position(row) for row in rows]
        weight = self.model.decoder.embed_tokens.weight
        cache.append(rows, counts, weight)
        counts_B = torch.tensor(counts)
        last_B = counts_B.cumsum(0) - 1
        first_B = last_B + 1 - counts_B
        columns = torch.tensor([rows, before, positions])
        if len(columns[0]) < int(last_B[-1]) + 1:
            columns = columns.repeat_interleave(counts_B, dim=1)
            columns[1:] += torch.arange(columns.shape[1]) - first_B.repeat_interleave(counts_B)
        rows_N, slots_N, positions_N = columns.unbind()
        half = self._head_size // 2
        cos, sin = (x[0, :, :half].contiguous() for x in self.model.decoder.rotary_emb(weight, positions_N[None]))
        ids_N = torch.tensor([token for appended in tokens for token in appended])
        return _Pass(ids_N, (rows_N, slots_N), cache.tree(), cos, sin, torch.arange(len(ids_N)), last_B)

    def _refresh(self) -> None:
        """Copy and pack the weights if an optimiser has changed any since the last time."""
        versions = [parameter._version for parameter in self.model.parameters()]
        if versions == self._versions:
            return
        self._versions = versions
        decoder, critic = self.model.decoder, self.model.critic.decoder
        self._epsilon = decoder.config.rms_norm_eps
        self._trunk: list[FastLayer] = fast_layers(decoder)
        self._tower: list[FastLayer] = fast_layers(critic)
        self._trunk_norm, self._tower_norm = decoder.norm.weight, critic.norm.weight
        head: Any = self.model.language_model.get_output_embeddings()
        self._logits = Matrix([head])


def _head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _parts(tokens: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Part the rows so that each part has at most PASS_TOKENS tokens, or one row."""
    part: list[int] = []
    total = 0
    for row, appended in enumerate(tokens):
        if part and total + len(appended) > PASS_TOKENS:
            yield part
            part, total = [], 0
        part.append(row)
        total += len(appended)
    yield part
