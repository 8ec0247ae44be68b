"""What a training step learns, and from which episodes: critic, actor, replay, and the choice of `auto`.

    judge the critic -> critic (this step's episodes, or replayed ones) -> actor (newest episodes) -> successes again

`train.py` samples and writes down; `update.py` takes the optimiser steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from foretaste.config import TrainConfig
from foretaste.records import Episode, EpisodeEnd
from foretaste.rl import diagnostics
from foretaste.rl.adapt import LambdaAdapter
from foretaste.rl.advise import RECHECK_STEPS, Advice, Method, choose, evidence_of, filled, probe
from foretaste.rl.batch import Batch, actor_lambda, compute_returns, make_batch, survivor_part
from foretaste.rl.critic_passes import CriticPasses
from foretaste.rl.drives import Feelings, potentials, shaping_advantages, share_left, weights_of
from foretaste.rl.drives import metrics_of as drive_metrics
from foretaste.rl.reference import Reference
from foretaste.rl.replay import Replay
from foretaste.rl.returns import Array, gated_gains, relative_gains
from foretaste.rl.tasks import keyed_seed
from foretaste.rl.taught import TaughtCritic
from foretaste.rl.update import Updater

MOST_GAIN = 2.0
"""Largest weight of an imitated action: an unlikely success would else be all of a step."""
_ESTIMATORS: dict[Method, Literal["ppo", "reinforce"]] = {
    "value": "ppo",
    "leave-one-out": "reinforce",
    "success replay": "reinforce",
}


class Learner:
    """Turns the episodes of a step into updates, and keeps what the next step needs to know."""

    def __init__(
        self, config: TrainConfig, updater: Updater, replay: Replay, tell: Callable[[int, Advice], None]
    ) -> None:
        """`tell(step, advice)` is called whenever `auto` has chosen."""
        self.auto = config.algorithm.name == "auto"
        self.config = filled(config) if self.auto else config
        self.updater, self.replay, self.tell = updater, replay, tell
        self.variance = diagnostics.PooledVariance()
        model, replaying = updater.actor_critic, self.config.replay
        self.taught = TaughtCritic(replaying.critic_start_successes) if model.critic_taught else None
        """The critic where it came from an earlier run and is still believed."""
        self.adapter = LambdaAdapter(config.algorithm.turn_lambda, prior=model.critic_ranking if self.taught else ())
        self.method: Method = "value"
        self.successes = 0
        """Successful episodes so far, those of value pretraining among them."""

    def state(self) -> dict[str, Any]:
        """Return what `load` restores."""
        return {
            "variance": self.variance.state(),
            "adapter": self.adapter.state(),
            "method": self.method,
            "successes": self.successes,
            "taught": self.taught and self.taught.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state`."""
        self.variance.load(state["variance"])
        self.adapter.load(state["adapter"])
        self.method, self.successes = state["method"], state["successes"]
        if self.taught and state.get("taught"):
            self.taught.load(state["taught"])
        else:
            self._forget_teaching()

    @property
    def by_value(self) -> bool:
        """Whether the actor learns by the value function now: only that knows what a stopped episode is worth."""
        return self.updater.has_critic and (not self.auto or self.method == "value")

    # Before the first step ----------------------------------------------------------------------

    def pretrain_values(self, episodes: Sequence[Episode]) -> dict[str, float]:
        """Fit the critic to the frozen policy's returns before the policy may move; `auto` chooses first."""
        batch = make_batch(episodes)
        self.successes += sum(episode.solved for episode in batch.episodes)
        if self.auto:
            self._choose(0, probe(self.updater, batch.episodes, seed=self.config.seed))
        loss = self.updater.pretrain_values(batch, seed=self.config.seed)
        values = self.updater.values(batch)  # of the episodes that it has just learned from
        explained = diagnostics.PooledVariance().update(batch, values, gamma=self.config.algorithm.gamma)
        metrics = {"value/loss": loss, "train/sampled_tokens": float(batch.tokens)}
        metrics |= diagnostics.outside_metrics(batch, self.config.model.returns_range)
        if explained is not None:
            metrics["value/in_sample_explained_variance"] = explained
        return metrics | self._caught_up(len(batch.episodes))

    # A step ---------------------------------------------------------------------------------------

    def learn(self, batch: Batch, step: int, reference: Reference | None) -> dict[str, float]:
        """Update critic and actor after a step's episodes entered the replay; return their metrics."""
        replay, updater = self.config.replay, self.updater
        if updater.privileged and updater.has_critic:  # nothing valid was recorded while sampling
            batch = updater.refreshed(batch)
        share = share_left(self.config.drives, step)
        feelings = Feelings(self.config.drives) if weights_of(self.config.drives) and updater.has_critic else None
        metrics = self._judge_critic(batch, feelings, share) if updater.has_critic else {}
        if feelings:
            metrics |= drive_metrics(batch.episodes, feelings, share=share)
        dropped = bool(metrics.get("value/dropped"))
        if self.auto and (step % RECHECK_STEPS == 0 or dropped or (self.taught and step == 1)):
            self._recheck(step)
        apart = updater.has_critic and (replay.critic_episodes > 0 or self.auto)
        passes = None
        updater.algorithm = self._algorithm()
        if apart:
            passes, learned = self._replay_critic(batch, step)
            metrics |= learned
        self.successes += sum(episode.solved for episode in batch.episodes)
        frozen = self.config.algorithm.freeze_policy
        if frozen or not self._knows_enough():
            if updater.has_critic and not apart:
                metrics |= self._fit_critic(batch, step)
            return metrics if frozen else metrics | {"policy/waiting": 1.0}
        actor = self._actor_batch(batch)
        if actor is None:
            return metrics | {"policy/waiting": 1.0}
        if updater.algorithm.name == "ppo":
            metrics["value/lambda"] = updater.algorithm.turn_lambda
            # Values recorded while sampling are those of the critic of now, unless it has learned since.
            if apart or replay.actor_episodes:
                actor = updater.refreshed(actor, passes.values_of(actor) if passes else None)
        shaping_BT = None
        if feelings and updater.algorithm.name == "ppo":
            potential = potentials(actor, feelings, share=share)
            shaping_BT = shaping_advantages(actor, potential, updater.algorithm)
        imitates = replay.policy_passes > 0 and self.by_value
        imitated = passes.batch if passes else batch
        gains_BT = None
        if imitates:
            judged = imitated
            if passes and imitated.gated:  # a stop is worth what the critic of now says, as the states before it are
                judged = imitated._replace(final_value_B=updater.final_values(imitated))
            gains_BT = self._gains(judged, passes.values() if passes else batch.values_BT)
        fresh = min(len(self._for_actor(batch.episodes)), len(actor.episodes))
        logprobs = reference.logprobs(updater, actor) if reference else None
        metrics |= updater.update(
            actor,
            step=step,
            seed=self.config.seed,
            shaping_BT=shaping_BT,
            reference_BT=logprobs,
            critic=not apart,
            fresh=fresh,
        )
        if gains_BT is not None:
            metrics["policy/gains_loss"] = updater.imitate_gains(
                imitated,
                gains_BT,
                passes=replay.policy_passes,
                seed=self.config.seed,
                step=step,
                learning_rate=updater.warmup(step) * self.config.algorithm.learning_rate,
            )
        return metrics | self._replay_successes(step)

    def _succeeded_enough(self) -> bool:
        return self.successes >= self.config.replay.actor_start_successes

    def _knows_enough(self) -> bool:
        """Whether the actor may move: after the first successes, or by a critic that knows what leads to one."""
        return self._succeeded_enough() or (
            self.taught is not None and self.by_value and self.adapter.ranking is not None
        )

    def _forget_teaching(self) -> None:
        self.taught, self.adapter.prior = None, ()

    def _for_actor(self, episodes: Sequence[Episode]) -> Sequence[Episode]:
        """Return the episodes that the actor can learn from: without V those that the gate stopped tell nothing."""
        return episodes if self.by_value else [one for one in episodes if one.end is not EpisodeEnd.STOPPED]

    def _actor_batch(self, batch: Batch) -> Batch | None:
        """Return the newest episodes that the actor can learn from; None where the gate stopped them all."""
        newest = self.config.replay.actor_episodes
        batch = make_batch(self.replay.newest(newest)) if newest else batch
        left = self._for_actor(batch.episodes)
        if len(left) == len(batch.episodes):
            return batch
        return make_batch(left) if left else None

    def _gains(self, batch: Batch, values_BT: Array) -> Array:
        """Return by how much of the success that was left each action of the critic's episodes raised it.

        Under a gate a survivor's gains also stand for those of the episodes that were stopped where it went on.
        """
        algorithm = dataclasses.replace(self._algorithm(), name="ppo")
        if not batch.gated:
            returns = compute_returns(batch, algorithm, values_BT=values_BT)
            return relative_gains(returns.advantages_BT, values_BT, most=MOST_GAIN)
        return gated_gains(
            batch.rewards_BT,
            values_BT,
            batch.final_value_B,
            batch.length_B,
            actor_lambda(batch, algorithm),
            batch.gate_BT,
            batch.stopped_B,
            lambda advantages_BT, values_BT: relative_gains(advantages_BT, values_BT, most=MOST_GAIN),
            gamma=algorithm.gamma,
        )

    def _algorithm(self) -> Any:
        """Return the settings that the actor's advantages and the critic's targets are made with in this step."""
        algorithm = self.config.algorithm
        if algorithm.adapt_lambda or self.auto:
            algorithm = dataclasses.replace(algorithm, turn_lambda=self.adapter.value)
        if self.taught and not self.taught.own:
            algorithm = dataclasses.replace(algorithm, critic_lambda=0.0)
        return dataclasses.replace(algorithm, name=_ESTIMATORS[self.method]) if self.auto else algorithm

    def _judge_critic(self, batch: Batch, feelings: Feelings | None, share: float) -> dict[str, float]:
        """Measure the critic that sampled the batch, before it learns from it.

        Lambda follows what it hands credit over to: with `share` of the drives, V and drives together.
        """
        explained = self.variance.update(batch, batch.values_BT, gamma=self.config.algorithm.gamma)
        rows = batch.values_BT.tolist()
        drives_BT = potentials(batch, feelings, share=share).states_BT if feelings else 0.0
        self.adapter.update(batch.episodes, (batch.values_BT + drives_BT).tolist())
        ranks = diagnostics.ranking(batch.episodes, rows)
        metrics = {f"value/auc_{part}": value for part, value in ranks.items() if value is not None}
        metrics |= diagnostics.outside_metrics(batch, self.config.model.returns_range)
        if explained is not None:
            metrics["value/explained_variance"] = explained
        if self.taught:
            metrics |= self.taught.update(batch.episodes, rows)
            if not self.taught.believed:
                self._forget_teaching()
        return metrics

    def _fit_critic(self, batch: Batch, step: int) -> dict[str, float]:
        """Let the critic alone learn from this step's episodes, with as many passes as beside an actor that moves."""
        algorithm, updater = self._algorithm(), self.updater
        returns = compute_returns(batch, algorithm)
        key, warmup = ("waiting", step), updater.warmup(step)
        return updater.fit_critic(
            batch, returns, passes=algorithm.passes, seed=self.config.seed, key=key, warmup=warmup
        )

    def _replay_critic(self, batch: Batch, step: int) -> tuple[CriticPasses, dict[str, float]]:
        """Let the critic learn from this step's episodes and replayed ones, off-policy."""
        replay, new = self.config.replay, self.config.episodes_per_step
        rng = np.random.default_rng(keyed_seed(self.config.seed, "replay", step))
        newest = batch.episodes if not self.config.algorithm.dynamic_sampling else self.replay.newest(new)
        old = self.replay.draw(
            replay.critic_episodes - new, rng, half_life_steps=replay.half_life_steps, exclude_newest=len(newest)
        )
        learned = make_batch([*old, *newest])
        passes = CriticPasses(self.updater, learned, seed=self.config.seed, key=("replay", step))
        returns = self.updater.replay_returns(passes, ratio_cap=replay.ratio_cap, fresh=len(newest))
        return passes, passes.fit(returns, passes=replay.critic_passes, warmup=self.updater.warmup(step))

    def _caught_up(self, episodes: int) -> dict[str, float]:
        """Let `auto` learn from successes what steps of as many episodes would have learned.

        They were played for the probe and for V while the policy stood still; success replay alone would have begun.
        """
        metrics: dict[str, float] = {}
        if self.auto:
            for number in range(episodes // self.config.episodes_per_step):
                metrics |= self._replay_successes(number + 1, "value pretraining")
        return metrics

    def _replay_successes(self, step: int, label: str = "successes") -> dict[str, float]:
        """Imitate successes drawn from the replay if the recipe asks for it; `auto` does so beside V and without it."""
        replay = self.config.replay
        if not replay.success_episodes or (self.auto and self.method == "leave-one-out"):
            return {}
        if not self._succeeded_enough():  # by a critic from an earlier run the actor moves before
            return {}
        rng = np.random.default_rng(keyed_seed(self.config.seed, label, step))
        rate = self.updater.warmup(step) * self.config.algorithm.learning_rate
        losses: list[float] = []
        for _ in range(max(1, replay.success_passes)):
            won = self.replay.draw(
                replay.success_episodes,
                rng,
                half_life_steps=replay.half_life_steps,
                priority=lambda episode: float(episode.solved),
            )
            if not won:
                return {}
            losses.append(self.updater.imitate([survivor_part(episode) for episode in won], learning_rate=rate))
        return {"policy/imitation_loss": float(np.mean(losses))}

    # The choice of `auto` -------------------------------------------------------------------------

    def _recheck(self, step: int) -> None:
        """Choose again from the newest episodes and the pooled ranking; nothing is sampled for it."""
        recent = self.replay.newest(RECHECK_STEPS * self.config.episodes_per_step)
        self._choose(step, choose(evidence_of(recent, ranking=self.adapter.ranking)))

    def _choose(self, step: int, advice: Advice) -> None:
        self.method = advice.method
        self.tell(step, advice)
