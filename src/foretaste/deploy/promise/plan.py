"""The promise in figures before anything is served: time until service, time to notice a change, and costs.

`foretaste deploy plan` prints it. Times to notice are simulated with the watch's own rules (`watch.py`), the rest is
arithmetic with the tests of `takeover.py`. Worlds that break promises: `foretaste deploy simulate --world`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from foretaste.deploy.promise.statement import Promise, least_checks, trial_delta, watch_delta
from foretaste.deploy.promise.watch import WARNING, Running, cusum_steps, share_when
from foretaste.deploy.stage_config import FIRST_LOOK, StageConfig
from foretaste.deploy.takeover import LOOK_GROWTH, two_judges_rule_out
from foretaste.errors import ConfigError

RUNS = 200
"""Simulated changes from which a time to notice is taken."""
LONGEST = 20_000
"""Served answers after which a change counts as not noticed."""
QUIET_BEFORE = 2_000
"""Served answers before a simulated change."""
LOOK_EVERY = 10
"""Served answers between two looks of a simulated watch."""
MOST_LOOKS = 14


class Noticed(NamedTuple):
    """How soon the watch notices a rise of the served error."""

    error: float
    """The error after the change."""
    median: float | None
    """Served answers from the change until the step back; None: more than half are not noticed within `LONGEST`."""
    late: float | None
    """The same for the slowest tenth."""
    within: float
    """Share that is noticed within `LONGEST` served answers."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to expect of a promise."""

    promise: Promise
    error: float
    """The learner's error on what it serves, as hoped for."""
    first_service: int | None
    """Requests, all answered silently, until the first threshold at that error; None: no look finds one."""
    least: int
    """The same if every answer is right: the fewest there can be."""
    live_after: int | None
    """Requests until the live stage, each step of the canary included."""
    noticed: tuple[Noticed, ...]
    requests_per_day: float
    stages: StageConfig
    feedback_seconds: float | None
    learner_error: float | None
    """The learner's error on all requests; None: not given."""

    @property
    def least_abstained(self) -> float | None:
        """Least share of the requests that must be left to the incumbent, however well V knows: (mu - a) / (1 - a).

        Source: 2606.29054.
        """
        if self.learner_error is None:
            return None
        return max(0.0, (self.learner_error - self.promise.alpha) / (1 - self.promise.alpha))


def make(
    promise: Promise,
    stages: StageConfig,
    *,
    requests_per_day: float,
    error: float = 0.02,
    later: Sequence[float] = (0.07, 0.1, 0.2),
    feedback_seconds: float | None = None,
    learner_error: float | None = None,
    seed: int = 0,
    runs: int = RUNS,
) -> Plan:
    """Return the plan of a promise; it follows from the seed.

    Raises: ConfigError for figures that cannot be.
    """
    for name, value in (("error", error), ("learner_error", learner_error or 0.0), *(("later", one) for one in later)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} = {value} cannot be used; accepted: a share from 0 to 1")
    if not requests_per_day > 0:
        raise ConfigError(f"requests_per_day = {requests_per_day} cannot be used; accepted: above 0")
    first = first_service(promise, error) if promise.kept else None
    canary = stages.bake_requests * len(stages.canary_shares)
    waits = promise.maturity_requests + math.ceil(promise.maturity_seconds * requests_per_day / 86_400)
    rng = np.random.default_rng(seed)
    noticed = tuple(notice(promise, error, one, rng=rng, runs=runs) for one in later) if promise.kept else ()
    return Plan(
        promise=promise,
        error=error,
        first_service=None if first is None else max(first, stages.shadow_requests) + waits,
        least=max(least_checks(promise), FIRST_LOOK) + waits,
        live_after=None if first is None else max(first, stages.shadow_requests) + waits + canary,
        noticed=noticed,
        requests_per_day=requests_per_day,
        stages=stages,
        feedback_seconds=feedback_seconds,
        learner_error=learner_error,
    )


def first_service(promise: Promise, error: float) -> int | None:
    """Return after how many checks a look gives the first checkpoint a threshold that serves all of them.

    At each look the wrong answers are as many as expected; V need tell nothing. Half the time it takes longer.
    """
    n = FIRST_LOOK
    for look in range(1, MOST_LOOKS + 1):
        level = trial_delta(promise.delta, 1) / (look * (look + 1)) / 3  # one of the sequence's starts
        wrong = round(error * n)
        if promise.second_judge is None:
            enough = bool(binom.cdf(wrong, n, promise.alpha) <= level)
        else:
            asked = int(n * promise.second_share)
            enough = asked > 0 and two_judges_rule_out(n, wrong, asked, 0, promise.alpha, level)
        if enough:
            return n
        n = math.ceil(LOOK_GROWTH * n)
    return None


def notice(promise: Promise, before: float, after: float, *, rng: np.random.Generator, runs: int) -> Noticed:
    """Simulate changes of the served error from `before` to `after`, and return how soon they are noticed."""
    found = sorted(_one(promise, before, after, rng) for _ in range(runs))
    middle, late = found[runs // 2], found[min(runs - 1, math.ceil(0.9 * runs) - 1)]
    return Noticed(
        after,
        middle if math.isfinite(middle) else None,
        late if math.isfinite(late) else None,
        sum(math.isfinite(one) for one in found) / runs,
    )


def _one(promise: Promise, before: float, after: float, rng: np.random.Generator) -> float:
    """Return the served answers from one change until the step back; infinity: not within `LONGEST`."""
    watch, limit = Running(promise.alpha), 1 / watch_delta(promise.delta, 1)
    up, down = cusum_steps(alpha=promise.alpha, usual=before)
    level, stands, checks = 0.0, False, 0
    share = last = share_when(False, checks=0, average=promise.check_share, served=0)
    for served in range(QUIET_BEFORE + LONGEST):
        draw, luck = rng.random(2)
        if draw < share:
            checks += 1
            wrong = bool(luck < (before if served < QUIET_BEFORE else after))
            level = max(0.0, level + (up if wrong else down))
            stands = level > 0 if stands else level > WARNING
            reached = watch.add(wrong, alert=share > last) >= limit
            last = share
            if reached and served >= QUIET_BEFORE:
                return served - QUIET_BEFORE + 1
            if reached:
                return 0.0
        if served % LOOK_EVERY == 0:
            share = share_when(stands, checks=checks, average=promise.check_share, served=served)
    return math.inf


def as_text(plan: Plan) -> str:
    """Return the plan for the terminal."""
    promise, day = plan.promise, plan.requests_per_day
    lines = [promise.statement(), ""]

    def row(name: str, figure: str) -> None:
        lines.append(f"{name + ':':<58}{figure}")

    def requests(count: float | None) -> str:
        return "never" if count is None else f"{count:,.0f} requests, {count / day:.1f} days"

    row("requests a day", f"{day:,.0f}")
    if promise.kept:
        row("first threshold, if every answer is right", requests(plan.least))
        row(f"first threshold at an error of {plan.error:.1%}", requests(plan.first_service))
        row("live after", requests(plan.live_after))
        row("checks of a live learner's answers a day, at most", f"{promise.check_share * day:,.0f} on average")
        row("false threshold, ever", f"at most {promise.delta:.1%} of deployments")
        row("false step back, ever", f"at most {promise.delta:.1%} of deployments")
    if plan.least_abstained is not None:
        row(
            f"left to the incumbent, at an error of {plan.learner_error:.1%} on all",
            f"at least {plan.least_abstained:.1%} of the requests, however well V knows",
        )
    if plan.noticed:
        lines += ["", f"A rise of the served error from {plan.error:.1%} is noticed after so many served answers:", ""]
        lines.append(f"{'to':>8}{'half of the time':>20}{'9 times of 10':>16}   within {LONGEST:,}")
        for one in plan.noticed:
            times = ("never" if time is None else f"{time:,.0f}" for time in (one.median, one.late))
            lines.append("{:>8.1%}{:>20}{:>16}   {:.0%}".format(one.error, *times, one.within))
        lines.append("Until then more than alpha may be wrong. Judgements that come late add their lateness.")
    lines += ["", "Not promised:"]
    lines += [f"- {one}" for one in promise.reservations(feedback_seconds=plan.feedback_seconds)]
    return "\n".join(lines)
