"""The quick decode path, for decoders of the Llama, Mistral, Qwen2 and Qwen3 shape.

Same numbers as the plain path up to rounding, less work around them: tokens of all rows form one flat
batch without padding; query, key and value weights are one matrix, gate and up another, packed for the
matrix unit; keys and values sit in slots that never move; the shared prefix is stored once and attended
to by all rows at once, and joined with the row's own part through their log-sum-exps (as in
FlashAttention, Dao et al. 2022, and Hydragen, Juravsky et al. 2024).

Shape letters: B rows, N tokens of a pass over all rows, L prefilled tokens of a row, S slots, P prefix,
K key heads, G query heads per key head, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from foretaste.models.fast_layers import FastLayer, Matrix, attend, fast_layers, join, rms_norm, supported, swiglu

if TYPE_CHECKING:
    from foretaste.models.actor_critic import ActorCritic

SLOT_STEP = 64
"""Slots are added in steps of at least this many."""


class _Pass(NamedTuple):
    """Where the tokens of one pass go; the same for every layer."""

    rows_N: Tensor
    slots_N: Tensor
    cos_N1D: Tensor
    sin_N1D: Tensor
    """Its first half negated: x * cos + roll(x) * sin is the rotation."""
    last_B: Tensor
    """Index among the N tokens of each row's last."""
    mask_B1GS: Tensor
    unshared_B: Tensor | None
    """-inf on rows that do not share the prefix, else 0; None without a prefix."""
    prefill: _Prefill | None


class _Prefill(NamedTuple):
    """The rows that got several tokens; their last ones are attended to with everybody's."""

    rows_R: Tensor
    index_RL: Tensor
    """Which of the N tokens; padded with the row's first."""
    flat_M: Tensor
    """The real ones among R x L."""
    tokens_M: Tensor
    """The same among the N tokens."""
    mask_R1QS: Tensor
    """Q = G x L queries."""
    unshared_R: Tensor | None


class FastDecoder:
    """Implements `decode.Decoder`. `begin` takes up changed weights."""

    @staticmethod
    def supports(model: ActorCritic, max_context: int) -> bool:
        """True if policy and critic have a shape that this path computes."""
        return supported(model.decoder, max_context) and supported(model.critic.decoder, max_context)

    def __init__(self, model: ActorCritic) -> None:
        """Copy the weights."""
        self.model = model
        config = model.decoder.config
        self._heads = config.num_attention_heads
        self._key_heads = config.num_key_value_heads
        self._head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._versions: list[int] = []
        self._kv = torch.empty(0)
        self.begin([])

    @torch.inference_mode()
    def begin(self, prefix: Sequence[int]) -> None:
        """See `decode.Decoder`."""
        self._refresh()
        self._lengths: list[int] = []
        self._shares: list[bool] = []
        self._prefix_kv: Tensor | None = None
        self._prefix_length = 0
        if prefix:
            self.admit(False)
            self.extend([list(prefix)])
            self._prefix_kv = self._kv[:, :1, :, : len(prefix)].clone()
            self._prefix_length = len(prefix)
            self._lengths, self._shares = [], []

    def admit(self, shares_prefix: bool) -> None:
        """See `decode.Decoder`."""
        self._lengths.append(0)
        self._shares.append(shares_prefix)

    @torch.inference_mode()
    def drop(self, row: int) -> None:
        """See `decode.Decoder`."""
        last = len(self._lengths) - 1
        if row != last:
            self._kv[:, row, :, : self._lengths[last]] = self._kv[:, last, :, : self._lengths[last]]
            self._lengths[row], self._shares[row] = self._lengths[last], self._shares[last]
        self._lengths.pop()
        self._shares.pop()

    @torch.inference_mode()
    def extend(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """See `decode.Decoder`."""
        model, critic = self.model, self.model.critic
        ids_N = torch.tensor([token for appended in tokens for token in appended], device=model.device)
        plan = self._plan([len(appended) for appended in tokens])
        hidden, entering = model.decoder.embed_tokens(ids_N), None
        for number, layer in enumerate(self._trunk):
            if number == critic.start and not critic.reads_tokens:
                entering = hidden
            hidden = self._layer(layer, number, hidden, plan, last_only=number == len(self._trunk) - 1)
        logits_BV = self._logits(rms_norm(hidden, self._trunk_norm, self._epsilon))
        if entering is None:
            entering = critic.decoder.embed_tokens(ids_N)
        for number, layer in enumerate(self._tower):
            last_only = number == len(self._tower) - 1
            entering = self._layer(layer, len(self._trunk) + number, entering, plan, last_only=last_only)
        seen = rms_norm(entering, self._tower_norm, self._epsilon)
        return logits_BV, critic.head.value(critic.head(seen))

    def _layer(self, layer: FastLayer, number: int, x: Tensor, plan: _Pass, *, last_only: bool) -> Tensor:
        """Run one layer; with `last_only`, keys and values of all tokens, but the output of the last of each row."""
        count, both = len(x), self._heads + self._key_heads
        qkv = layer.qkv(rms_norm(x, layer.norm_before, self._epsilon)).view(count, -1, self._head_size)
        queries_keys, values = qkv[:, :both], qkv[:, both:]
        if layer.query_norm is not None and layer.key_norm is not None:
            parts = queries_keys.split([self._heads, self._key_heads], dim=1)
            normed = (
                rms_norm(p, w, self._epsilon) for p, w in zip(parts, (layer.query_norm, layer.key_norm), strict=True)
            )
            queries_keys = torch.cat(list(normed), dim=1)
        rolled = queries_keys.roll(self._head_size // 2, dims=-1)
        rotated = torch.addcmul(queries_keys * plan.cos_N1D, rolled, plan.sin_N1D)
        queries, keys = rotated[:, : self._heads], rotated[:, self._heads :]
        keys_SK, values_SK = self._kv[2 * number], self._kv[2 * number + 1]
        keys_SK[plan.rows_N, :, plan.slots_N] = keys
        values_SK[plan.rows_N, :, plan.slots_N] = values
        attended = self._attend_last(queries, number, plan)
        if last_only:
            x = x[plan.last_B] if plan.prefill is not None else x
        elif plan.prefill is not None:
            attended = self._attend_prefill(queries, number, plan, attended)
        x = layer.out.add(attended.reshape(len(x), -1), x)
        gate_up = layer.gate_up(rms_norm(x, layer.norm_after, self._epsilon))
        return layer.down.add(swiglu(gate_up), x)

    def _attend_last(self, queries_N: Tensor, number: int, plan: _Pass) -> Tensor:
        """Attend with the last token of each row. Shapes: N heads D -> B heads D."""
        rows, slots = len(plan.last_B), plan.mask_B1GS.shape[-1]
        queries = queries_N[plan.last_B] if plan.prefill is not None else queries_N
        queries = queries.reshape(rows, self._key_heads, -1, self._head_size)
        keys, values = (self._kv[2 * number + i, :rows, :, :slots] for i in (0, 1))
        out, lse = attend(queries, keys, values, plan.mask_B1GS)
        if self._prefix_kv is not None and plan.unshared_B is not None:
            out = self._join_prefix(queries, out, lse, number, plan.unshared_B)
        return out.reshape(rows, self._heads, self._head_size)

    def _attend_prefill(self, queries_N: Tensor, number: int, plan: _Pass, last: Tensor) -> Tensor:
        """Attend with the other tokens of rows that got several. Shapes: N heads D, B heads D -> N heads D."""
        fill = plan.prefill
        assert fill is not None
        (count, length), slots = fill.index_RL.shape, fill.mask_R1QS.shape[-1]
        group = self._heads // self._key_heads
        queries = queries_N[fill.index_RL].view(count, length, self._key_heads, group, self._head_size)
        queries = queries.permute(0, 2, 3, 1, 4).reshape(count, self._key_heads, group * length, self._head_size)
        keys, values = (self._kv[2 * number + i, :, :, :slots][fill.rows_R] for i in (0, 1))
        out, lse = attend(queries, keys, values, fill.mask_R1QS)
        if self._prefix_kv is not None and fill.unshared_R is not None:
            out = self._join_prefix(queries, out, lse, number, fill.unshared_R)
        out = out.view(count, self._key_heads, group, length, self._head_size).permute(0, 3, 1, 2, 4)
        flat = out.reshape(count * length, self._heads, self._head_size)
        whole = queries_N.new_empty(queries_N.shape)
        whole[plan.last_B] = last
        whole[fill.tokens_M] = flat[fill.flat_M]
        return whole

    def _join_prefix(self, queries: Tensor, out: Tensor, lse: Tensor, number: int, unshared: Tensor) -> Tensor:
        """Attend to the shared prefix with all rows as one batch, and join. Shapes: B K Q D."""
        assert self._prefix_kv is not None
        rows, key_heads, count, size = queries.shape
        flat = queries.transpose(0, 1).reshape(1, key_heads, rows * count, size)
        keys, values = self._prefix_kv[2 * number], self._prefix_kv[2 * number + 1]
        prefix_out, prefix_lse = attend(flat, keys, values, None)
        prefix_out = prefix_out.view(key_heads, rows, count, size).transpose(0, 1)
        prefix_lse = prefix_lse.view(key_heads, rows, count).transpose(0, 1) + unshared[:, None, None]
        return join(prefix_out, prefix_lse, out, lse)

    def _plan(self, counts: list[int]) -> _Pass:
        """Lay out one pass and count its tokens as written."""
        device, dtype = self.model.device, self._kv.dtype
        before, rows = self._lengths, len(counts)
        self._lengths = [old + count for old, count in zip(before, counts, strict=True)]
        slots = max(self._lengths)
        self._reserve(rows, slots)
        counts_B = torch.tensor(counts)
        starts_B = counts_B.cumsum(0) - counts_B
        rows_N = torch.repeat_interleave(torch.arange(rows), counts_B)
        slots_N = torch.arange(len(rows_N)) - starts_B[rows_N] + torch.tensor(before)[rows_N]
        offset_B = torch.tensor(self._shares).long() * self._prefix_length
        cos, sin = self.model.decoder.rotary_emb(self._kv, (slots_N + offset_B[rows_N])[None].to(device))
        half = self._head_size // 2
        signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        shut_B = torch.arange(slots) >= torch.tensor(self._lengths)[:, None]
        mask = torch.zeros(shut_B.shape, dtype=dtype).masked_fill_(shut_B, -torch.inf)
        group = self._heads // self._key_heads
        unshared = torch.tensor([0.0 if shared else -torch.inf for shared in self._shares]).to(device)
        unshared_B = unshared if self._prefix_kv is not None else None
        return _Pass(
            rows_N.to(device),
            slots_N.to(device),
            cos[0][:, None],
            signed[0][:, None],
            (starts_B + counts_B - 1).to(device),
            mask[:, None, None].expand(rows, 1, group, slots).to(device),
            unshared_B,
            self._plan_prefill(counts_B, starts_B, torch.tensor(before), unshared_B),
        )

    def _plan_prefill(
        self, counts_B: Tensor, starts_B: Tensor, before_B: Tensor, unshared_B: Tensor | None
    ) -> _Prefill | None:
        rows_R = (counts_B > 1).nonzero().squeeze(-1)
        if not len(rows_R):
            return None
        device, lengths_R = self.model.device, counts_B[rows_R] - 1
        column_L = torch.arange(int(lengths_R.max()))
        real_RL = column_L < lengths_R[:, None]
        column_RL = torch.where(real_RL, column_L, 0)
        index_RL = starts_B[rows_R][:, None] + column_RL
        slot_RL = before_B[rows_R][:, None] + column_RL
        shut = torch.arange(int(slot_RL.max()) + 1) > slot_RL[..., None]
        mask = torch.zeros(shut.shape, dtype=self._kv.dtype).masked_fill_(shut, -torch.inf)
        group = self._heads // self._key_heads
        tiled = mask[:, None, None].expand(-1, 1, group, -1, -1).reshape(len(rows_R), 1, -1, mask.shape[-1])
        return _Prefill(
            rows_R.to(device),
            index_RL.to(device),
            real_RL.flatten().nonzero().squeeze(-1).to(device),
            index_RL[real_RL].to(device),
            tiled.to(device),
            None if unshared_B is None else unshared_B[rows_R.to(device)],
        )

    def _reserve(self, rows: int, slots: int) -> None:
        """Make room; buffers are kept from run to run, since touching fresh memory is slow."""
        layers = 2 * (len(self._trunk) + len(self._tower))
        weight = self.model.decoder.embed_tokens.weight
        fits = self._kv.dim() == 5 and self._kv.shape[1] >= rows and self._kv.shape[3] >= slots
        if fits and self._kv.dtype == weight.dtype and self._kv.device == weight.device:
            return
        old = self._kv if self._kv.dim() == 5 else None
        have_rows, have_slots = (0, 0) if old is None else (old.shape[1], old.shape[3])
        rows = max(rows, have_rows)
        slots = have_slots if slots <= have_slots else -(-max(slots, have_slots * 5 // 4) // SLOT_STEP) * SLOT_STEP
        # Zeros: a slot that was never written must not hold a NaN, which no mask would stop.
        self._kv = weight.new_zeros(layers, rows, self._key_heads, slots, self._head_size)
        if old is not None:
            self._kv[:, :have_rows, :, :have_slots] = old

    def _refresh(self) -> None:
        """Copy and pack the weights if an optimiser has changed any since the last time."""
        versions = [parameter._version for parameter in self.model.parameters()]
        if versions == self._versions:
            return
        self._versions = versions
        decoder, critic = self.model.decoder, self.model.critic.decoder
        self._kv = self._kv if self._kv.dim() == 5 else decoder.embed_tokens.weight.new_empty(0)
        self._epsilon = decoder.config.rms_norm_eps
        self._trunk: list[FastLayer] = fast_layers(decoder)
        self._tower: list[FastLayer] = fast_layers(critic)
        self._trunk_norm, self._tower_norm = decoder.norm.weight, critic.norm.weight
        head: Any = self.model.language_model.get_output_embeddings()
        self._logits = Matrix([head])
