"""Reading the model over a batch of episodes, in pieces that fit into memory: values, log-probabilities, inputs.

A minibatch is an optimiser step; a micro-batch is what is computed at once. `update.py` learns with the same pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from foretaste.config import AlgorithmConfig
from foretaste.models.actor_critic import ActorCritic, CriticInput, Evaluation, TokenSequence
from foretaste.rl.batch import Batch, final_state_sequence, privileged_sequence
from foretaste.rl.returns import Array
from foretaste.rl.tasks import keyed_seed


class Reader:
    """Evaluates actor and critic on batches, at the temperature that sampled them."""

    def __init__(self, actor_critic: ActorCritic, algorithm: AlgorithmConfig, *, temperature: float) -> None:
        self.actor_critic = actor_critic
        self.algorithm = algorithm
        """What the actor's advantages are made with; `learn.py` replaces it where lambda or the method adapts."""
        self.temperature = temperature
        self.privileged = actor_critic.config.privileged_critic
        self.device = next(actor_critic.parameters()).device

    # Without gradient ---------------------------------------------------------------------------------

    @torch.no_grad()
    def values(self, batch: Batch) -> Array:
        """Return V of every action token under the critic of now, B x T."""
        values = np.zeros_like(batch.values_BT)
        for rows in self.microbatches(batch, np.arange(len(batch.episodes))):
            batch.scatter(values, rows, self.actor_critic.criticise(self.critic_input(batch, rows))[0])
        return values

    def refreshed(self, batch: Batch, values_BT: Array | None = None) -> Batch:
        """Return the batch with values of the critic of now in place of those recorded while sampling.

        `values_BT`: those values, if they are known already. The states in which episodes were cut or stopped are
        read anew too: an estimate is unbiased under a gate only if a stopped episode is worth what the same critic
        says of those that survived there. With a privileged critic nothing valid was recorded at all.
        """
        values_BT = self.values(batch) if values_BT is None else values_BT
        return batch._replace(values_BT=values_BT, final_value_B=self.final_values(batch))

    @torch.no_grad()
    def final_values(self, batch: Batch) -> Array:
        """Return V of the state after the last token under the critic of now, B; 0 where the task ended."""
        final_B = batch.final_value_B.copy()
        cut = [b for b, episode in enumerate(batch.episodes) if episode.end.cut]
        sequences = [
            final_state_sequence(batch.episodes[b], self._encode if self.privileged else lambda text: []) for b in cut
        ]
        for rows in self.split(sequences):
            read = self.actor_critic.evaluate([sequences[row] for row in rows], policy=False, values=True)
            final_B[[cut[row] for row in rows]] = read.values_N.float().cpu().numpy()
        return final_B

    @torch.no_grad()
    def logprobs(self, batch: Batch, rows: np.ndarray | None = None) -> Array:
        """Return the log-probability of every action token under the policy of now, B x T; 0 outside `rows`."""
        logprobs = np.zeros_like(batch.logprobs_BT)
        for some in self.microbatches(batch, np.arange(len(batch.episodes)) if rows is None else rows):
            evaluation = self.evaluate(batch, some, policy=True, values=False)
            batch.scatter(logprobs, some, evaluation.logprobs_N)
        return logprobs

    # Pieces ---------------------------------------------------------------------------------------

    def evaluate(self, batch: Batch, rows: Sequence[int], *, policy: bool, values: bool) -> Evaluation:
        """Return what is asked for of the action tokens of `rows`, in order, with gradient."""
        sequences = [batch.sequences[row] for row in rows]
        return self.actor_critic.evaluate(sequences, temperature=self.temperature, policy=policy, values=values)

    def critic_input(self, batch: Batch, rows: Sequence[int]) -> CriticInput:
        """Return what the critic reads of `rows`: with a privileged critic, also what the environment alone knows."""
        if not self.privileged:
            return self.actor_critic.critic_input([batch.sequences[row] for row in rows])
        return self.actor_critic.critic_input([privileged_sequence(batch.episodes[row], self._encode) for row in rows])

    def _encode(self, text: str) -> list[int]:
        return self.actor_critic.template.plain(text)

    def minibatches(self, batch: Batch, seed: int, key: tuple[Any, ...]) -> Iterator[np.ndarray]:
        """Yield the rows of each minibatch, shuffled by a key, so that a resumed run shuffles alike."""
        order = np.random.default_rng(keyed_seed(seed, "minibatch", *key)).permutation(len(batch.episodes))
        yield from np.array_split(order, min(self.algorithm.minibatches, len(order)))

    def microbatches(self, batch: Batch, rows: np.ndarray) -> Iterator[list[int]]:
        """Yield rows in groups of similar length whose padded size stays within `microbatch_tokens`."""
        for group in self.split([batch.sequences[row] for row in rows], batch.shared_prefix):
            yield [int(rows[index]) for index in group]

    def split(self, sequences: Sequence[TokenSequence], shared: int = 0) -> list[list[int]]:
        """Group sequences; the `shared` tokens that all begin with are computed once a group and not counted."""
        lengths = [len(sequence.tokens) - shared for sequence in sequences]
        return split_by_tokens(lengths, self.algorithm.microbatch_tokens)


def split_by_tokens(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Group indices, longest first, so that count x longest stays within `limit` (one item at least)."""
    groups: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not groups or (len(groups[-1]) + 1) * longest > limit:
            groups.append([])
            longest = lengths[index]
        groups[-1].append(index)
    return groups
