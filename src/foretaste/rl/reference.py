"""The policy as it was when training began, for the KL term: a copy of its weights, swapped in to be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from foretaste.models.actor_critic import ActorCritic
from foretaste.rl.batch import Batch
from foretaste.rl.returns import Array
from foretaste.rl.update import Updater


class Reference:
    """Holds one copy of the policy's trainable weights (memory: their size once)."""

    def __init__(self, actor_critic: ActorCritic, weights: list[Tensor] | None = None) -> None:
        """`weights` restores a copy that `state` returned; by default the weights of now are copied."""
        self.parameters = actor_critic.policy_parameters()
        self.weights = [p.detach().clone() for p in self.parameters] if weights is None else list(weights)

    def state(self) -> list[Tensor]:
        """Return what the constructor restores."""
        return self.weights

    def logprobs(self, updater: Updater, batch: Batch) -> Array:
        """Return the reference's log-probability of every action token, B x T."""
        with self._swapped():
            return updater.logprobs(batch)

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        current = [p.detach().clone() for p in self.parameters]
        try:
            self._write(self.weights)
            yield
        finally:
            self._write(current)

    @torch.no_grad()
    def _write(self, weights: list[Tensor]) -> None:
        for parameter, weight in zip(self.parameters, weights, strict=True):
            parameter.copy_(weight)
