"""Worlds that break promises: who is wrong how often, who says so, when, and who speaks up unasked.

A `World` is plain numbers, `draw` makes its requests from a seed: arrays of shape [N], one entry a request. Next:
`run.py`, which runs a deployment in one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foretaste.deploy.promise.checks import RIGHT, UNKNOWN, WRONG
from foretaste.errors import ConfigError, unknown

NEVER = 2**31


@dataclass(frozen=True, slots=True)
class World:
    """One world, with what the deployment in it has set."""

    name: str
    """For the command line; several cases share one."""
    case: str
    """What this case is, in a few words."""
    requests: int = 10_000
    error: float = 0.02
    """Chance that the learner's answer is wrong, on average over all requests."""
    later_error: float | None = None
    """The same from request `change_at` on; None: nothing changes."""
    change_at: int = 3_000
    informed: bool = False
    """V tells wrong answers from right ones: the chance of an error falls from 2 x `error` at V = 0 to 0 at V = 1."""
    hard_share: float = 0.0
    """Share of requests where learner (`hard_error`) and incumbent (always) are wrong, with different answers."""
    hard_error: float = 0.6
    shared: float = 0.0
    """Share of the learner's errors that the incumbent makes too, with the same answer: it calls them right."""
    judge: Literal["incumbent", "none"] = "incumbent"
    second_share: float = 0.0
    """Share of the checks that a second judge sees, which is right; 0: there is none."""
    wrong_after: tuple[int, int] = (0, 0)
    """A wrong answer is found so many requests later, uniform between the two."""
    right_after: tuple[int, int] = (0, 0)
    """A right answer is confirmed so many requests later."""
    maturity: int = 0
    """Requests after which a check counts (takeover.maturity_requests)."""
    praise: tuple[float, float] = (0.0, 0.0)
    """Chance that a user praises a right, and a wrong, answer, whoever gave it."""
    report: tuple[float, float] = (0.0, 0.0)
    """Chance that a user reports a right, and a wrong, answer."""
    incumbent_error: float = 0.02
    """Chance that the incumbent's answer to a user is wrong, for what users say of it."""
    let_out: bool = False
    """A person has let the learner answer everything, whatever the evidence: is it stepped back, and rightly?"""
    checkpoints: int = 1
    """So many checkpoints are tried one after the other, each for an equal part of the requests."""

    @property
    def promised(self) -> bool:
        """Whether anything is promised here, as `foretaste deploy plan` says beforehand."""
        return self.judge != "none" and not (self.shared and not self.second_share)


class Traffic(NamedTuple):
    """What happens in a world; every array has shape [N]."""

    value: NDArray[np.float64]
    chance: NDArray[np.float64]
    """Chance that the learner is wrong, given all that matters."""
    wrong: NDArray[np.bool_]
    """Whether it is, as only a simulation can know."""
    first: NDArray[np.int8]
    """The first judge's word, once it is known."""
    known_at: NDArray[np.int64]
    """Request from which on the first judge's word is known."""
    second: NDArray[np.int8]
    asked: NDArray[np.bool_]
    vote: NDArray[np.int8]
    """What the user would say of the learner's answer: 1 praise, -1 a complaint, 0 nothing."""
    vote_other: NDArray[np.int8]
    """The same of the incumbent's."""
    key: NDArray[np.int64]
    """Which of `KEYS` users asks."""
    share_draw: NDArray[np.float64]
    check_draw: NDArray[np.float64]


KEYS = 20


def draw(world: World, seed: int) -> Traffic:
    """Return the requests of a world; they follow from the seed alone."""
    rng, n = np.random.default_rng(seed), world.requests
    value = rng.random(n)
    error = np.full(n, world.error)
    if world.later_error is not None:
        error[world.change_at :] = world.later_error
    chance = error * 2 * (1 - value) if world.informed else error
    hard = rng.random(n) < world.hard_share
    chance = np.clip(np.where(hard, world.hard_error, chance), 0.0, 1.0)
    wrong = rng.random(n) < chance
    shared = wrong & ~hard & (rng.random(n) < world.shared)
    calls_wrong = (wrong & ~shared) | hard
    first = np.where(calls_wrong, WRONG, RIGHT).astype(np.int8)
    late_wrong, late_right = (rng.integers(low, high + 1, n) for low, high in (world.wrong_after, world.right_after))
    known_at = np.arange(n) + np.where(calls_wrong, late_wrong, late_right)
    if world.judge == "none":
        first, known_at = np.full(n, UNKNOWN, dtype=np.int8), np.full(n, NEVER)
    other_wrong = hard | (rng.random(n) < world.incumbent_error)
    return Traffic(
        value,
        # What of hard requests is served is not known beforehand: their chance counts as an average.
        np.where(world.hard_share > 0, (1 - world.hard_share) * error + world.hard_share * world.hard_error, chance),
        wrong,
        first,
        known_at,
        np.where(wrong, WRONG, RIGHT).astype(np.int8),
        rng.random(n) < world.second_share,
        _votes(world, wrong, rng),
        _votes(world, other_wrong, rng),
        rng.integers(0, KEYS, n),
        rng.random(n),
        rng.random(n),
    )


def _votes(world: World, wrong: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int8]:
    """Return what users say of answers that are right or wrong."""
    praise, report = (np.where(wrong, chances[1], chances[0]) for chances in (world.praise, world.report))
    one = rng.random(len(wrong))
    return np.where(one < praise, 1, np.where(one < praise + report, -1, 0)).astype(np.int8)


_PRAISE = World("complaints", "", praise=(0.5, 0.0), report=(0.0, 0.1))
WORLDS: tuple[World, ...] = (
    World("late", "8% wrong, found up to 2,000 requests late; right at once", error=0.08, wrong_after=(0, 2_000)),
    World("late", "the same lateness, 2% wrong", error=0.02, wrong_after=(0, 2_000)),
    World(
        "late",
        "8% wrong; a check counts after 2,000 requests",
        error=0.08,
        wrong_after=(0, 2_000),
        maturity=2_000,
    ),
    World(
        "late",
        "let out at exactly 5% wrong, found at once; right 300 later",
        error=0.05,
        right_after=(0, 300),
        let_out=True,
    ),
    replace(_PRAISE, case="10% wrong, nobody judges; praise for right answers", error=0.1, judge="none"),
    World(
        "complaints",
        "let out at 2% wrong, nobody judges; complaints alone",
        judge="none",
        report=(0, 0.5),
        let_out=True,
    ),
    World("complaints", "let out at 2% wrong, checked; complaints too", report=(0.0, 0.5), let_out=True),
    World("complaints", "let out at 2% wrong; 5% of right answers are reported", report=(0.05, 0.05), let_out=True),
    World("shared", "a hard tenth where the incumbent errs too", error=0.03, hard_share=0.1, report=(0.0, 0.5)),
    World("shared", "8% wrong, 60% of it as the incumbent; no second judge", error=0.08, shared=0.6),
    World("shared", "the same; people see a third of the checks", error=0.08, shared=0.6, second_share=0.33),
    World("shared", "3% wrong, 60% shared; people see a third", error=0.03, shared=0.6, second_share=0.33),
    World("drift", "2% wrong, then 7%", later_error=0.07),
    World("drift", "2% wrong, then 10%", later_error=0.1),
    World("drift", "2% wrong, then 20%", later_error=0.2),
    World("liars", "2% wrong, then all; 90% of wrong answers are praised", later_error=1.0, praise=(0.5, 0.9)),
    World("still", "10% wrong on average, V tells which", error=0.1, informed=True),
    World("still", "let out at exactly 5% wrong", error=0.05, let_out=True),
    World("still", "5.5% wrong, V tells nothing", error=0.055),
    World("still", "100 checkpoints, 6% wrong each, V tells nothing", error=0.06, checkpoints=100, requests=40_000),
)
"""All cases; `--world NAME` runs those of one name."""


def cases(name: str) -> tuple[World, ...]:
    """Return the cases of a world.

    Raises: ConfigError for a name that is none.
    """
    found = tuple(world for world in WORLDS if name in (world.name, "all"))
    if not found:
        raise ConfigError(unknown("world", name, [*dict.fromkeys(world.name for world in WORLDS), "all"]))
    return found
