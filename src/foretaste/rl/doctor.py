"""Bug or dead end? Probes that isolate faults of the machinery, run with the user's own model and settings.

    examine(config) -> list[Finding]         exact checks on sampled episodes, then short learning probes
    diagnosis(findings, outcome) -> str      "bug here", "these settings do not learn" or "machinery sound ..."

Exact checks compare what the trainer computes with the same quantity worked out here token by token from the
episodes alone, sharing no code with it: they find faults that still let a model learn a little. Learning probes
find the rest. `checkup.py` has the exact checks, `probe_envs.py` the environments.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from foretaste.config import CurriculumConfig, EnvConfig, ImitateConfig, SamplingConfig, TrainConfig
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.sampler import Sampler
from foretaste.progress import Silent
from foretaste.records import EpisodeEnd
from foretaste.rl import checkup
from foretaste.rl.batch import make_batch
from foretaste.rl.checkup import Finding
from foretaste.rl.imitate import imitate
from foretaste.rl.pools import pool_of
from foretaste.rl.probe_envs import Constant, Delayed, Endless, Masking, Observed, OneChoice, Probe
from foretaste.rl.rollout import Rollout, rollout
from foretaste.rl.sources import training_sources
from foretaste.rl.tasks import training_tasks
from foretaste.rl.update import Updater
from foretaste.statistics import paired_difference_interval

LEARNING: tuple[tuple[type[Probe], str], ...] = (
    (OneChoice, "policy step: rl/update.py, rl/losses.py; or algorithm.learning_rate"),
    (Observed, "what the policy reads: models/sampler.py, models/conversation.py; or model capacity"),
    (Delayed, "credit over turns: rl/returns.py, rl/batch.py; or algorithm.turn_lambda"),
)
"""Probes that a policy must learn, and what is likely at fault where it does not."""

STEPS, PATIENT_STEPS, EPISODES = 12, 40, 32
"""Steps of a first try at a learning probe, those of a second one, and the episodes of a step."""
FAST_RATE = 2e-3
"""Learning rate at which a small model must learn a probe within those steps."""
LARGE = 20_000_000
"""Policy weights above which learning probes would take longer than a person waits."""
LEARNED = 0.85
"""Mean success of the last three steps from which a probe counts as learned; guessing gives 0.5."""


class Bench:
    """A model on a probe environment, with everything that training uses."""

    def __init__(self, config: TrainConfig, env: Callable[[], gymnasium.Env[Any, Any]] | None) -> None:
        """Load the model fresh, so that probes do not depend on their order; `env` as in `train`."""
        self.config = config
        self.pool = pool_of(config, env)
        self.actor_critic = ActorCritic.load(config.model, seed=config.seed)
        self.sampler = Sampler(self.actor_critic, config.sampling)
        self.updater = Updater(self.actor_critic, config.algorithm, temperature=config.sampling.temperature)

    def warm_up(self) -> None:
        """Teach the form of an answer and nothing of the task."""
        imitate(self.config, self.pool, self.updater, self.actor_critic.template, Silent())

    def play(self, step: int, episodes: int = EPISODES) -> Rollout:
        """Sample a step's episodes."""
        return rollout(self.sampler, training_tasks(self.config, step, episodes), self.pool)


def examine(
    config: TrainConfig, *, env: Callable[[], gymnasium.Env[Any, Any]] | None = None, own_env: bool = True
) -> Iterator[Finding]:
    """Yield findings as they come: exact checks first, then learning probes, then the user's own environment.

    `env` takes the place of `config.env.id`. Learning probes are left out for models whose policy has more than 20
    million weights: they would take longer than a person waits.
    """
    yield from _exact(config)
    bench = Bench(probe_config(config, OneChoice), OneChoice)
    if sum(weight.numel() for weight in bench.actor_critic.policy_parameters()) > LARGE:
        yield Finding("learning probes", None, "left out: the model is large", "")
    else:
        for kind, suspect in LEARNING:
            yield _learns(config, kind, suspect)
        if bench.updater.has_critic:
            yield _constant(config)
    if own_env:
        yield from _own_environment(config, env)


def probe_config(config: TrainConfig, kind: type[Probe]) -> TrainConfig:
    """Return the user's settings on a probe: same model and algorithm, short episodes, a warm start."""
    algorithm = config.algorithm
    if algorithm.name == "auto":
        algorithm = dataclasses.replace(algorithm, name="ppo")
    return dataclasses.replace(
        config,
        env=EnvConfig(kind.name, examples=0, max_turns=kind.turns),
        curriculum=CurriculumConfig(),
        sampling=SamplingConfig(temperature=config.sampling.temperature, max_new_tokens=4, max_context=512),
        algorithm=dataclasses.replace(algorithm, kl_coefficient=0.0),
        imitate=ImitateConfig(episodes=64, passes=8, learning_rate=3e-3, teacher="uniform_action"),
        episodes_per_step=EPISODES,
    )


def _exact(config: TrainConfig) -> Iterator[Finding]:
    """Check indexing, masks, rewards, bootstraps and log-probabilities on episodes of two probes."""
    for kind in (Masking, Endless):
        bench = Bench(probe_config(config, kind), kind)  # what it says does not matter here
        episodes = bench.play(0, 16).episodes
        for finding in checkup.check_episodes(bench.updater, bench.actor_critic.template, episodes):
            yield dataclasses.replace(finding, probe=f"{finding.probe} ({kind.name.removeprefix('probe-')})")
        if kind is Endless:
            yield checkup.check_truncation(bench.updater, episodes)


def _learns(config: TrainConfig, kind: type[Probe], suspect: str) -> Finding:
    """Train shortly on a probe and say whether the policy got there.

    A learning rate meant for long runs may be too small for so few steps, and the smallest decoders need more of them;
    neither is a fault of the machinery, so a probe that is not learned is tried once more, longer and at a high rate.
    """
    name = f"learns {kind.name.removeprefix('probe-')}"
    reached, text = _train(config, kind, STEPS)
    rate = config.algorithm.learning_rate
    if reached < LEARNED:
        fast = max(rate, FAST_RATE)
        critic = max(config.algorithm.critic_learning_rate, 2 * FAST_RATE)
        algorithm = dataclasses.replace(config.algorithm, learning_rate=fast, critic_learning_rate=critic)
        reached, again = _train(dataclasses.replace(config, algorithm=algorithm), kind, PATIENT_STEPS)
        text = f"{again}, at learning rate {fast:g}; before, at yours, {rate:g}: {text}"
    return Finding(name, reached >= LEARNED, text, suspect)


def _train(config: TrainConfig, kind: type[Probe], steps: int) -> tuple[float, str]:
    """Return the success that so many steps reach, and the figures in words."""
    bench = Bench(probe_config(config, kind), kind)
    bench.warm_up()
    started, success = time.perf_counter(), []
    for step in range(1, steps + 1):
        played = bench.play(step)
        success.append(float(np.mean([episode.success or 0.0 for episode in played.episodes])))
        if len(success) >= 3 and np.mean(success[-3:]) >= LEARNED:
            break
        batch = make_batch(played.episodes)
        if step == 1 and bench.updater.has_critic:
            bench.updater.pretrain_values(batch, seed=bench.config.seed)
        bench.updater.update(batch, step=bench.config.algorithm.warmup_steps + step, seed=bench.config.seed)
    reached, seconds = float(np.mean(success[-3:])), time.perf_counter() - started
    return reached, f"success {success[0]:.2f} -> {reached:.2f} in {len(success)} steps, {seconds:.0f} s"


def _constant(config: TrainConfig) -> Finding:
    """Fit V where every episode earns the same."""
    bench = Bench(probe_config(config, Constant), Constant)
    bench.warm_up()
    batch = make_batch(bench.play(0).episodes)
    for round_number in range(3):
        bench.updater.pretrain_values(batch, seed=round_number)
    values = bench.updater.values(batch)[batch.mask_BT]
    error = float(np.abs(values - Constant.paid).max())
    text = f"V is {values.mean():.2f}, at worst {error:.2f} off the constant {Constant.paid}"
    return Finding("V of a constant", error < 0.1, text, "critic: models/critic.py, models/value_head.py, fit_critic")


def _own_environment(config: TrainConfig, env: Callable[[], gymnasium.Env[Any, Any]] | None) -> Iterator[Finding]:
    """Check the user's environment against the contract, then the trainer on its episodes."""
    from foretaste.envs.check import check_env

    for id in dict.fromkeys(source.env for source in training_sources(config)):
        faults = check_env(env() if env else id)
        text = "; ".join(faults) or "keeps the contract"
        yield Finding("your environment", not faults, text, f"the environment: foretaste envs check {id}")
    bench = Bench(dataclasses.replace(config, algorithm=_plain(config)), env)
    episodes = bench.play(0, 8).episodes
    failed = [episode.error for episode in episodes if episode.end is EpisodeEnd.ERROR]
    if failed:
        yield Finding("your episodes", False, f"{len(failed)} of 8 failed: {failed[0]}", "the environment")
        return
    for finding in checkup.check_episodes(bench.updater, bench.actor_critic.template, episodes):
        yield dataclasses.replace(finding, probe=f"{finding.probe} (yours)")


def _plain(config: TrainConfig) -> Any:
    return dataclasses.replace(config.algorithm, name="ppo") if config.algorithm.name == "auto" else config.algorithm


# The verdict ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What an idea gained on held-out items, with its interval."""

    gain: float
    low: float
    high: float
    against: str


def outcome_of(after: Sequence[float | None], before: Sequence[float | None], against: str) -> Outcome:
    """Compare two measurements of the same items.

    Raises: ValueError if they share no judged item.
    """
    pairs = [(b >= 1.0, a >= 1.0) for b, a in zip(before, after, strict=False) if b is not None and a is not None]
    if not pairs:
        raise ValueError("the two measurements share no judged item")
    base, now = np.array(pairs, dtype=bool).T
    interval = paired_difference_interval(base, now)
    return Outcome(float(now.mean() - base.mean()), interval.low, interval.high, against)


def diagnosis(findings: Sequence[Finding], outcome: Outcome | None = None) -> tuple[str, bool]:
    """Return the verdict in a sentence or two, and whether the machinery is sound.

    Exact checks come first: a learning probe that fails beside one of them is its consequence.
    """
    wrong = [finding for finding in findings if finding.sound is False]
    exact = [finding for finding in wrong if not finding.probe.startswith("learns ")]
    if exact:
        first = exact[0]
        return f"Bug here: {first.suspect}. {first.probe}: {first.text}.", False
    if wrong:
        names = ", ".join(finding.probe.removeprefix("learns ") for finding in wrong)
        return (
            f"The arithmetic is right, but the policy does not learn: {names}. Likely: {wrong[0].suspect}. Try the "
            "default settings: if they learn, it is the settings."
        ), False
    if outcome is None:
        return "Machinery sound.", True
    figure = f"{outcome.gain:+.3f} [{outcome.low:+.3f}, {outcome.high:+.3f}] against {outcome.against}"
    if outcome.low > 0:
        return f"Machinery sound, and the idea helps: {figure}.", True
    if outcome.high < 0:
        return f"Machinery sound, the idea does not help, it harms: {figure}.", True
    return f"Machinery sound, the idea does not help: {figure}, which is no gain that can be told from chance.", True
