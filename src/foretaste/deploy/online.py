"""Learning on the job: from single answers to single prompts, as feedback comes in.

    experiences -> stale ones masked -> critic (V-trace on new and replayed) -> actor (PPO on the value function,
    KL to the accepted version) -> corrections and old tasks imitated -> alarms -> a checkpoint named by its content

An alarm is answered softly first (`training/response.py`): the best kept weights, lower rates, a stronger KL term.

There are no groups: live traffic answers each prompt once, so credit comes from the critic. Everything here runs in
the training process; serving only ever reads the folders it writes. Next: `alarms.py`, `old_tasks.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from foretaste.config import AlgorithmConfig
from foretaste.deploy.alarms import Alarm, AlarmConfig, Vital, alarms, weighed
from foretaste.deploy.training.response import Ladder, Response
from foretaste.errors import ConfigError
from foretaste.models import checkpoint as checkpoints
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.records import Action, Checkpoint, Episode, EpisodeEnd, Turn
from foretaste.rl.batch import Batch, compute_returns, make_batch
from foretaste.rl.critic_passes import CriticPasses
from foretaste.rl.reference import Reference
from foretaste.rl.returns import Array
from foretaste.rl.tasks import keyed_seed
from foretaste.rl.update import Updater

TRAFFIC = "traffic"
"""Environment id of an episode that came from a deployment."""
LEAST_SOFTENED_KL = 0.01
"""KL coefficient that a soft answer to an alarm begins with where none is set."""
KEPT_VITALS = 512
"""Steps that the alarms look back, beside the first ones."""
MOST_WEIGHT = 10.0
"""Of one answer among those that tell how well the policy of now does."""


@dataclass(frozen=True, slots=True)
class Experience:
    """One answer of the learner and what was said about it."""

    id: str
    """Response id; it also orders ties."""
    checkpoint: str
    """Content hash of the weights that answered."""
    prompt_tokens: tuple[int, ...]
    action: Action
    """The answer with its tokens and their log-probabilities as sampled."""
    score: float | None = None
    """Judgement in [0, 1]; None: nobody judged the answer."""
    correction: tuple[int, ...] | None = None
    """Tokens of a right answer, its end included (`ChatTemplate.action`), given by a person or the incumbent."""

    def __post_init__(self) -> None:
        """Refuse what could not be learned from."""
        if self.score is not None and not 0 <= self.score <= 1:
            raise ConfigError(f"score = {self.score} of response {self.id} cannot be used; accepted: 0 to 1, or none")
        if len(self.action.tokens) != len(self.action.logprobs):
            raise ConfigError(
                f"response {self.id} has {len(self.action.tokens)} tokens and {len(self.action.logprobs)} "
                "log-probabilities; record both as they were sampled"
            )


@dataclass(frozen=True, slots=True)
class OnlineConfig:
    """How a deployed learner learns."""

    algorithm: AlgorithmConfig = field(
        default_factory=lambda: AlgorithmConfig(
            learning_rate=1e-3, critic_learning_rate=2e-3, head_learning_rate=3e-3, kl_coefficient=0.02
        )
    )
    """Rates for `nano`; a pretrained model wants those of `foretaste train`."""
    temperature: float = 1.0
    """Temperature at which the learner answers; behaviour log-probabilities are of it."""
    max_log_ratio: float = 1.0
    """Stale: a sample is masked whose log-probability moved by more than this a token since it was sampled."""
    critic_samples: int = 128
    """Judged answers, newest first, that the critic learns from in each step."""
    critic_passes: int = 2
    corrections: int = 48
    """Corrections, drawn from the newest `memory`, that are imitated in each step; 0: none."""
    old_tasks: int = 16
    """Demonstrations of old tasks that are imitated in each step."""
    memory: int = 2048
    """Experiences and corrections that are kept."""
    imitation_passes: int = 2
    """Supervised steps in each step of learning, each on examples of its own."""
    imitation_rate: float = 1e-3
    alarms: AlarmConfig = field(default_factory=AlarmConfig)
    seed: int = 0


class OnlineReport(NamedTuple):
    """What one step of learning did."""

    step: int
    metrics: dict[str, float]
    """`policy/*` and `value/*` as in docs/metrics.md, and `online/*`."""
    masked: int
    """Stale samples that entered no loss of the actor."""
    alarms: tuple[Alarm, ...]
    stopped: bool
    """True: learning has stopped until a person resumes it, and the weights are the best kept ones again."""
    response: Response = Response.NONE
    """How alarms were answered."""


class OnlineTrainer:
    """Owns the weights that learn, and their memory; writes checkpoints into `folder`."""

    def __init__(
        self,
        model: ActorCritic,
        config: OnlineConfig,
        folder: str | Path,
        *,
        old_tasks: Sequence[TokenSequence] = (),
        trusted: bool = True,
    ) -> None:
        """`old_tasks` are demonstrations of what must not be forgotten, other items than those of the gate.

        `trusted` says that the first weights can do something: learning then stays near them from the start; otherwise
        it does so once a version has been accepted.
        """
        self.config = config
        self.folder = Path(folder)
        self.old_tasks = list(old_tasks)
        self.episodes: list[Episode] = []
        self.corrections: list[TokenSequence] = []
        self.history: list[Vital] = []
        self.stopped: tuple[Alarm, ...] = ()
        self.ladder = Ladder(config.alarms)
        self.steps = 0
        self.trusted = trusted
        self._use(model)
        self.accepted = self.best = self.publish(parents=())
        """`best` is what an alarm goes back to: the accepted version, or a later one that held-back checks favour."""

    def step(self, experiences: Sequence[Experience]) -> OnlineReport:
        """Learn from newly judged experiences; does nothing but remember while learning has stopped or cools down.

        An experience without a score serves its correction alone; one without either is ignored.
        """
        judged = [to_episode(one) for one in experiences if one.score is not None and one.action.tokens]
        if not self.stopped and self.ladder.cool_down():  # what comes now is about the weights that were given up
            return OnlineReport(self.steps, {}, 0, (), False, Response.COOLING_DOWN)
        self._remember(judged, experiences)
        if self.stopped:
            return OnlineReport(self.steps, {}, 0, self.stopped, True, Response.STOPPED)
        self.steps += 1
        metrics: dict[str, float] = {}
        masked = 0
        if judged:
            metrics |= self._critic()
            learned, masked = self._actor(judged)
            metrics |= learned
        metrics |= self._imitate()
        self._watch(metrics)
        found = alarms(self.history, self.config.alarms)
        if found:
            found, response = self.answer(weighed(found, self.history, self.config.alarms))
            return OnlineReport(self.steps, metrics, masked, found, bool(self.stopped), response)
        if self.ladder.forgive():
            self._use(self.model)
            self._stay_near(self.accepted)
        return OnlineReport(self.steps, metrics, masked, (), False)

    def answer(self, found: tuple[Alarm, ...]) -> tuple[tuple[Alarm, ...], Response]:
        """Answer alarms: a notice changes nothing, all else brings the best kept weights back; return what was done."""
        response = self.ladder.respond(found)
        if response is Response.NOTICED:
            return found, response
        self.stopped = found if response is Response.STOPPED else ()
        self.history = []
        self._use(checkpoints.load(self.best.path, device=str(self.model.device)))
        if self.best.id != self.accepted.id:
            self._stay_near(self.accepted)
        return found, response

    def publish(self, *, parents: Sequence[str] | None = None) -> Checkpoint:
        """Write the weights of now into a folder named by their content, and return its record.

        `parents` defaults to the accepted version.
        """
        parents = (self.accepted.id,) if parents is None else parents
        made = checkpoints.save(self.model, self.folder / "new", parents=parents, step=self.steps)
        place = self.folder / made.id[:16]
        if place.exists():  # equal weights: the folder that serving may be reading stays as it is
            return checkpoints.read(place)
        Path(made.path).rename(place)
        return checkpoints.read(place)

    def accept(self, checkpoint: Checkpoint) -> None:
        """Take a checkpoint that was promoted for the version that learning stays near, and falls back to."""
        self.accepted, self.best, self.trusted = checkpoint, checkpoint, True
        # What was measured against the version before says nothing about the distance from this one.
        self.history = [vital._replace(kl=None) for vital in self.history]
        self._stay_near(checkpoint)

    def resume(self) -> None:
        """Continue to learn after an alarm, from the best kept version: a person's decision."""
        self.stopped, self.history = (), []
        self.ladder.reset()
        self._use(self.model)
        self._stay_near(self.accepted)

    def resume_rates(self) -> None:
        """Take the rates that the ladder says, after it was loaded from another process."""
        if self.ladder.rate < 1:
            self._use(self.model)
            self._stay_near(self.accepted)

    def forget(self) -> None:
        """Drop remembered experiences and corrections: after a breach they may teach what is no longer right.

        The weights and the demonstrations of old tasks stay. What the alarms compare with begins anew: scores of the
        world before would make relearning look like a collapse.
        """
        self.episodes, self.corrections, self.history = [], [], []

    # Pieces -------------------------------------------------------------------------------------

    def _use(self, model: ActorCritic) -> None:
        """Learn with these weights from now on, with an optimiser that has no history."""
        self.model = model
        rate, algorithm = self.ladder.rate, self.config.algorithm
        if rate < 1:
            stay = max(algorithm.kl_coefficient, LEAST_SOFTENED_KL) / rate
            algorithm = replace(algorithm, learning_rate=rate * algorithm.learning_rate, kl_coefficient=stay)
        self.updater = Updater(model, algorithm, temperature=self.config.temperature)
        self.reference = Reference(model)

    def _stay_near(self, checkpoint: Checkpoint) -> None:
        """Measure distance from a version, and be drawn to it, from now on."""
        near = checkpoints.load(checkpoint.path, device=str(self.model.device))
        self.reference = Reference(self.model, [p.detach().clone() for p in near.policy_parameters()])

    def _remember(self, judged: Sequence[Episode], experiences: Sequence[Experience]) -> None:
        self.episodes = [*self.episodes, *judged][-self.config.memory :]
        self.corrections += [_demonstration(one.prompt_tokens, one.correction) for one in experiences if one.correction]
        del self.corrections[: -self.config.memory]

    def _watch(self, metrics: dict[str, float]) -> None:
        """Write down what the alarms look at; `metrics` loses nothing."""
        score = metrics.get("online/score")
        self.history.append(
            Vital(
                score,
                round(metrics.get("online/effective_answers", 0.0)),
                metrics.get("policy/entropy"),
                metrics.get("online/accepted_kl"),
                metrics.get("policy/gradient_norm"),
                metrics.get("online/masked_share"),
                self._not_finite(metrics),
            )
        )
        window = self.config.alarms.window
        del self.history[window : -(KEPT_VITALS + window)]  # the first window is what entropy is compared with

    def _not_finite(self, metrics: dict[str, float]) -> str:
        """Return what is NaN or infinite now; "" for a healthy step."""
        named = next((name for name, value in metrics.items() if not math.isfinite(value)), "")
        parameters = [*self.model.policy_parameters(), *self.model.critic_parameters()]
        if not all(bool(torch.isfinite(one.detach().sum(dtype=torch.float32))) for one in parameters):
            return "a weight"
        return named

    def _critic(self) -> dict[str, float]:
        """Fit the critic to the newest judged answers, each under the policy of now."""
        batch = make_batch(self.episodes[-self.config.critic_samples :])
        if self.steps == 1:
            self.model.start_values(float(batch.rewards_BT.sum(axis=1).mean()))
        passes = CriticPasses(self.updater, batch, seed=self.config.seed, key=("online", self.steps))
        returns = self.updater.replay_returns(passes, ratio_cap=1.0)
        return passes.fit(returns, passes=self.config.critic_passes)

    def _actor(self, episodes: Sequence[Episode]) -> tuple[dict[str, float], int]:
        """Take PPO steps on the newly judged answers that are not stale; return metrics and the number masked."""
        everything = make_batch(episodes)
        now_BT = self.updater.logprobs(everything)
        fresh = fresh_rows(everything, now_BT, self.config.max_log_ratio)
        masked = len(everything.episodes) - int(fresh.sum())
        metrics = {"online/masked_share": masked / len(everything.episodes)}
        metrics["online/score"], metrics["online/effective_answers"] = current_score(everything, now_BT)
        if not fresh.any():
            return metrics, masked
        batch = make_batch([episode for episode, keep in zip(everything.episodes, fresh, strict=True) if keep])
        accepted_BT = self.reference.logprobs(self.updater, batch) if self.trusted else None
        if accepted_BT is not None:
            moved = (now_BT[fresh][:, : batch.mask_BT.shape[1]] - accepted_BT)[batch.mask_BT]
            # The k3 estimate of KL(policy || accepted), d - 1 + e^-d for d = log ratio (Schulman 2020); capped, or one
            # token that the accepted version thought impossible would be all of the mean.
            metrics["online/accepted_kl"] = float(np.minimum(np.exp(-moved) - 1 + moved, 20.0).mean())
        batch = self.updater.refreshed(batch)
        metrics |= self.updater.update(
            batch, step=self.steps, seed=self.config.seed, reference_BT=accepted_BT, critic=False
        )
        advantages = compute_returns(batch, self.config.algorithm).advantages_BT
        metrics["online/advantage_size"] = float(np.abs(advantages[batch.mask_BT]).mean())
        return metrics, masked

    def _imitate(self) -> dict[str, float]:
        """Take supervised steps on drawn corrections and old tasks."""
        rng = np.random.default_rng(keyed_seed(self.config.seed, "imitate", self.steps))
        rate = self.updater.warmup(self.steps) * self.config.imitation_rate * self.ladder.rate
        losses: list[float] = []
        for _ in range(self.config.imitation_passes):
            drawn = _draw(self.corrections, self.config.corrections, rng)
            drawn += _draw(self.old_tasks, self.config.old_tasks, rng)
            if drawn:
                losses.append(self.updater.imitate(drawn, learning_rate=rate))
        return {"policy/imitation_loss": float(np.mean(losses))} if losses else {}


def to_episode(experience: Experience) -> Episode:
    """Return an experience as the episode of one turn that the rest of training takes.

    Raises: ConfigError for an experience that nobody judged.
    """
    if experience.score is None:
        raise ConfigError(f"response {experience.id} was not judged; an episode needs a score from 0 to 1")
    turn = Turn("", experience.action, experience.prompt_tokens, reward=experience.score)
    seed = keyed_seed(TRAFFIC, experience.id)
    return Episode(
        TRAFFIC, seed, "train", 1, "plain", (turn,), EpisodeEnd.TERMINATED, experience.score, experience.checkpoint
    )


def fresh_rows(batch: Batch, now_BT: Array, max_log_ratio: float) -> np.ndarray:
    """Return which episodes the policy of now could still have sampled: mean |log ratio| a token within the limit.

    Beyond it a probability ratio says little about the policy of now, and its variance grows without bound.
    """
    moved_BT = np.where(batch.mask_BT, np.abs(now_BT - batch.logprobs_BT), 0.0)
    return moved_BT.sum(axis=1) / batch.length_B <= max_log_ratio


def current_score(batch: Batch, now_BT: Array) -> tuple[float, float]:
    """Return the mean score of the policy of now on judged answers of older ones, and how many answers that is worth.

        score = sum_i w_i s_i / sum_i w_i,   worth = (sum_i w_i)^2 / sum_i w_i^2,   w_i = pi_now(a_i) / pi_sampled(a_i)

    Weights are cut at `MOST_WEIGHT`. An answer that the policy would not give any more tells next to nothing of it.

    Source: self-normalised importance sampling; effective sample size, Kish 1965.
    """
    moved_B = np.where(batch.mask_BT, now_BT - batch.logprobs_BT, 0.0).sum(axis=1)
    weights_B = np.exp(np.clip(moved_B, -20.0, math.log(MOST_WEIGHT)))
    scores_B = np.array([episode.success or 0.0 for episode in batch.episodes])
    total = float(weights_B.sum())
    return float((weights_B * scores_B).sum() / total), float(total**2 / (weights_B**2).sum())


def _demonstration(prompt: Sequence[int], answer: Sequence[int] | None) -> TokenSequence:
    tokens = list(answer or ())
    return TokenSequence([*prompt, *tokens], [False] * len(prompt) + [True] * len(tokens))


def _draw(pool: Sequence[TokenSequence], count: int, rng: np.random.Generator) -> list[TokenSequence]:
    if not pool or count <= 0:
        return []
    return [pool[index] for index in sorted(rng.choice(len(pool), size=min(count, len(pool)), replace=False))]
