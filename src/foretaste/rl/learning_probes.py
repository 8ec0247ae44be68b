"""Learning probes of the doctor: tiny tasks that a sound trainer learns, and what is at fault where it does not.

    learns(config, kind, suspect) -> Finding     up to four attempts, the first that learns ends it

A probe that is not learned in a few steps is no proof of a fault: a learning rate meant for long runs moves too little,
one that is too high makes a tiny decoder forget how to answer, and reward alone may take any time to find the first
step. So nobody is accused before the same probe fails with settings that are known to learn it, under two seeds:

    your settings -> reference settings -> reference settings, another seed -> reference model
    sound            your settings         chance                              your model; else the trainer's code

`probe_envs.py` has the environments and says why luck cannot pass them; `doctor.py` has the verdict.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from foretaste.config import (
    AlgorithmConfig,
    CurriculumConfig,
    EnvConfig,
    ImitateConfig,
    ModelConfig,
    SamplingConfig,
    TrainConfig,
)
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.sampler import Sampler
from foretaste.progress import Silent
from foretaste.rl.batch import make_batch
from foretaste.rl.checkup import Finding
from foretaste.rl.imitate import imitate
from foretaste.rl.pools import pool_of
from foretaste.rl.probe_envs import WORDS, Probe, word_of
from foretaste.rl.rollout import Rollout, rollout
from foretaste.rl.tasks import training_tasks
from foretaste.rl.update import Updater

STEPS, PATIENT_STEPS, EPISODES = 16, 30, 64
"""Steps of an attempt with the user's settings, of one with the reference settings, and the episodes of a step."""
NEWEST = 3
"""Steps whose success is judged together."""
LEARNED = 0.85
"""Mean success of the newest steps from which a probe counts as learned; warm starts give .25, reading nothing .5."""
SPOKEN = 0.5
"""Share of answers that are one of the two words, below which the policy has forgotten the form of an answer."""
MOVED = 0.15
"""Rise in success that is not chance, from which a probe was being learned, only not yet."""
UNREAD = ("microbatch_tokens", "warmup_steps", "kl_coefficient", "dynamic_sampling", "adapt_lambda")
"""Settings of the algorithm that the probes do not read, or that change no figure."""
OF_CRITIC = ("turn_lambda", "token_lambda", "critic_lambda", "critic_learning_rate", "head_learning_rate")
"""Settings that mean nothing without a critic."""
REFERENCE_MODEL = "nano-xs"
"""Model that learns every probe with the reference settings."""


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
        """Teach the form of an answer, and to lean to a word as the probe says."""
        imitate(self.config, self.pool, self.updater, self.actor_critic.template, Silent())

    def play(self, step: int, episodes: int = EPISODES) -> Rollout:
        """Sample a step's episodes."""
        return rollout(self.sampler, training_tasks(self.config, step, episodes), self.pool)


class Attempt(NamedTuple):
    """What came of training on a probe."""

    success: list[float]
    """Mean success of each step, sampled before its update."""
    spoken: list[float]
    """Share of each step's answers that are one of the two words."""
    seconds: float

    @property
    def reached(self) -> float:
        """Success of the newest steps."""
        return float(np.mean(self.success[-NEWEST:]))

    @property
    def learned(self) -> bool:
        """Whether the newest steps, and not only one of them, succeed."""
        return len(self.success) >= NEWEST and self.reached >= LEARNED

    @property
    def forgot(self) -> bool:
        """Whether the policy unlearned to answer in words."""
        return float(np.mean(self.spoken[-NEWEST:])) < SPOKEN

    def __str__(self) -> str:
        """Return the figures in words."""
        return f"success {self.success[0]:.2f} -> {self.reached:.2f} in {len(self.success)} steps, {self.seconds:.0f} s"


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
        imitate=ImitateConfig(episodes=128, passes=8, learning_rate=3e-3),
        episodes_per_step=EPISODES,
    )


def reference_config(config: TrainConfig) -> TrainConfig:
    """Return settings that are known to learn every probe, on the user's model and by the user's estimator."""
    given = config.algorithm
    algorithm = AlgorithmConfig(
        name=given.name,
        group_size=given.group_size,
        learning_rate=1e-3,
        critic_learning_rate=4e-3,
        turn_lambda=0.9,
        microbatch_tokens=given.microbatch_tokens,
    )
    sampling = dataclasses.replace(config.sampling, temperature=1.0)
    return dataclasses.replace(config, algorithm=algorithm, sampling=sampling)


def learns(config: TrainConfig, kind: type[Probe], suspect: str) -> Finding:
    """Return whether a probe is learned; if it is not, whether settings, model or code are likely at fault."""
    name = f"learns {kind.name.removeprefix('probe-')}"
    first = attempt(config, kind, STEPS)
    if first.learned:
        return Finding(name, True, str(first), suspect)
    reference = reference_config(config)
    texts = []
    for seed in (config.seed, config.seed + 1):
        again = attempt(dataclasses.replace(reference, seed=seed), kind, PATIENT_STEPS)
        if again.learned:
            text = f"{again}, with reference settings; with yours {first}"
            return Finding(name, True, text, suspect, settings=_blame(config, first))
        texts.append(f"{again} with reference settings and seed {seed}")
    text = "; ".join([f"{first} with yours", *texts])
    if config.model.name != REFERENCE_MODEL:
        model = ModelConfig(REFERENCE_MODEL, device=config.model.device, critic_layers=-1)
        other = attempt(dataclasses.replace(reference, model=model), kind, PATIENT_STEPS)
        text += f"; {other} with the model {REFERENCE_MODEL}"
        if other.learned:
            suspect = f"the model {config.model.name}, or how it is connected (models/): {REFERENCE_MODEL} learns it"
    return Finding(name, False, text, suspect)


def attempt(config: TrainConfig, kind: type[Probe], steps: int) -> Attempt:
    """Train on a probe until it is learned, for `steps` steps at most."""
    bench = Bench(probe_config(config, kind), kind)
    bench.warm_up()
    started, success, spoken = time.perf_counter(), [], []
    for step in range(1, steps + 1):
        played = bench.play(step).episodes
        success.append(float(np.mean([episode.success or 0.0 for episode in played])))
        spoken.append(float(np.mean([word_of(turn.action.text) in WORDS for e in played for turn in e.turns])))
        done = Attempt(success, spoken, time.perf_counter() - started)
        if done.learned:
            break
        batch = make_batch(played)
        if step == 1 and bench.updater.has_critic:
            bench.updater.pretrain_values(batch, seed=bench.config.seed)
        bench.updater.update(batch, step=bench.config.algorithm.warmup_steps + step, seed=bench.config.seed)
    return Attempt(success, spoken, time.perf_counter() - started)


def _blame(config: TrainConfig, first: Attempt) -> str:
    """Return what of the user's settings kept a probe from being learned, as far as the figures tell.

    Empty where it was being learned.
    """
    if first.forgot:
        what = "the policy forgot how to answer, as from too large steps"
    elif first.reached - first.success[0] < MOVED:
        what = f"success hardly moved in {len(first.success)} steps"
    else:
        return ""
    return f"{what}: {', '.join(_differences(config)) or 'no setting differs; it was chance'}"


def _differences(config: TrainConfig) -> list[str]:
    """Return what of the settings differs from the reference, in words."""
    reference = probe_config(reference_config(config), Probe)
    config = probe_config(config, Probe)
    given, known = dataclasses.asdict(config.algorithm), dataclasses.asdict(reference.algorithm)
    left_out = {*UNREAD, *(() if config.algorithm.name == "ppo" else OF_CRITIC)}
    pairs = {name: (given[name], known[name]) for name in given if name not in left_out}
    pairs["temperature"] = config.sampling.temperature, reference.sampling.temperature
    return [f"{name} {one:g} (reference: {other:g})" for name, (one, other) in pairs.items() if one != other]
