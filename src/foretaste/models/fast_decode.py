"""The quick decode path, for decoders of the Llama, Mistral, Qwen2 and Qwen3 shape on a CPU.

Same numbers as the plain path up to rounding, less work around them: tokens of all rows form one flat
batch without padding; query, key and value weights are one matrix, gate and up another, packed for the
processor's products; what contexts share is read and stored once (`fast_cache.py`); attention looks at the slots that a
row has and at no others (`decode_kernels.py`).

Shape letters: B rows, N tokens of a pass over several rows, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foretaste.models import decode_kernels, kernels, packed_layers
from foretaste.models.decode_kernels import rms_norm_rows as rms_norm
from foretaste.models.fast_cache import Cache
from foretaste.models.fast_layers import ChainedLayers, Layers, Pass, why_not
from foretaste.models.packed_layers import PackedLayers

if TYPE_CHECKING:
    from foretaste.models.actor_critic import ActorCritic

PASS_TOKENS = 1024
"""Tokens of a pass; more are read in several, whose arrays stay within the processor's caches."""


class FastDecoder:
    """Implements `decode.Decoder`. `begin` takes up changed weights."""

    @staticmethod
    def supports(model: ActorCritic, max_context: int) -> bool:
        """True if policy and critic have a shape that this path computes."""
        return not FastDecoder.why_not(model, max_context)

    @staticmethod
    def why_not(model: ActorCritic, max_context: int) -> str:
        """Return why this path does not compute the model; empty if it does."""
        weight = model.decoder.get_input_embeddings().weight
        if weight.device.type != "cpu":
            return f"the quick paths are for processors, not for {weight.device.type}"
        decoders = model.decoder, model.critic.decoder
        reasons = [kernels.why_not(weight.dtype), *(why_not(decoder, max_context) for decoder in decoders)]
        found = next(filter(None, reasons), "")
        if not found and _head_size(model.decoder.config) > decode_kernels.MAX_HEAD_SIZE:
            found = f"its heads are wider than {decode_kernels.MAX_HEAD_SIZE}"
        return found

    def __init__(self, model: ActorCritic) -> None:
        """Copy the weights."""
        self.model = model
        config = model.decoder.config
        self._head_size = _head_size(config)
        self._versions: list[int] = []
        self._depth = config.num_hidden_layers
        self._layers: Layers = ChainedLayers(config)
        if packed_layers.supports(config, self._head_size, model.decoder.get_input_embeddings().weight):
            self._layers = PackedLayers(config)
        layers = self._depth + model.critic.decoder.config.num_hidden_layers
        self._cache = Cache(layers, config.num_key_value_heads, self._head_size)
        self.begin()

    @torch.inference_mode()
    def begin(self) -> None:
        """See `decode.Decoder`."""
        self._refresh()
        self._cache.clear()
        self._rows: list[int] = []

    def rest(self) -> None:
        """See `decode.Decoder`. Copies of the weights are given up, and the room for keys and values."""
        self._versions = []
        self._layers.forget()
        self._cache.give_up()

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
        seen = rms_norm(seen, critic.decoder.norm.weight, critic.decoder.config.rms_norm_eps)
        return self._layers.logits(hidden), critic.head.value(critic.head(seen))

    def _pass(self, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Read tokens of some rows; return what comes out of the last layers of policy and critic. Shapes: BH, BH."""
        critic, plan = self.model.critic, self._plan([self._rows[row] for row in rows], tokens)
        cache, depth, layers = self._cache, self._depth, self._layers
        hidden = self.model.decoder.embed_tokens(plan.ids_N)
        if critic.reads_tokens:
            entering = critic.decoder.embed_tokens(plan.ids_N)
        else:
            hidden = layers.run(range(critic.start), hidden, plan, cache)
            entering = hidden.clone()
        hidden = layers.run(
            range(0 if critic.reads_tokens else critic.start, depth), hidden, plan, cache, last_only=True
        )
        total = depth + critic.decoder.config.num_hidden_layers
        return hidden, layers.run(range(depth, total), entering, plan, cache, last_only=True)

    def _plan(self, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> Pass:
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
        return Pass(ids_N, (rows_N, slots_N), cache.tree(), cos, sin, torch.arange(len(ids_N)), last_B)

    def _refresh(self) -> None:
        """Copy and pack the weights if an optimiser has changed any since the last time."""
        versions = [parameter._version for parameter in self.model.parameters()]
        if versions == self._versions:
            return
        self._versions = versions
        self._layers.refresh(self.model)


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
