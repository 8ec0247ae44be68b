"""`bug-or-idea`: two ideas that a study alone calls useless, one of them good but with a bug: does `doctor` tell?

The good idea is credit by a value function, held against success replay without one. In one arm the study plants a
bug: while that job trains and is examined, every advantage lands one token late (`late_credit`), so that a word is
credited with what the word before it did. The idle idea is a small entropy bonus on top of a sound value function.
Beside what the table of success shows of them stands what `foretaste doctor` says of the same machinery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from foretaste.config import TrainConfig, from_dict
from foretaste.lab.cells import Cell, lock_base
from foretaste.lab.jobs import Context, train_arm
from foretaste.lab.methods import method
from foretaste.lab.results import Results
from foretaste.lab.study import Arm, Expectation, Plan, Study

WORK = "foretaste.lab.bug_or_idea:train_and_examine"
CELL = Cell(2, "at once", 10)
CONTROL, IDEA, BUG, IDLE = "success replay", "value", "value with a bug", "value and an entropy bonus"
CONTROLS = {IDEA: CONTROL, BUG: CONTROL, IDLE: IDEA}
"""What each idea is held against."""
HELPS = 0.05
"""Gain in mean held-out success from which a study would say that an idea helps."""


@contextmanager
def late_credit() -> Iterator[None]:
    """Plant a bug in this process while the block runs: every advantage lands on the token after its own."""
    from foretaste.rl import batch

    real = batch.gae

    def late(*arguments: Any, **options: Any) -> Any:
        returns = real(*arguments, **options)
        return returns._replace(advantages_BT=np.pad(returns.advantages_BT, ((0, 0), (1, 0)))[:, :-1])

    batch.gae = late
    try:
        yield
    finally:
        batch.gae = real


def train_and_examine(arguments: dict[str, Any], context: Context) -> dict[str, Any]:
    """Train, then let the doctor examine the machinery that trained, with or without the bug in both.

    `bug_named`: 1 if it says that advantages are shifted; `cleared`: 1 if no figure that it works out again is wrong;
    `sound`: 1 if, beyond that, the policy learned the doctor's probes.
    """
    from foretaste.rl.doctor import diagnosis, examine

    config = from_dict(TrainConfig, arguments["config"])
    with late_credit() if arguments["options"]["bug"] else nullcontext():
        trained = train_arm({"config": arguments["config"]}, context)
        context.report(0.95, "doctor")
        text, sound = diagnosis(list(examine(config, own_env=False)))
    named, cleared = "advantages are shifted" in text, not text.startswith("Bug here")
    verdicts = {"sound": float(sound), "cleared": float(cleared), "bug_named": float(named)}
    return {**trained, **verdicts, "doctor": text}


def rows(results: Results) -> list[dict[str, Any]]:
    """Return one row an arm: what the study alone shows of it, and what the doctor says."""
    found = []
    for arm in results.arms:
        done = {seed: result for seed in results.seeds if (result := results.result(arm, seed))}
        row: dict[str, Any] = {"arm": arm, "seeds": len(done), "area": _mean([one["area"] for one in done.values()])}
        control = CONTROLS.get(arm)
        paired = [(one["area"], base["area"]) for seed, one in done.items() if (base := _of(results, control, seed))]
        gain = _mean([ours - theirs for ours, theirs in paired])
        row["against"] = control or "nothing"
        row["gain in area"] = gain
        if gain is None:
            row["the study alone"] = "no idea to judge"
        else:
            row["the study alone"] = "the idea helps" if gain >= HELPS else "the idea does not help"
        texts = list(dict.fromkeys(one["doctor"] for one in done.values()))
        row["doctor"] = " / ".join(texts)
        found.append(row)
    return found


def _of(results: Results, arm: str | None, seed: int) -> dict[str, Any] | None:
    return results.result(arm, seed) if arm else None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _arm(name: str, *, bug: bool = False, entropy: float = 0.0) -> Arm:
    def config(seed: int) -> TrainConfig:
        made = method(name, lock_base(CELL, seed))
        return replace(made, algorithm=replace(made.algorithm, entropy_coefficient=entropy))

    return Arm(config, WORK, {"bug": bug})


def _plan(seeds: tuple[int, ...], tokens: int, minutes: float) -> Plan:
    arms: dict[str, TrainConfig | Callable[[int], TrainConfig] | Arm] = {
        CONTROL: _arm("success-replay"),
        IDEA: _arm("value"),
        BUG: _arm("value", bug=True),
        IDLE: _arm("value", entropy=1e-3),
    }
    return Plan(arms, seeds=seeds, token_budget=tokens, minutes=minutes)


STUDY = Study(
    name="bug-or-idea",
    claim=(
        "Of two ideas that a study alone calls useless, the doctor names the bug in the one that has a bug, in every "
        "run, and finds no bug behind the other"
    ),
    source="an experiment may fail because the direction is wrong or because there is a bug; which of the two?",
    expectations=(
        Expectation("bug_named", BUG, None, size=0.9, center="bounded", bounds=(0.0, 1.0)),
        Expectation("cleared", IDLE, None, size=0.9, center="bounded", bounds=(0.0, 1.0)),
        Expectation("area", BUG, CONTROL, size=HELPS, direction="at_most"),
        Expectation("area", IDLE, IDEA, size=HELPS, direction="at_most"),
        Expectation("area", IDEA, CONTROL, size=HELPS, required=False),
        Expectation("sound", IDLE, None, size=0.9, center="bounded", bounds=(0.0, 1.0), required=False),
    ),
    quick=_plan((1, 2, 3), 4_000, 5),
    full=_plan((1, 2, 3, 4), 12_000, 15),
    rows=rows,
    notes=(
        "The bug is planted by the study, in the process of that arm's jobs alone; the product does not contain it.",
        "The third and fourth expectation say that the study alone would call both ideas useless; were one refuted, "
        "the pair would show nothing.",
        "cleared: the doctor finds no figure wrong. sound: the policy also learns its probes, with the run's settings "
        "or with the doctor's own.",
        "bug_named, cleared and sound are 0 or 1 in every run: even if all are 1, four runs do not show a share of .9, "
        "about seventy would.",
        "By hand, for any two runs on one environment: foretaste doctor --run RUN --against RUN.",
    ),
)
