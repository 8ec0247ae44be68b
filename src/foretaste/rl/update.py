"""One update of the actor and its critic from a batch of episodes, and the two kinds of warm start.

The arithmetic lives in `returns.py`, `losses.py` and the critic's head; `reading.py` cuts a batch into minibatches
(optimiser steps) and micro-batches (memory), `totals.py` counts what happened.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from foretaste.config import AlgorithmConfig
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.models.precision import MasterWeights
from foretaste.rl.batch import Batch, Weighed, compute_returns, weighed_part, whole_part
from foretaste.rl.critic_passes import CriticPasses
from foretaste.rl.losses import imitation_loss, k2_penalty, ppo_loss
from foretaste.rl.reading import Reader
from foretaste.rl.returns import Array, Returns, RunningScale, vtrace
from foretaste.rl.totals import Totals

CRITIC = AlgorithmConfig(name="ppo", critic_lambda=1.0)
"""Settings with which Monte-Carlo targets and reach weights are made, whatever the actor learns by."""


class FlatTargets(NamedTuple):
    """What the losses need of some episodes, flat over their action tokens (N), in order."""

    behaviour_N: Tensor
    advantages_N: Tensor
    targets_N: Tensor
    weights_N: Tensor
    reference_N: Tensor | None


class Updater(Reader):
    """Owns the optimiser and the advantage scale; both belong to a resume point."""

    def __init__(self, actor_critic: ActorCritic, algorithm: AlgorithmConfig, *, temperature: float) -> None:
        super().__init__(actor_critic, algorithm, temperature=temperature)
        self.has_critic = algorithm.name in ("ppo", "auto")
        self.scale = RunningScale()
        head = list(actor_critic.critic.head.parameters())
        tower = [p for p in actor_critic.critic_parameters() if not any(p is own for own in head)]
        self.optimizer = MasterWeights(
            {"policy": actor_critic.policy_parameters(), "value": tower, "value_head": head},
            max_grad_norm=algorithm.max_grad_norm,
        )

    def state(self) -> dict[str, Any]:
        """Return what `load` restores: optimiser moments, master weights, advantage scale."""
        return {"optimizer": self.optimizer.state_dict(), "scale": self.scale.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state`; the weights follow the masters bit by bit."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scale.load(state["scale"])

    # Learning ---------------------------------------------------------------------------------

    def pretrain_values(self, batch: Batch, *, seed: int) -> float:
        """Fit the critic alone to the Monte-Carlo returns of a frozen policy; return the last pass's loss.

        Source: value pretraining, VC-PPO 2503.01491 section 4.1.
        """
        self.actor_critic.start_values(float(batch.rewards_BT.sum(axis=1).mean()))
        # So that a cut episode's future counts as the mean, not as a new head's middle.
        batch = batch._replace(final_value_B=self.final_values(batch))
        targets = dataclasses.replace(CRITIC, gamma=self.algorithm.gamma)
        returns = compute_returns(batch, targets, values_BT=np.zeros_like(batch.values_BT))
        passes = self.algorithm.value_pretraining_passes
        return self.fit_critic(batch, returns, passes=passes, seed=seed, key=("pretrain",))["value/loss"]

    def fit_critic(
        self, batch: Batch, returns: Returns, *, passes: int, seed: int, key: tuple[Any, ...], warmup: float = 1.0
    ) -> dict[str, float]:
        """Take `passes` x `minibatches` steps of the critic alone towards `returns.targets_BT`.

        Returns the mean loss of the last pass and the mean gradient norm.
        """
        return CriticPasses(self, batch, seed=seed, key=key).fit(returns, passes=passes, warmup=warmup)

    def replay_returns(self, passes: CriticPasses, *, ratio_cap: float, fresh: int = 0) -> Returns:
        """Return the critic's targets for replayed episodes: V-trace under the policy and critic of now.

        The last `fresh` episodes were sampled by the policy of now: their probability ratios are 1.
        """
        batch = passes.batch
        old = len(batch.episodes) - fresh
        ratio_BT = np.ones_like(batch.logprobs_BT)
        if old:
            logprobs_BT = self.logprobs(batch, rows=np.arange(old))
            ratio_BT[:old] = np.exp(np.clip(logprobs_BT - batch.logprobs_BT, -20, 20))[:old]
        targets = vtrace(
            batch.rewards_BT,
            passes.values(),
            self.final_values(batch),
            batch.length_B,
            ratio_BT,
            critic_lambda=self.algorithm.critic_lambda,
            gamma=self.algorithm.gamma,
            ratio_cap=ratio_cap,
            gate_BT=batch.gate_BT,
        )
        return Returns(np.zeros_like(targets), targets, compute_returns(batch, CRITIC).weights_BT)

    def update(
        self,
        batch: Batch,
        *,
        step: int,
        seed: int,
        values_BT: Array | None = None,
        shaping_BT: Array | None = None,
        reference_BT: Array | None = None,
        critic: bool = True,
        fresh: int | None = None,
    ) -> dict[str, float]:
        """Take `passes` x `minibatches` optimiser steps on the batch; return `policy/*` and `value/*` metrics.

        `values_BT` replaces the values recorded while sampling; `shaping_BT` is added to the actor's advantages
        (`drives.py`); `critic=False` leaves the critic as it is (it learns elsewhere). Only the last `fresh` episodes
        were sampled by the weights of now (None: all).
        """
        algorithm = self.algorithm
        critic = critic and self.has_critic
        returns = compute_returns(batch, algorithm, values_BT=values_BT)
        if shaping_BT is not None:
            returns = returns._replace(advantages_BT=returns.advantages_BT + shaping_BT)
        if algorithm.normalize_advantages and algorithm.name != "grpo":  # grpo has its own scale in each group
            scale = self.scale.update(returns.advantages_BT, returns.weights_BT)
            returns = returns._replace(advantages_BT=returns.advantages_BT / scale)
        warmup = self.warmup(step)
        rates = {"policy": warmup * algorithm.learning_rate}
        if critic:
            rates |= self.critic_rates(warmup)
        totals = Totals(first_fresh=0 if fresh is None else len(batch.episodes) - fresh)
        for pass_index in range(algorithm.passes):
            for minibatch, rows in enumerate(self.minibatches(batch, seed, (step, pass_index))):
                tokens = float(batch.length_B[rows].sum())
                for micro in self.microbatches(batch, rows):
                    untouched = pass_index == 0 and minibatch == 0
                    self._accumulate(batch, returns, micro, tokens, reference_BT, totals, critic, untouched)
                totals.norms.append(self.optimizer.step(rates))
        return totals.metrics(critic)

    def warmup(self, step: int) -> float:
        """Return the factor on both learning rates at a step, rising linearly to 1."""
        return min(1.0, step / max(1, self.algorithm.warmup_steps))

    def imitate(self, sequences: Sequence[TokenSequence | Weighed], *, learning_rate: float) -> float:
        """Take one supervised step on demonstrations; return the mean negative log-likelihood per token.

        A sequence without weights counts each of its action tokens once.
        """
        parts = [one if isinstance(one, Weighed) else whole_part(one) for one in sequences]
        return self._imitate(parts, temperature=1.0, learning_rate=learning_rate)

    def imitate_gains(
        self, batch: Batch, gains_BT: Array, *, passes: int, seed: int, step: int, learning_rate: float
    ) -> float:
        """Take `passes` x `minibatches` supervised steps on action tokens, each weighed by its gain (0: not read).

        Returns the mean over the last pass's steps of the weighted negative log-likelihood; 0 if nothing was gained.

        Source: self-imitation, Oh et al. 1806.05635 eq. 2, with the gain of a turn in place of that of an episode.
        """
        weighed = [weighed_part(sequence, row) for sequence, row in zip(batch.sequences, gains_BT, strict=True)]
        losses: list[float] = []
        for number in range(passes):
            losses = []
            for rows in self.minibatches(batch, seed, ("gains", step, number)):
                parts = [weighed[row] for row in rows if len(weighed[row].weights)]
                if parts:
                    shared, hot = batch.shared_prefix, self.temperature
                    losses.append(self._imitate(parts, temperature=hot, learning_rate=learning_rate, shared=shared))
        return sum(losses) / len(losses) if losses else 0.0

    def _imitate(self, parts: Sequence[Weighed], *, temperature: float, learning_rate: float, shared: int = 0) -> float:
        """Take one supervised step; return the weighted mean of the negative log-likelihood."""
        mass = float(sum(part.weights.sum() for part in parts))
        total = 0.0
        for micro in self.split([part.sequence for part in parts], shared):
            read = self.actor_critic.evaluate(
                [parts[at].sequence for at in micro], temperature=temperature, values=False
            )
            weights = torch.from_numpy(np.concatenate([parts[at].weights for at in micro])).float()
            loss = imitation_loss(read.logprobs_N * weights.to(self.device), normalizer=mass)
            self.optimizer.accumulate()
            loss.backward()
            total += loss.item()
        self.optimizer.step({"policy": learning_rate})
        return total

    def critic_rates(self, warmup: float) -> dict[str, float]:
        """The head moves faster than the tower: it alone must follow the mean success as that rises."""
        algorithm = self.algorithm
        return {"value": warmup * algorithm.critic_learning_rate, "value_head": warmup * algorithm.head_learning_rate}

    # Pieces -----------------------------------------------------------------------------------

    def _accumulate(
        self,
        batch: Batch,
        returns: Returns,
        rows: Sequence[int],
        tokens: float,
        reference_BT: Array | None,
        totals: Totals,
        critic: bool,
        untouched: bool,
    ) -> None:
        """Add one micro-batch's gradient; `untouched` says that the weights are still those that sampled."""
        flat = self.flat(batch, returns, rows, reference_BT)
        evaluation = self.evaluate(batch, rows, policy=True, values=critic and not self.privileged)
        policy = ppo_loss(
            evaluation.logprobs_N,
            flat.behaviour_N,
            flat.advantages_N,
            flat.weights_N,
            clip_low=self.algorithm.clip_low,
            clip_high=self.algorithm.clip_high,
            normalizer=tokens,
        )
        loss = policy.loss
        if self.algorithm.entropy_coefficient:
            loss = loss - self.algorithm.entropy_coefficient * (flat.weights_N * evaluation.entropy_N).sum() / tokens
        if flat.reference_N is not None:
            loss = loss + self.algorithm.kl_coefficient * k2_penalty(
                evaluation.logprobs_N, flat.reference_N, flat.weights_N, normalizer=tokens
            )
        if critic:
            logits = evaluation.value_logits
            if self.privileged:
                logits = self.actor_critic.criticise(self.critic_input(batch, rows))[1]
            value_loss = self.value_loss(logits, flat, tokens)
            loss = loss + value_loss
            totals.value_loss += value_loss.item() * tokens
        self.optimizer.accumulate()
        loss.backward()
        log_ratio = (evaluation.logprobs_N.detach() - flat.behaviour_N).double().cpu()
        totals.tokens += len(flat.behaviour_N)
        totals.policy_loss += policy.loss.item() * tokens
        totals.clipped += float(policy.clipped)
        totals.kl += float(policy.kl)
        totals.entropy += float(evaluation.entropy_N.detach().sum())
        totals.log_ratios.append(log_ratio.numpy())
        if untouched:
            by_now = np.repeat(np.array(rows) >= totals.first_fresh, batch.length_B[list(rows)])
            totals.sampler_differences.append(log_ratio.abs().numpy()[by_now])

    def value_loss(self, value_logits: Tensor, flat: FlatTargets, tokens: float) -> Tensor:
        """The head's weighted mean, turned into a sum divided by the minibatch's tokens."""
        mean = self.actor_critic.value_loss(value_logits, flat.targets_N, flat.weights_N)
        return mean * (float(flat.weights_N.sum()) / tokens)

    def flat(
        self, batch: Batch, returns: Returns, rows: Sequence[int], reference_BT: Array | None = None
    ) -> FlatTargets:
        """Return what the losses need of `rows`."""
        mask = batch.mask_BT[list(rows)]

        def flat(array_BT: Array) -> Tensor:
            return torch.from_numpy(array_BT[list(rows)][mask]).float().to(self.device)

        return FlatTargets(
            flat(batch.logprobs_BT),
            flat(returns.advantages_BT),
            flat(returns.targets_BT),
            flat(returns.weights_BT),
            None if reference_BT is None else flat(reference_BT),
        )
