"""Decoding with a cache: the interface of the two decode paths, and the plain one.

`PlainDecoder` runs any Hugging Face decoder; `fast_decode.py` is the quick path for the Llama shape. Both
hold the keys and values of all live rows between calls. Rows are numbered 0 .. live - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from foretaste.models.trunk import _tap, accepted

if TYPE_CHECKING:
    from foretaste.models.actor_critic import ActorCritic


class Decoder(Protocol):
    """Live rows of growing contexts. Every call of `extend` feeds every live row."""

    def begin(self) -> None:
        """Forget all rows, and take up changed weights."""
        ...

    def rest(self) -> None:
        """Forget all rows and give memory back until the next `begin`."""
        ...

    def admit(self, source: int | None = None, shared: int = 0) -> None:
        """Add a row after the last. Its context starts with the first `shared` tokens of row `source`'s."""
        ...

    def extend(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Append at least one token to each row. Return logits BV and values B (float32) after each row's last."""
        ...

    def drop(self, row: int) -> None:
        """Remove a row; the last row takes its number."""
        ...


class PlainDecoder:
    """Any Hugging Face decoder, through its own forward and `DynamicCache`.

    Rows are right-aligned in the cache: row b fills the last n_b of T slots. New tokens follow at once, and padding
    comes after them: attention windows, chunks and ALiBi count slots, so that a gap inside a context would be counted
    as tokens. A pass in which rows grow by different lengths leaves padding at the end, which is moved away afterwards.
    """

    def __init__(self, model: ActorCritic) -> None:
        """Nothing is copied; changed weights are seen at once."""
        self.model = model
        self.begin()

    @torch.no_grad()
    def begin(self) -> None:
        """See `Decoder`."""
        from transformers import DynamicCache

        self._caches: list[Any] = [DynamicCache(), DynamicCache()]
        self._mask_BT = torch.zeros(0, 0, dtype=torch.long, device=self.model.device)

    def rest(self) -> None:
        """See `Decoder`."""
        self.begin()

    @torch.no_grad()
    def admit(self, source: int | None = None, shared: int = 0) -> None:
        """See `Decoder`. What is shared is copied."""
        slots = self._mask_BT.shape[1]
        row = torch.arange(slots, device=self.model.device) >= slots - shared
        held = 0 if source is None else int(self._mask_BT[source].sum())
        self._mask_BT = torch.cat([self._mask_BT, row.long()[None]])
        for layer in (layer for cache in self._caches for layer in cache.layers):
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = old.new_zeros(1, *old.shape[1:])
                if source is not None and shared:
                    at = slots - held
                    new[:, :, slots - shared :] = old[source, :, at : at + shared]
                setattr(layer, name, torch.cat([old, new]))

    @torch.no_grad()
    def extend(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """See `Decoder`."""
        hidden_BH, seen_BH = self.hidden(tokens)
        return self.model.logits(hidden_BH), self.model.critic.head.value(self.model.critic.head(seen_BH))

    @torch.no_grad()
    def hidden(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Do what `extend` does, but return the final hidden states of policy and critic. Shapes: BH, BH."""
        model, device = self.model, self.model.device
        counts = [len(appended) for appended in tokens]
        width = max(counts)
        ids_BL = torch.zeros(len(tokens), width, dtype=torch.long)
        new_BL = torch.zeros(len(tokens), width, dtype=torch.long)
        for row, appended in enumerate(tokens):
            ids_BL[row, : len(appended)] = torch.tensor(appended)
            new_BL[row, : len(appended)] = 1
        ids_BL, new_BL = ids_BL.to(device), new_BL.to(device)
        positions_BL = self._mask_BT.sum(-1, keepdim=True) + new_BL.cumsum(-1) - 1
        self._mask_BT = torch.cat([self._mask_BT, new_BL], dim=1)
        options = {"attention_mask": self._mask_BT, "position_ids": positions_BL, "use_cache": True}
        depth = None if model.critic.reads_tokens else model.critic.start
        with _tap(model.decoder, depth, False) as tapped:
            out = model.decoder(input_ids=ids_BL, past_key_values=self._caches[0], **accepted(model.decoder, options))
        entering = ids_BL if model.critic.reads_tokens else tapped[0]
        seen = model.critic(entering, past_key_values=self._caches[1], **accepted(model.critic.decoder, options))
        if min(counts) != width:
            self._close_gaps()
        rows_B, last_B = torch.arange(len(tokens), device=device), torch.tensor(counts, device=device) - 1
        return out.last_hidden_state[rows_B, last_B], seen.last_hidden_state[rows_B, last_B]

    def _close_gaps(self) -> None:
        """Move each row's slots to the right end, and forget slots that no row uses."""
        slots = int(self._mask_BT.sum(-1).max())
        order_BT = self._mask_BT.argsort(dim=-1, stable=True)[:, -slots:]
        self._mask_BT = self._mask_BT.gather(1, order_BT)
        index = order_BT[:, None, :, None]
        for layer in (layer for cache in self._caches for layer in cache.layers):
            for name in ("keys", "values"):
                old = getattr(layer, name)
                setattr(layer, name, old.gather(2, index.expand(-1, old.shape[1], -1, old.shape[3])))

    @torch.no_grad()
    def drop(self, row: int) -> None:
        """See `Decoder`."""
        keep = list(range(len(self._mask_BT) - 1))
        if row < len(keep):
            keep[row] = len(keep)
        index = torch.tensor(keep, dtype=torch.long, device=self.model.device)
        self._mask_BT = self._mask_BT[index]
        for layer in (layer for cache in self._caches for layer in cache.layers):
            layer.keys, layer.values = layer.keys[index], layer.values[index]
