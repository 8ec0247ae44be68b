"""Many passes of the critic over one batch for little more than one pass of the policy.

The critic reads the policy's hidden state without gradient into it, so while the policy stands still that part of
the forward pass is always the same: it is computed once, and each further pass costs the critic's own layers only.
`Updater.fit_critic` and `learn.py` use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from foretaste.models.actor_critic import CriticInput
from foretaste.rl.batch import Batch
from foretaste.rl.returns import Array, Returns
from foretaste.rl.tasks import keyed_seed

if TYPE_CHECKING:
    from foretaste.rl.update import Updater

KEPT_BYTES = 1 << 30
"""Hidden states that are kept; those of micro-batches beyond are computed again in every pass."""


class CriticPasses:
    """A batch as the critic reads it. Valid until the policy changes.

    Which episodes form a minibatch (an optimiser step) is drawn once, by `seed` and `key`; their order anew in each
    pass.
    """

    def __init__(self, updater: Updater, batch: Batch, *, seed: int, key: tuple[Any, ...]) -> None:
        self.updater, self.batch, self.seed, self.key = updater, batch, seed, key
        self.minibatches = [list(updater.microbatches(batch, rows)) for rows in updater.minibatches(batch, seed, key)]
        self.kept: dict[tuple[int, ...], CriticInput] = {}
        self.kept_bytes = 0
        self._values_BT: Array | None = None

    def fit(self, returns: Returns, *, passes: int, warmup: float = 1.0) -> dict[str, float]:
        """Take `passes` x minibatches optimiser steps of the critic towards `returns.targets_BT`.

        Returns the mean loss of the last pass and the mean gradient norm.
        """
        updater, batch = self.updater, self.batch
        rates = updater.critic_rates(warmup)
        loss, norms = 0.0, []
        self._values_BT = None
        for number in range(passes):
            order = np.random.default_rng(keyed_seed(self.seed, "critic pass", *self.key, number))
            loss = 0.0
            for index in order.permutation(len(self.minibatches)):
                micros = self.minibatches[index]
                tokens = float(sum(batch.length_B[rows].sum() for rows in micros))
                for rows in micros:
                    _, logits = updater.actor_critic.criticise(self._input(rows))
                    part = updater.value_loss(logits, updater.flat(batch, returns, rows), tokens)
                    updater.optimizer.accumulate()
                    part.backward()
                    loss += part.item() * tokens
                norms.append(updater.optimizer.step(rates)["value"])
        return {"value/loss": loss / batch.tokens, "value/gradient_norm": float(np.mean(norms)) if norms else 0.0}

    @torch.no_grad()
    def values(self) -> Array:
        """Return V of every action token under the critic of the last `fit`, B x T; computed once."""
        if self._values_BT is not None:
            return self._values_BT
        values_BT = np.zeros_like(self.batch.values_BT)
        for rows in self._rows():
            read, _ = self.updater.actor_critic.criticise(self._input(rows))
            self.batch.scatter(values_BT, rows, read)
        self._values_BT = values_BT
        return values_BT

    def values_of(self, other: Batch) -> Array | None:
        """Return `values` of the episodes of another batch, or None if one of them is not in this one."""
        place = {id(episode): row for row, episode in enumerate(self.batch.episodes)}
        if any(id(episode) not in place for episode in other.episodes):
            return None
        rows = [place[id(episode)] for episode in other.episodes]
        return self.values()[rows][:, : other.values_BT.shape[1]]

    def _rows(self) -> Iterator[list[int]]:
        return (rows for micros in self.minibatches for rows in micros)

    def _input(self, rows: list[int]) -> CriticInput:
        key = tuple(rows)
        if key not in self.kept:
            found = self.updater.critic_input(self.batch, rows)
            size = sum(tensor.nbytes for tensor in found.entering)
            if self.kept_bytes + size > KEPT_BYTES:
                return found
            self.kept_bytes += size
            self.kept[key] = found
        return self.kept[key]
