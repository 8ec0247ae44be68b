"""Verdicts on the worst of several places: which one that is was chosen by looking."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from foretaste.errors import RunError
from foretaste.lab.sequences import exactly
from foretaste.lab.study import Expectation
from foretaste.lab.verdict import Decision, Worst, judge

NOWHERE = Expectation("tokens_to:0.5", "auto", "best", size=0.9, effect="speedup", center="median")


def places(rng: np.random.Generator, medians: Sequence[float], seeds: int = 9) -> Worst:
    """Log ratios of seeds in places with these true medians."""
    drawn = np.log(medians)[:, None] + 0.5 * rng.standard_t(3, (len(medians), seeds))
    return Worst(tuple({seed: exactly(float(value)) for seed, value in enumerate(row)} for row in drawn))


def test_a_true_claim_about_the_worst_place_is_refuted_as_seldom_as_stated() -> None:
    """At the claim's very edge in each of seven places; the place that looks worst alone would refute it often."""
    rng, seeds = np.random.default_rng(0), range(9)
    refuted = naive = 0
    for _ in range(1000):
        worst = places(rng, [0.9] * 7)
        refuted += judge(NOWHERE, worst, seeds).decision is Decision.REFUTED
        lowest = min(worst.places, key=lambda place: sum(one.low for one in place.values()))
        naive += judge(NOWHERE, lowest, seeds).decision is Decision.REFUTED
    assert refuted / 1000 <= 0.025
    assert naive / 1000 > 0.05


def test_a_false_claim_about_the_worst_place_is_held_as_seldom_as_stated() -> None:
    rng = np.random.default_rng(1)
    held = [judge(NOWHERE, places(rng, [0.9, 5.0, 5.0]), range(9)).decision is Decision.HELD for _ in range(1000)]
    assert np.mean(held) <= 0.025 + 0.01
    assert judge(NOWHERE, places(rng, [9.0] * 7), range(9)).decision is Decision.HELD
    assert judge(NOWHERE, places(rng, [9.0] * 6 + [0.05]), range(9)).decision is Decision.REFUTED


def test_the_worst_place_needs_every_place_and_says_which_seeds_it_lacks() -> None:
    there = {1: exactly(0.0), 2: exactly(1.0)}
    assert judge(NOWHERE, Worst((there, {})), (1, 2)).decision is Decision.UNDECIDED
    found = judge(NOWHERE, Worst((there, {1: exactly(-1.0)})), (1, 2))
    assert found.seeds == 1
    assert "1 of the 2 registered seeds are missing" in found.note
    assert Worst((there, there)).only([2]) == Worst(({2: exactly(1.0)}, {2: exactly(1.0)}))
    with pytest.raises(RunError, match="at least something, not at_most"):
        judge(dataclasses.replace(NOWHERE, direction="at_most"), Worst((there,)), (1, 2))
