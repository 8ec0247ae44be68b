"""`reward-hacker`: the researcher who tunes to the eval, simulated, with and without a budget of looks.

Many changes of a prompt or a setting are tried one after the other, and each that scores higher is kept. A change
alters some answers at random and the true success hardly at all, so nearly all that is seen to rise is luck. What
differs is what the researcher may see: the same items again and again, held out in name or not, those through the
Ladder, or fresh sealed items that only a few looks may be spent on. The gap is what is reported minus what is true.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from foretaste.config import TrainConfig
from foretaste.exams.scarce import Ladder
from foretaste.lab.jobs import Context
from foretaste.lab.results import means
from foretaste.lab.study import Arm, Expectation, Plan, Study

WORK = "foretaste.lab.reward_hacker:tune"

SAME, LADDER, SEALED = "public items", "held-out items through the Ladder", "sealed looks"
SEEN = {SAME: 0, LADDER: 2, SEALED: 3}
"""What the researcher is told of each change, or reports in the end; and the number of its random stream."""
FLATTERED = 0.10
"""A report so far from the truth misleads."""
START, ALTERED, EFFECT = 0.5, 0.05, 0.002
"""True success at first; share of answers that a change alters; standard deviation of a change's true effect."""


def tune(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Simulate one researcher; return what is reported, what is true, and the gap between them."""
    options = arguments["options"]
    seen, rounds, items, looks = (options[name] for name in ("seen", "rounds", "items", "looks"))
    rng = np.random.default_rng([arguments["seed"], SEEN[seen]])
    ladder = Ladder() if seen == LADDER else None  # without a parameter, as in a sitting
    true, right = START, rng.random(items) < START
    told, best, reported = 0.0, -1.0, 0.0
    for number in range(1, rounds + 1):
        trial = float(np.clip(true + rng.normal(0.0, EFFECT), 0.0, 1.0))
        altered = rng.random(items) < ALTERED
        answers = np.where(altered, rng.random(items) < trial, right)
        told = float(answers.mean())
        if ladder is not None:
            release, ladder = ladder.submit(answers.astype(float))
            told = release.score or 0.0
        if told > best:
            best, true, right = told, trial, answers
        if seen == SEALED and number % (rounds // looks) == 0:
            reported = float((rng.random(items) < true).mean())  # fresh items, whose answers nobody could tune to
        if number % 100 == 0:
            context.report(number / rounds, f"change {number}")
    reported = reported if seen == SEALED else best
    return {"reported": reported, "true": true, "gap": reported - true, "absolute_gap": abs(reported - true)}


def _plan(seeds: int, minutes: float) -> Plan:
    options = {"rounds": 400, "items": 200, "looks": 4}
    arms = {seen: Arm(TrainConfig(), WORK, {**options, "seen": seen}) for seen in SEEN}
    return Plan(arms, seeds=tuple(range(1, seeds + 1)), token_budget=1, minutes=minutes)


STUDY = Study(
    name="reward-hacker",
    claim=(
        "A researcher who keeps what scores higher on the same items reports at least .10 more than is true after 400 "
        "changes; through the Ladder at most .10 more or less, and with a budget of looks at fresh sealed items at "
        "most .02 more"
    ),
    source="the real reward hacker is the researcher; Blum & Hardt 1502.04585, Dwork et al. 1506.02629",
    expectations=(
        Expectation("gap", SAME, None, size=FLATTERED),
        Expectation("gap", SEALED, None, size=0.02, direction="at_most"),
        Expectation("absolute_gap", LADDER, None, size=FLATTERED, direction="at_most"),
    ),
    quick=_plan(10, 1),
    full=_plan(40, 1),
    rows=means,
    notes=(
        "A simulation: 200 items, 400 changes, each altering 5% of the answers; the true effect of a change has a "
        "standard deviation of .002. No model is asked.",
        "Public items stand for any that are looked at every time, held out in name or not.",
        "absolute_gap: how far the report is off, either way, so that a Ladder that tells too little does not pass for "
        "a good one. The Ladder is the one without a parameter, as a sitting uses it.",
        "Sealed looks: the researcher tunes on public items, and reports the last of four looks at fresh items.",
    ),
)
