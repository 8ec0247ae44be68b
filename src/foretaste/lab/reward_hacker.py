"""`reward-hacker`: the researcher who tunes to the eval, simulated, with and without a budget of looks.

Many changes of a prompt or a setting are tried one after the other, and each that scores higher is kept. A change
alters some answers at random and the true success hardly at all, so nearly all that is seen to rise is luck. What
differs is what the researcher may see: the same public items again and again, the same held-out items, those through
the Ladder, or fresh sealed items that only a few looks may be spent on. The gap is what is reported minus what is true.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from foretaste.config import TrainConfig
from foretaste.exams.scarce import Ladder, ladder_step
from foretaste.lab.jobs import Context
from foretaste.lab.results import means
from foretaste.lab.study import Arm, Expectation, Plan, Study

WORK = "foretaste.lab.reward_hacker:tune"

SEEN = ("public items", "same held-out items", "held-out items through the Ladder", "sealed looks")
"""What the researcher is told of each change, or reports in the end."""
START, ALTERED, EFFECT = 0.5, 0.05, 0.002
"""True success at first; share of answers that a change alters; standard deviation of a change's true effect."""


def tune(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Simulate one researcher; return what is reported, what is true, and the gap between them."""
    options = arguments["options"]
    seen, rounds, items, looks = (options[name] for name in ("seen", "rounds", "items", "looks"))
    rng = np.random.default_rng([arguments["seed"], SEEN.index(seen)])
    ladder = Ladder(step=ladder_step(items, rounds)) if "Ladder" in seen else None
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
        if seen == "sealed looks" and number % (rounds // looks) == 0:
            reported = float((rng.random(items) < true).mean())  # fresh items, whose answers nobody could tune to
        if number % 100 == 0:
            context.report(number / rounds, f"change {number}")
    reported = reported if seen == "sealed looks" else best
    return {"reported": reported, "true": true, "gap": reported - true}


def _plan(seeds: int, minutes: float) -> Plan:
    options = {"rounds": 400, "items": 200, "looks": 4}
    arms = {seen: Arm(TrainConfig(), WORK, {**options, "seen": seen}) for seen in SEEN}
    return Plan(arms, seeds=tuple(range(1, seeds + 1)), token_budget=1, minutes=minutes)


STUDY = Study(
    name="reward-hacker",
    claim=(
        "A researcher who keeps what scores higher on the same items reports at least .10 more than is true after 400 "
        "changes; with a budget of looks at fresh sealed items at most .02 more"
    ),
    source="the real reward hacker is the researcher; Blum & Hardt 1502.04585, Dwork et al. 1506.02629",
    expectations=(
        Expectation("gap", "public items", None, size=0.10),
        Expectation("gap", "sealed looks", None, size=0.02, direction="at_most"),
        Expectation("gap", "held-out items through the Ladder", "same held-out items", size=0.0, direction="at_most"),
    ),
    quick=_plan(10, 1),
    full=_plan(40, 1),
    rows=means,
    notes=(
        "A simulation: 200 items, 400 changes, each altering 5% of the answers; the true effect of a change has a "
        "standard deviation of .002. No model is asked.",
        "Sealed looks: the researcher tunes on public items, and reports the last of four looks at fresh items.",
    ),
)
