"""Which way of learning suits an environment? Evidence in, a choice and its reasons in plain words out.

    meet(config) -> Advice           a model meets an environment for a few episodes (`foretaste doctor --advise`)
    choose(Evidence) -> Advice       the rule, also re-applied while training with `algorithm.name = "auto"`

The rule rests on what decides whether mid-episode credit can help: whether there is a later turn to pass it back from,
and whether a critic can tell from an unfinished episode how it will end. Signal-to-noise figures are shown as evidence
and do not decide: an estimator may look strong on frozen episodes because it is biased.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np

from foretaste.config import ReplayConfig, TrainConfig
from foretaste.errors import RunError
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.engines import make_engine
from foretaste.progress import Silent
from foretaste.records import Episode, EpisodeEnd
from foretaste.rl.adapt import Ranking, pairs_of, pooled
from foretaste.rl.batch import make_batch, usable, without_values
from foretaste.rl.diagnostics import PARTS, judged_values
from foretaste.rl.gate import episode_weight
from foretaste.rl.imitate import imitate
from foretaste.rl.pools import pool_of
from foretaste.rl.rollout import rollout
from foretaste.rl.signal import Signal, signals
from foretaste.rl.sources import title
from foretaste.rl.tasks import training_tasks
from foretaste.rl.update import Updater
from foretaste.statistics import exact_interval

Method = Literal["value", "leave-one-out", "success replay"]

TRUSTED = 0.6
"""AUC halfway, less one standard error, from which a critic is said to see."""
GROUP = 8
"""Group size for which the share of groups without signal is told."""
RECHECK_STEPS = 5
START = 4
"""Successes that the policy waits for where a recipe says nothing; fewer, imitated alone, are taken for the rule."""
SUCCESS_PASSES = 8
"""Steps on replayed successes where a recipe says nothing: as many as success replay has in the studies."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a few episodes say about an environment and a policy."""

    episodes: int
    successes: int
    turns: float
    """Mean turns of an episode."""
    auc: dict[str, Ranking | None]
    """How well V ranks unfinished episodes, at 25, 50 and 75%; None where one of the outcomes is missing."""
    signals: tuple[Signal, ...] = ()
    stopped: int = 0
    """Episodes that the gate stopped, which are not among the `episodes`."""

    rate: float | None = None
    """Share of successes with survivors of the gate counted for the stopped ones too; None: no gate."""

    @property
    def success(self) -> float:
        """Share of episodes that succeed."""
        if self.rate is not None:
            return self.rate
        return self.successes / self.episodes if self.episodes else 0.0

    @property
    def silent_groups(self) -> float:
        """Expected share of groups of eight that all fail or all succeed, at this success."""
        return self.success**GROUP + (1 - self.success) ** GROUP


@dataclass(frozen=True, slots=True)
class Advice:
    """A way of learning, why, and on what evidence."""

    method: Method
    reasons: tuple[str, ...]
    evidence: Evidence

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the ledger."""
        values = dataclasses.asdict(self)
        values["evidence"] |= {"success": self.evidence.success, "silent_groups": self.evidence.silent_groups}
        values["evidence"]["auc"] = {k: v and v._asdict() for k, v in self.evidence.auc.items()}
        values["evidence"]["signals"] = [signal._asdict() for signal in self.evidence.signals]
        return values


def choose(evidence: Evidence) -> Advice:
    """Apply the rule.

    1. Episodes of one turn: no later turn to pass credit back from; "leave-one-out".
    2. V halfway is right (AUC - SE > 0.6): "value", credit in mid-episode.
    3. Otherwise "success replay", while the critic goes on learning: until V can tell single turns apart it has nothing
       to add to what a success shows, and takes several times the computing (the study `credit-map`).
    """
    rank = evidence.auc.get("50")
    share = f"{evidence.successes} of {evidence.episodes} episodes succeed."
    if evidence.stopped:
        share = f"{share[:-1]}; the gate stopped {evidence.stopped} more."
    if evidence.turns <= 1:
        return Advice("leave-one-out", (share, _ONE_TURN), evidence)
    why = [share]
    if evidence.successes == 0:
        why.append("No estimator has a signal yet. An easier level or a warm start (imitate.episodes) would help.")
    else:
        why.append(f"A group of {GROUP} would carry no signal in {evidence.silent_groups:.0%} of cases.")
    if rank is None:
        why.append("Whether V ranks unfinished episodes is not measured: it takes a success and a failure.")
    else:
        why.append(
            f"V halfway ranks a later success above a later failure in {rank.auc:.0%} of pairs (+- {rank.error:.0%})."
        )
        if rank.auc - rank.error > TRUSTED:
            why.append("So V can tell single turns apart: credit in mid-episode.")
            return Advice("value", tuple(why), evidence)
    why.append("Until V is shown to rank, successes are learned from again as they are; V joins in once it is.")
    return Advice("success replay", tuple(why), evidence)


_ONE_TURN = "Episodes have one turn, so there is no later turn to pass credit back from."


def evidence_of(
    episodes: Sequence[Episode],
    rows: Sequence[Sequence[float]] | None = None,
    *,
    ranking: Ranking | None = None,
    found: Sequence[Signal] = (),
) -> Evidence:
    """Return the evidence in episodes; `rows` are their values by a critic that did not learn from them.

    `ranking` replaces the AUC halfway (pooled over steps, while training).
    """
    good = [e for e in episodes if e.end is not EpisodeEnd.ERROR and e.success is not None]
    judged = judged_values(episodes, rows)
    auc = {name: pooled([pairs_of(judged, part)]) for name, part in PARTS.items()}
    if ranking is not None:
        auc["50"] = ranking
    stopped = sum(e.end is EpisodeEnd.STOPPED for e in episodes)
    won = sum(episode_weight(episode) for episode in good if episode.solved)
    gated = stopped > 0 or any(episode_weight(episode) != 1.0 for episode in good)
    return Evidence(
        episodes=len(good),
        successes=sum(episode.solved for episode in good),
        turns=float(np.mean([len(e.turns) for e in good])) if good else 0.0,
        auc=auc,
        signals=tuple(found),
        stopped=stopped,
        rate=min(1.0, won / (len(good) + stopped)) if gated else None,
    )


def probe(updater: Updater, episodes: Sequence[Episode], *, seed: int, directions: int = 16) -> Advice:
    """Fit the critic to half of the episodes, measure on the other half, and choose. The critic keeps what it learned.

    Raises: ValueError if no episode is usable.
    """
    batch = make_batch(episodes)
    half = max(1, len(batch.episodes) // 2)
    updater.pretrain_values(make_batch(batch.episodes[:half]), seed=seed)
    unseen = updater.refreshed(make_batch(batch.episodes[half:] or batch.episodes))
    found = signals(updater, unseen, directions=directions, seed=seed)
    measured = evidence_of(unseen.episodes, unseen.values_BT.tolist(), found=found or ())
    everything = evidence_of(batch.episodes)
    counts = {"episodes": everything.episodes, "successes": everything.successes, "turns": everything.turns}
    return choose(dataclasses.replace(measured, **counts))


def filled(config: TrainConfig) -> TrainConfig:
    """Return the config of an `auto` run: replay settings left at 0 take those of the replay critic.

    The critic learns from four times the step's episodes (replayed ones included), the actor from the newest two
    steps; the policy also imitates what raised V (where V is a probability of success), and half a step's worth of
    successes, `SUCCESS_PASSES` times.
    """
    given, new = config.replay, config.episodes_per_step
    replay: ReplayConfig = dataclasses.replace(
        given,
        critic_episodes=given.critic_episodes or 4 * new,
        actor_episodes=given.actor_episodes or 2 * new,
        policy_passes=given.policy_passes or int(config.model.rates_success),
        success_episodes=given.success_episodes or max(1, new // 2),
        success_passes=given.success_passes or SUCCESS_PASSES,
        actor_start_successes=given.actor_start_successes or START,
    )
    return dataclasses.replace(config, replay=replay)


def words(advice: Advice) -> list[str]:
    """Return the advice and its evidence as lines for a person."""
    evidence = advice.evidence
    interval = exact_interval(evidence.successes, evidence.episodes)
    lines = [f"Advice: {advice.method}", *(f"  {reason}" for reason in advice.reasons), "", "Evidence:"]
    lines.append(f"  success now        {evidence.success:.3f}  [{interval.low:.3f}, {interval.high:.3f}]")
    lines.append(f"  silent groups of {GROUP}  {evidence.silent_groups:.0%} would all fail or all succeed")
    lines.append(f"  turns              {evidence.turns:.1f}")
    for name in PARTS:
        rank = evidence.auc.get(name)
        text = "not measured: needs successes and failures" if rank is None else f"{rank.auc:.2f} +- {rank.error:.2f}"
        lines.append(f"  AUC of V at {name}%    {text}")
    lines.append("    (shares of an episode's own length: where failures end early, a V that counts turns ranks too)")
    for signal in evidence.signals:
        ratio = "" if signal.relative is None else f"  ({signal.relative:.1f}x leave one out)"
        lines.append(f"  signal of {signal.estimator:<14} {signal.quality:.4f}{ratio}")
    if not evidence.signals:
        lines.append("  signal of estimators not measured: needs float32 weights")
    return lines


def meet(config: TrainConfig, *, env: Callable[[], gymnasium.Env[Any, Any]] | None = None) -> Advice:
    """Let the config's model, warm started as the config says, meet its environment for a few episodes; advise.

    Plays `algorithm.value_pretraining_episodes` training episodes, 64 at least.

    Raises: RunError if the environment failed in every episode.
    """
    config = dataclasses.replace(config, algorithm=dataclasses.replace(config.algorithm, name="auto"))
    pool = pool_of(config, env)
    actor_critic = ActorCritic.load(config.model, seed=config.seed)
    updater = Updater(actor_critic, config.algorithm, temperature=config.sampling.temperature)
    if config.imitate.episodes:
        imitate(config, pool, updater, actor_critic.template, Silent())
    count = max(64, config.algorithm.value_pretraining_episodes)
    episodes = rollout(make_engine(actor_critic, config.sampling), training_tasks(config, 0, count), pool).episodes
    if not any(usable(episode) for episode in episodes):
        reason = next((episode.error for episode in episodes if episode.error), "no action was sampled")
        raise RunError(f"No episode of {title(config)} can be learned from: {reason}. foretaste envs check it")
    if updater.privileged:
        episodes = [without_values(episode) for episode in episodes]
    return probe(updater, episodes, seed=config.seed)
