"""The simulated researcher: what is told decides how much of it is luck."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foretaste.lab.jobs import Context
from foretaste.lab.reward_hacker import SEEN, START, STUDY, tune

OPTIONS = {"rounds": 200, "items": 200, "looks": 4}


def gaps(seen: str, seeds: int = 20) -> np.ndarray:
    context = Context(Path(), lambda share, words: None)
    found = [tune({"options": {**OPTIONS, "seen": seen}, "seed": seed}, context) for seed in range(seeds)]
    assert all(one["gap"] == pytest.approx(one["reported"] - one["true"]) for one in found)
    assert all(abs(one["true"] - START) < 0.1 for one in found)  # whatever is reported, little has got better
    return np.array([one["gap"] for one in found])


def test_what_is_tuned_to_flatters_and_fresh_items_do_not() -> None:
    public, held_out, ladder, sealed = (gaps(seen) for seen in SEEN)
    assert public.mean() > 0.15
    assert held_out.mean() > 0.15  # held out in name only: the same items, looked at every time
    assert ladder.mean() < 0.05
    assert abs(sealed.mean()) < 3 * sealed.std() / np.sqrt(len(sealed)) + 0.01


def test_every_way_of_seeing_is_an_arm() -> None:
    assert set(STUDY.full.arms) == set(SEEN)
