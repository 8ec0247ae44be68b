"""When learning on the job goes wrong: alarms that stop learning while the last good checkpoint goes on serving.

Online learning collapses in known ways: entropy or KL run up while the score falls, the policy freezes on one answer,
or nothing flows into it at all. A falling score *alone* is no alarm: the world may have changed, and then learning
must go on. `online.py` asks after every step; what stopped it is a sentence and a knob for a person.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy.stats import binom


class Alarm(NamedTuple):
    """Why learning stopped."""

    name: str
    """`entropy`, `kl`, `reward` or `gradient`."""
    reason: str
    """What was seen, with its figure."""
    knob: str
    """The setting to look at first."""


class Vital(NamedTuple):
    """What is watched of one step of learning; None: not measured in that step."""

    score: float | None
    """Mean score of the step's newly judged answers."""
    judged: int
    """How many answers that is the mean of."""
    entropy: float | None
    """Nats a token."""
    kl: float | None
    """KL of the policy from the last accepted version, nats a token."""
    gradient: float | None
    """Norm of the policy's gradient before clipping."""


@dataclass(frozen=True, slots=True)
class AlarmConfig:
    """Limits of a healthy step."""

    max_kl: float = 4.0
    """Nats a token from the last accepted version; far above what learning a new task needs."""
    max_entropy_factor: float = 2.0
    """Entropy over that of the first steps."""
    min_entropy_share: float = 0.02
    """Entropy under this share of the first steps', while fewer than half of the answers are right."""
    entropy_floor: float = 0.5
    """Nats a token that never count as too many."""
    reward_chance: float = 1e-4
    """The score counts as fallen if so low a count has at most this chance under the best window so far ..."""
    reward_kl: float = 1.0
    """... and the policy has moved at least this far, in nats a token: then it is not the world that changed."""
    window: int = 8
    """Steps that are averaged."""
    flat_steps: int = 8
    """Steps in a row without a gradient."""
    flat_gradient: float = 1e-7


def alarms(history: Sequence[Vital], config: AlarmConfig) -> tuple[Alarm, ...]:
    """Return what is wrong after the last step of `history` (oldest first); empty for a healthy one."""
    if not history:
        return ()
    found = [_gradient(history, config), _entropy(history, config), _kl(history, config), _reward(history, config)]
    return tuple(alarm for alarm in found if alarm is not None)


def _gradient(history: Sequence[Vital], config: AlarmConfig) -> Alarm | None:
    norms = [vital.gradient for vital in history if vital.gradient is not None]
    if norms and not math.isfinite(norms[-1]):
        return Alarm("gradient", f"the policy's gradient is {norms[-1]}", "algorithm.learning_rate (lower)")
    last = norms[-config.flat_steps :]
    if len(last) < config.flat_steps or max(last) > config.flat_gradient:
        return None
    score = _score(history[-config.window :])
    if score is not None and score[0] == score[1]:
        return None  # everything is right: nothing is left to learn
    signal = "no answer was judged" if score is None else f"{score[0]:.0f} of {score[1]} answers were right"
    reason = f"no gradient reached the policy in {config.flat_steps} steps; {signal}"
    return Alarm("gradient", reason, "the feedback: are all scores alike? Else max_log_ratio (too strict?)")


def _entropy(history: Sequence[Vital], config: AlarmConfig) -> Alarm | None:
    entropies = [vital.entropy for vital in history if vital.entropy is not None]
    if len(entropies) < 2 * config.window:
        return None
    first, now = _mean(entropies[: config.window]), _mean(entropies[-config.window :])
    if now > max(config.max_entropy_factor * first, config.entropy_floor):
        reason = f"entropy rose from {first:.2f} to {now:.2f} nats a token: answers dissolve"
        return Alarm("entropy", reason, "algorithm.learning_rate (lower), algorithm.kl_coefficient (higher)")
    score = _score(history[-config.window :])
    if now < config.min_entropy_share * first and score is not None and score[0] < score[1] / 2:
        reason = f"entropy fell to {now:.3f} nats a token with {score[0] / score[1]:.0%} right: one answer for all"
        return Alarm("entropy", reason, "algorithm.entropy_coefficient (higher), algorithm.learning_rate (lower)")
    return None


def _kl(history: Sequence[Vital], config: AlarmConfig) -> Alarm | None:
    measured = [vital.kl for vital in history if vital.kl is not None][-config.window :]
    if len(measured) < config.window or _mean(measured) <= config.max_kl:
        return None
    reason = f"the policy is {_mean(measured):.2f} nats a token from the last accepted version"
    return Alarm("kl", reason, "algorithm.kl_coefficient (higher), algorithm.learning_rate (lower)")


def _reward(history: Sequence[Vital], config: AlarmConfig) -> Alarm | None:
    """Compare the last window of scores with the best one before it."""
    width = config.window
    now, kl = _score(history[-width:]), history[-1].kl
    earlier = [_score(history[end - width : end]) for end in range(width, len(history) - width + 1, width)]
    known = [score for score in earlier if score is not None and score[1] > 0]
    if now is None or not known or kl is None or kl < config.reward_kl:
        return None
    right, judged = max(known, key=lambda score: score[0] / score[1])
    best = min(right / judged, 1 - 1 / (judged + 1))
    if binom.cdf(round(now[0]), now[1], best) > config.reward_chance:
        return None
    fall = f"the score fell from {right / judged:.0%} to {now[0] / now[1]:.0%}"
    reason = f"{fall} while the policy moved {kl:.2f} nats a token"
    return Alarm("reward", reason, "algorithm.learning_rate (lower); then resume from the last good checkpoint")


def _score(vitals: Sequence[Vital]) -> tuple[float, int] | None:
    """Return (sum of scores, answers) of some steps; None if nothing was judged."""
    judged = sum(vital.judged for vital in vitals)
    total = sum(vital.score * vital.judged for vital in vitals if vital.score is not None)
    return (total, judged) if judged else None


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
