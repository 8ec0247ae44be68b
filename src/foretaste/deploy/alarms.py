"""When learning on the job goes wrong: alarms, and whether what is answered now speaks against them.

Online learning collapses in known ways: entropy or KL run up while the score falls, the policy freezes on one answer,
or nothing flows into it at all. A falling score *alone* is no alarm: the world may have changed, and then learning
must go on. Nor is a distance alone: learning moves the policy. So `weighed` looks at answers as the weights of now
would give them. `online.py` asks after every step; `training/response.py` says what follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import binom

from foretaste.deploy.training.alarm_config import AlarmConfig

__all__ = ["Alarm", "AlarmConfig", "Vital", "alarms", "weighed"]

_RATE = "training.learning_rate (lower)"
_KL = "training.kl_coefficient (higher)"


class Alarm(NamedTuple):
    """What is wrong with learning."""

    name: str
    """`not_finite`, `gradient`, `stale`, `entropy`, `kl`, `reward` or `held_back`."""
    reason: str
    """What was seen, with its figure."""
    knob: str
    """The settings of deploy.toml to look at first, each with the way to turn it."""
    evidence: str = ""
    """How well the weights of now answer, in words."""
    noticed: bool = False
    """True: it is said, and nothing is taken back."""


class Vital(NamedTuple):
    """What is watched of one step of learning; None: not measured in that step."""

    score: float | None
    """Mean score of the step's newly judged answers, weighed by how likely the weights of the step give them."""
    judged: int
    """How many answers that is worth (Kish's effective sample size)."""
    entropy: float | None
    """Nats a token."""
    kl: float | None
    """KL of the policy from the last accepted version, nats a token."""
    gradient: float | None
    """Norm of the policy's gradient before clipping."""
    masked: float | None = None
    """Share of the step's answers that were too old to learn from."""
    not_finite: str = ""
    """What was NaN or infinite after the step."""


def alarms(history: Sequence[Vital], config: AlarmConfig) -> tuple[Alarm, ...]:
    """Return what is wrong after the last step of `history` (oldest first); empty for a healthy one."""
    if not history:
        return ()
    checks = (_not_finite, _gradient, _stale, _entropy, _kl, _reward)
    found = [check(history, config) for check in checks]
    return tuple(alarm for alarm in found if alarm is not None)


def weighed(found: Sequence[Alarm], history: Sequence[Vital], config: AlarmConfig) -> tuple[Alarm, ...]:
    """Return the alarms with what the newest answers say; a notice alone where those are right.

    The newest `fresh_steps` steps tell: their answers, as likely as the weights of now are to give them. They speak
    against an alarm if at least `success` of at least `evidence` answers are right, and not significantly fewer than
    in the best window before. Numbers that are not finite are never a notice.
    """
    known = _score(history[-config.fresh_steps :])
    if known is None or known[1] < config.evidence:
        words = f"{0 if known is None else known[1]} judged answers tell of the weights of now, {config.evidence} would"
        good = False
    else:
        words = f"{known[0] / known[1]:.0%} of {known[1]} answers are right under the weights of now"
        best = _best_before(history, config.fresh_steps, config)
        fallen = best is not None and _chance(known, best) <= config.reward_chance
        good = known[0] >= config.success * known[1] and not fallen
    return tuple(
        one._replace(evidence=words, noticed=one.noticed or (good and one.name in ("entropy", "kl", "reward")))
        for one in found
    )


def _not_finite(history: Sequence[Vital], config: AlarmConfig) -> Alarm | None:
    what = history[-1].not_finite
    return Alarm("not_finite", f"{what} is no finite number any more", _RATE) if what else None


def _gradient(history: Sequence[Vital], config: AlarmConfig) -> Alarm | None:
    norms = [vital.gradient for vital in history if vital.gradient is not None]
    if norms and not math.isfinite(norms[-1]):
        return Alarm("gradient", f"the policy's gradient is {norms[-1]}", _RATE)
    last = norms[-config.flat_steps :]
    if len(last) < config.flat_steps or max(last) > config.flat_gradient:
        return None
    score = _score(history[-config.window :])
    if score is not None and score[0] == score[1]:
        return None  # everything is right: nothing is left to learn
    signal = "no answer was judged" if score is None else f"{score[0]:.0f} of {score[1]} answers were right"
    reason = f"no gradient reached the policy in {config.flat_steps} steps; {signal}"
    knob = "the feedback (takeover.comparator, takeover.verifier): are all scores alike? Else training.max_log_ratio"
    return Alarm("gradient", reason, knob, noticed=True)


def _stale(history: Sequence[Vital], config: AlarmConfig) -> Alarm | None:
    """Say that every answer was too old to learn from: nothing goes wrong, and nothing is learned from scores."""
    shares = [vital.masked for vital in history if vital.masked is not None][-config.flat_steps :]
    if len(shares) < config.flat_steps or min(shares) < 1:
        return None
    reason = f"every answer of the last {config.flat_steps} steps was too old to learn from"
    return Alarm("stale", reason, "training.publish_every (lower), training.max_log_ratio (higher)", noticed=True)


def _entropy(history: Sequence[Vital], config: AlarmConfig) -> Alarm | None:
    entropies = [vital.entropy for vital in history if vital.entropy is not None]
    if len(entropies) < 2 * config.window:
        return None
    first, now = _mean(entropies[: config.window]), _mean(entropies[-config.window :])
    if now > max(config.max_entropy_factor * first, config.entropy_floor):
        reason = f"entropy rose from {first:.2f} to {now:.2f} nats a token: answers dissolve"
        return Alarm("entropy", reason, f"{_RATE}, {_KL}, training.alarms.max_entropy_factor (higher)")
    score = _score(history[-config.window :])
    if now < config.min_entropy_share * first and score is not None and score[0] < score[1] / 2:
        reason = f"entropy fell to {now:.3f} nats a token with {score[0] / score[1]:.0%} right: one answer for all"
        return Alarm("entropy", reason, f"training.entropy_coefficient (higher), {_RATE}")
    return None


def _kl(history: Sequence[Vital], config: AlarmConfig) -> Alarm | None:
    measured = [vital.kl for vital in history if vital.kl is not None][-config.window :]
    if len(measured) < config.window or _mean(measured) <= config.max_kl:
        return None
    reason = f"the policy is {_mean(measured):.2f} nats a token from the last accepted version"
    return Alarm("kl", reason, f"{_KL}, {_RATE}, training.alarms.max_kl (higher)")


def _reward(history: Sequence[Vital], config: AlarmConfig) -> Alarm | None:
    """Compare the last window of scores with the best one before it."""
    now, kl = _score(history[-config.window :]), history[-1].kl
    best = _best_before(history, config.window, config)
    if now is None or best is None or kl is None or kl < config.reward_kl:
        return None
    if _chance(now, best) > config.reward_chance:
        return None
    fall = f"the score fell from {best[0] / best[1]:.0%} to {now[0] / now[1]:.0%}"
    reason = f"{fall} while the policy moved {kl:.2f} nats a token"
    return Alarm("reward", reason, f"{_RATE}, {_KL}")


def _best_before(history: Sequence[Vital], newest: int, config: AlarmConfig) -> tuple[float, int] | None:
    """Return the best window that ended before the `newest` steps."""
    width = config.window
    earlier = [_score(history[end - width : end]) for end in range(width, len(history) - newest + 1, width)]
    known = [score for score in earlier if score is not None and score[1] > 0]
    return max(known, key=lambda score: score[0] / score[1], default=None)


def _chance(now: tuple[float, int], best: tuple[float, int]) -> float:
    """Return the chance of so few right answers if the share were that of the best window."""
    share = min(best[0] / best[1], 1 - 1 / (best[1] + 1))
    return float(binom.cdf(round(now[0]), now[1], share))


def _score(vitals: Sequence[Vital]) -> tuple[float, int] | None:
    """Return (sum of scores, answers) of some steps; None if nothing was judged."""
    judged = sum(vital.judged for vital in vitals)
    total = sum(vital.score * vital.judged for vital in vitals if vital.score is not None)
    return (total, judged) if judged else None


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
