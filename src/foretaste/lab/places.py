"""Environments in which a tiny decoder learns something within seconds: where studies compare methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from foretaste.config import HeldOutConfig, ImitateConfig, TrainConfig
from foretaste.lab.cells import FRESH_TABLES
from foretaste.lab.methods import NEW, base
from foretaste.lab.results import Results
from foretaste.lab.sequences import Bounds, exactly

LOCK = "lock?horizon=4&choices=2&critical=2&cues=2&visibility=at+once&terse=true&table="


class Place(NamedTuple):
    """An environment, its warm start, and how many tokens an arm may sample there."""

    max_new_tokens: int
    demonstrations: int
    budget: int
    every: int = 4
    """Steps between points of the curve."""
    passes: int = 4
    """Over the demonstrations."""
    rate: float = 2e-3
    """Learning rate of the warm start."""
    arguments: str = ""
    """Of the environment."""


PLACES = {
    "maze": Place(8, 128, 10_000, every=2),
    "repair": Place(24, 384, 8_000, every=2),
    "guess": Place(8, 256, 5_000),
    "lock": Place(4, 128, 12_000),
    "desk": Place(24, 8000, 8_000, every=2, passes=2, rate=3e-3, arguments="show_policy=false"),
}
"""A lookup in `desk` needs an order's number copied out of a message: a tiny decoder takes about 8,000 demonstrations,
a minute, until it does so at times. Its first level needs no policy, so none is shown."""


def place_base(place: str, seed: int) -> TrainConfig:
    """Return what all arms of a place share."""
    there = PLACES[place]
    if place == "lock":  # a fresh table for every seed; a teacher who knows the rules would leave nothing to learn
        made = base(f"{LOCK}{FRESH_TABLES + seed}", instructions=False)
    else:
        warm = ImitateConfig(episodes=there.demonstrations, passes=there.passes, learning_rate=there.rate)
        env = f"{place}?{there.arguments}" if there.arguments else place
        made = base(env, warm=warm, max_new_tokens=there.max_new_tokens, instructions=False)
    start = {"value_pretraining_episodes": NEW, "value_pretraining_passes": 2}
    return dataclasses.replace(
        made,
        algorithm=dataclasses.replace(made.algorithm, **start),
        held_out=HeldOutConfig(items=64, every=there.every, curve_items=48, enough=0.9),
    )


def rows(results: Results) -> list[dict[str, Any]]:
    """Return the usual row of each arm "NAME @ PLACE", its environment in a column of its own."""
    found = []
    for row in results.rows():
        what, _, place = str(row.pop("arm")).partition(" @ ")
        found.append({"environment": place, "arm": what, **row})
    return found


def mean_differences(results: Results, metric: str, pairs: Sequence[tuple[str, str]]) -> dict[int, Bounds]:
    """Return each seed's difference in a metric between two arms, mean over pairs of arms; whole seeds only."""
    found = {}
    for seed in results.seeds:
        both = [(results.result(ours, seed), results.result(theirs, seed)) for ours, theirs in pairs]
        differences = [ours[metric] - theirs[metric] for ours, theirs in both if ours and theirs]
        if pairs and len(differences) == len(pairs):
            found[seed] = exactly(sum(differences) / len(differences))
    return found
