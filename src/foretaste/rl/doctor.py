"""Bug or dead end? Probes that isolate faults of the machinery, run with the user's own model and settings.

    examine(config) -> list[Finding]         exact checks on sampled episodes, then short learning probes
    diagnosis(findings, outcome) -> str      "bug here", "the settings, not the code" or "machinery sound ..."

Exact checks compare what the trainer computes with the same quantity worked out here token by token from the
episodes alone, sharing no code with it: they find faults that still let a model learn a little. Learning probes
find the rest. `checkup.py` has the exact checks, `learning_probes.py` the learning, `probe_envs.py` the environments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from foretaste.config import TrainConfig
from foretaste.models.paths import paths_of
from foretaste.records import EpisodeEnd
from foretaste.rl import checkup
from foretaste.rl.batch import make_batch
from foretaste.rl.checkup import Finding
from foretaste.rl.learning_probes import Bench, learns, probe_config
from foretaste.rl.probe_envs import Constant, Delayed, Endless, Masking, Observed, OneChoice, Probe
from foretaste.rl.sources import training_sources
from foretaste.statistics import paired_difference_interval

LEARNING: tuple[tuple[type[Probe], str], ...] = (
    (OneChoice, "policy step: rl/update.py, rl/losses.py"),
    (Observed, "what the policy reads: models/sampler.py, models/conversation.py"),
    (Delayed, "credit over turns: rl/returns.py, rl/batch.py"),
)
"""Probes that a policy must learn, and what is likely at fault where it does not."""

LARGE = 20_000_000
"""Policy weights above which learning probes would take longer than a person waits."""


def examine(
    config: TrainConfig, *, env: Callable[[], gymnasium.Env[Any, Any]] | None = None, own_env: bool = True
) -> Iterator[Finding]:
    """Yield findings as they come: exact checks first, then learning probes, then the user's own environment.

    `env` takes the place of `config.env.id`. Learning probes are left out for models whose policy has more than 20
    million weights: they would take longer than a person waits.
    """
    yield from _exact(config)
    bench = Bench(probe_config(config, OneChoice), OneChoice)
    yield Finding("path", None, "; ".join(paths_of(bench.actor_critic, config.sampling).lines()), "")
    if sum(weight.numel() for weight in bench.actor_critic.policy_parameters()) > LARGE:
        yield Finding("learning probes", None, "left out: the model is large", "")
    else:
        yield from _learning(config)
        if bench.updater.has_critic:
            yield _constant(config)
    if own_env:
        yield from _own_environment(config, env)


def _exact(config: TrainConfig) -> Iterator[Finding]:
    """Check indexing, masks, rewards, bootstraps and log-probabilities on episodes of two probes."""
    for kind in (Masking, Endless):
        bench = Bench(probe_config(config, kind), kind)  # what it says does not matter here
        episodes = bench.play(0, 16).episodes
        for finding in checkup.check_episodes(bench.updater, bench.actor_critic.template, episodes):
            yield dataclasses.replace(finding, probe=f"{finding.probe} ({kind.name.removeprefix('probe-')})")
        if kind is Endless:
            yield checkup.check_truncation(bench.updater, episodes)


def _learning(config: TrainConfig) -> Iterator[Finding]:
    """Train on probe after probe; what builds on one that is not learned would only fail for the same reason."""
    failed = None
    for kind, suspect in LEARNING:
        name = kind.name.removeprefix("probe-")
        if failed:
            yield Finding(f"learns {name}", None, f"left out: it builds on {failed}", "")
            continue
        finding = learns(config, kind, suspect)
        yield finding
        failed = None if finding.sound else name


def _constant(config: TrainConfig) -> Finding:
    """Fit V where every episode earns the same."""
    bench = Bench(probe_config(config, Constant), Constant)
    bench.warm_up()
    batch = make_batch(bench.play(0).episodes)
    for round_number in range(3):
        bench.actor_critic.set_value_bias(float(batch.rewards_BT.sum(axis=1).mean()))  # of a restored critic too
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
            f"The arithmetic is right, but the policy does not learn {names}, with the reference settings neither. "
            f"Likely: {wrong[0].suspect}."
        ), False
    settings = _settings(findings)
    if outcome is None:
        return f"Machinery sound.{settings}", True
    figure = f"{outcome.gain:+.3f} [{outcome.low:+.3f}, {outcome.high:+.3f}] against {outcome.against}"
    if outcome.low > 0:
        return f"Machinery sound, and the idea helps: {figure}.{settings}", True
    if outcome.high < 0:
        return f"Machinery sound, the idea does not help, it harms: {figure}.{settings}", True
    text = f"Machinery sound, the idea does not help: {figure}, which is no gain that can be told from chance."
    return text + settings, True


def _settings(findings: Sequence[Finding]) -> str:
    """Return what the user's settings are to blame for, with a blank before it; empty if nothing."""
    blamed = [finding for finding in findings if finding.settings]
    if not blamed:
        return ""
    names = ", ".join(finding.probe.removeprefix("learns ") for finding in blamed)
    return f" The settings, not the code: the reference settings learn {names}; with yours {blamed[0].settings}."
