"""Every arm of a study is tuned alike: as many settings, seeds and tokens for each, on seeds that no study scores.

    Tuning (grids, rounds, budget) -> `tune` -> Tuned (every point's figure, the winners) -> `resolve` -> a study

All points of a grid are tried on the seeds of the first round; the best of them go on to those of the next, and the
highest mean over all their seeds and places wins (successive halving: Jamieson & Talwalkar 2016, with the same
schedule for every grid). The settings to choose from: `grids.py`; when a study is tuned, and what of it enters the
ledger: `runner.py`, `register.py`; how it is shown: `pages.py`.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from foretaste.config import TrainConfig
from foretaste.errors import ConfigError, RunError, unknown
from foretaste.lab.jobs import Job, code_version, content_hash
from foretaste.lab.results import Results
from foretaste.lab.spans import with_settings
from foretaste.lab.study import TUNING_SEEDS, Arm, Plan, Study

Settings = Mapping[str, Any]
"""Values of a recipe by their dotted paths, as `algorithm.learning_rate`."""


class Round(NamedTuple):
    """The best points of a grid so far, and the seeds on which they are tried next."""

    points: int
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """What one arm, or one method in all its places, may be set to."""

    places: Mapping[str, Arm]
    """Where each point is tried, by name; an arm's own `token_budget` counts there."""
    points: tuple[Settings, ...]


@dataclass(frozen=True, slots=True)
class Tuning:
    """The tuning step of a study: the same number of points, rounds, seeds and tokens for every grid."""

    grids: Mapping[str, Grid]
    """By the name that arms of the study give in `Arm.tuned`."""
    rounds: tuple[Round, ...]
    token_budget: int
    """Of each tuning run, where its place names no other."""
    minutes: float
    """Expected core-minutes of the sweep."""
    metric: str = "area"
    """The figure of a job by which points are ranked: the higher the better."""
    max_steps: int = 2000

    def contents(self) -> dict[str, Any]:
        """Return what is registered of the step: grids, places, rounds, budgets and the rule."""
        grids = {
            name: {
                "places": {place: self.budget(arm) for place, arm in grid.places.items()},
                "points": [dict(point) for point in grid.points],
            }
            for name, grid in self.grids.items()
        }
        rounds = [[one.points, list(one.seeds)] for one in self.rounds]
        return {"grids": grids, "rounds": rounds, "metric": self.metric, "max_steps": self.max_steps}

    @property
    def key(self) -> str:
        """Hash of `contents`: stored winners of another grid, budget or rule do not count."""
        return content_hash(self.contents())

    def budget(self, place: Arm) -> int:
        """Return the tokens of a run in a place."""
        return place.token_budget or self.token_budget

    def spent(self, name: str) -> tuple[int, int]:
        """Return the runs that the sweep of a grid takes, and the tokens that they may sample together."""
        runs = sum(one.points * len(one.seeds) for one in self.rounds)
        places = self.grids[name].places.values()
        return runs * len(places), runs * sum(self.budget(place) for place in places)

    def jobs(self, name: str, point: int, seeds: Sequence[int]) -> list[Job]:
        """Return the runs of one point of a grid on some seeds, in every place."""
        grid = self.grids[name]
        arms = {_arm_name(name, point, place): set_to(arm, grid.points[point]) for place, arm in grid.places.items()}
        plan = Plan(arms, seeds=tuple(seeds), token_budget=self.token_budget, minutes=0, max_steps=self.max_steps)
        return plan.jobs()


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a grid, and what came out."""

    settings: dict[str, Any]
    figure: float | None
    """Mean of the metric over all its runs; None: a run failed."""
    runs: int
    winner: bool


@dataclass(frozen=True, slots=True)
class Tuned:
    """A finished tuning step."""

    key: str
    """`Tuning.key` of what was tried."""
    grids: dict[str, tuple[Point, ...]]
    spent: dict[str, tuple[int, int]]
    """Of each grid, the runs of its sweep and the tokens that they might sample together."""
    seeds: tuple[int, ...]
    metric: str
    code: str
    """Hash of the code that made the tuning runs."""
    core_minutes: float

    def winner(self, name: str) -> dict[str, Any]:
        """Return the settings that won a grid."""
        return next(point.settings for point in self.grids[name] if point.winner)

    @property
    def winners(self) -> dict[str, dict[str, Any]]:
        """The settings that won, by grid."""
        return {name: self.winner(name) for name in self.grids}

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tuned:
        """Read what `to_json` gave. Raises: RunError for anything else."""
        try:
            fields = dict(values)
            fields["grids"] = {name: tuple(Point(**one) for one in points) for name, points in fields["grids"].items()}
            fields["spent"] = {name: (runs, tokens) for name, (runs, tokens) in fields["spent"].items()}
            fields["seeds"] = tuple(fields["seeds"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"These are no stored winners: {error}. Tune anew: foretaste lab tune NAME") from error


def tune(tuning: Tuning, do: Callable[[list[Job]], Results]) -> Tuned:
    """Return the winners of every grid; `do` does jobs that are not done yet, and returns how all of them ended.

    Raises: RunError if runs of a round are still to be done, or if no point of a grid has a figure.
    """
    left = {name: list(range(len(grid.points))) for name, grid in tuning.grids.items()}
    seeds: tuple[int, ...] = ()
    found: dict[tuple[str, int], tuple[float | None, int]] = {}
    todo: list[Job] = []
    done = Results(())
    for one in tuning.rounds:
        seeds = (*seeds, *one.seeds)
        left = {name: _best(points, name, found)[: one.points] for name, points in left.items()}
        for seed in one.seeds:  # all grids of a seed before the next, as the jobs of a plan
            todo += [job for name, points in left.items() for i in points for job in tuning.jobs(name, i, (seed,))]
        done = do(todo)
        waiting = sum(1 for outcome in done.outcomes if outcome.result is None and outcome.error is None)
        if waiting:
            raise RunError(f"{waiting} tuning runs were not done, so nothing was scored; the same command goes on")
        found |= {(name, i): _figure(tuning, name, i, seeds, done) for name, points in left.items() for i in points}
    winners = {name: _best(points, name, found)[0] for name, points in left.items()}
    for name, i in winners.items():
        if found[name, i][0] is None:
            first = next((one.error for one in done.failures if one.arm.startswith(f"{name}, point")), None)
            raise RunError(f"No setting of {name!r} could be tuned: every point that was left failed. First: {first}")
    return Tuned(
        key=tuning.key,
        grids={
            name: tuple(
                Point(dict(settings), *found[name, i], winner=i == winners[name])
                for i, settings in enumerate(grid.points)
            )
            for name, grid in tuning.grids.items()
        },
        spent={name: tuning.spent(name) for name in tuning.grids},
        seeds=seeds,
        metric=tuning.metric,
        code=code_version(),
        core_minutes=sum(outcome.seconds for outcome in done.outcomes) / 60,
    )


def resolve(study: Study, tuned: Tuned | None) -> Study:
    """Return the study whose arms have the settings that won; None: those that come first in the grids."""
    assert study.tuning is not None
    settings = tuned.winners if tuned else {name: dict(grid.points[0]) for name, grid in study.tuning.grids.items()}

    def plan(given: Plan) -> Plan:
        arms = {
            name: set_to(arm, settings[arm.tuned]) if isinstance(arm, Arm) and arm.tuned else arm
            for name, arm in given.arms.items()
        }
        return dataclasses.replace(given, arms=arms)

    return dataclasses.replace(study, quick=plan(study.quick), full=plan(study.full), tuned=tuned, resolved=True)


def set_to(arm: Arm, settings: Settings) -> Arm:
    """Return an arm with settings of a grid in place of its own."""
    given = arm.config

    def config(seed: int) -> TrainConfig:
        return with_point(given if isinstance(given, TrainConfig) else given(seed), settings)

    return dataclasses.replace(arm, config=config)


def with_point(config: TrainConfig, settings: Settings) -> TrainConfig:
    """Return a config with some settings; points of the learning curve stay as many episodes apart."""
    made = with_settings(config, settings)
    if made.episodes_per_step == config.episodes_per_step:
        return made
    every = max(1, config.held_out.every * config.episodes_per_step // made.episodes_per_step)
    return dataclasses.replace(made, held_out=dataclasses.replace(made.held_out, every=every))


def check_tuning(study: Study) -> None:
    """Refuse a study some of whose arms are tuned more than others, or where it is scored.

    Raises: ConfigError naming the part.
    """
    tuning = study.tuning
    if tuning is None:
        return
    where = f"Study {study.name!r}, tuning:"
    grids = tuning.grids
    sizes = {name: (len(grid.points), sorted(map(tuning.budget, grid.places.values()))) for name, grid in grids.items()}
    if len({str(size) for size in sizes.values()}) != 1:
        raise ConfigError(f"{where} every grid must have as many points, places and tokens as the others, not {sizes}")
    widths = [one.points for one in tuning.rounds]
    if widths != sorted(widths, reverse=True) or widths[:1] != [size for size, _ in list(sizes.values())[:1]]:
        raise ConfigError(f"{where} rounds of {widths} points must begin with all of a grid's and never grow")
    seeds = [seed for one in tuning.rounds for seed in one.seeds]
    wrong = [seed for seed in seeds if seed not in TUNING_SEEDS]
    if wrong or len(set(seeds)) != len(seeds):
        raise ConfigError(
            f"{where} seeds {seeds} must be all different and within {TUNING_SEEDS[0]} to {TUNING_SEEDS[-1]}"
        )
    for mode in (study.quick, study.full):
        for name, arm in mode.arms.items():
            if not isinstance(arm, Arm) or arm.tuned is None:
                raise ConfigError(f"{where} arm {name!r} names no grid, so it would be tuned less than the others")
            if arm.tuned not in grids:
                raise ConfigError(unknown(f"grid in study {study.name!r}, arm {name!r}:", arm.tuned, grids))


def read_stored(file: Path | None, tuning: Tuning) -> Tuned | None:
    """Return stored winners, if there are any and they are of these grids, budgets and rule.

    Raises: RunError for a file that cannot be read as such.
    """
    if file is None or not file.is_file():
        return None
    try:
        found = Tuned.from_json(json.loads(file.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise RunError(f"{file} is no JSON: {error}. Remove it, then tune anew: foretaste lab tune NAME") from error
    return found if found.key == tuning.key else None


def store(file: Path, tuned: Tuned) -> None:
    """Write winners for later runs, the file replaced whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(tuned.to_json(), indent=1) + "\n", encoding="utf-8")
    os.replace(partial, file)


def _arm_name(name: str, point: int, place: str) -> str:
    return f"{name}, point {point + 1} @ {place}"


def _best(points: Sequence[int], name: str, found: Mapping[tuple[str, int], tuple[float | None, int]]) -> list[int]:
    """Return points by their figure, the best first; the earlier of equals, and one that failed last."""

    def rank(i: int) -> tuple[bool, float, int]:
        figure = found.get((name, i), (0.0, 0))[0]
        return figure is None, -(figure or 0.0), i

    return sorted(points, key=rank)


def _figure(tuning: Tuning, name: str, point: int, seeds: Sequence[int], done: Results) -> tuple[float | None, int]:
    """Return the mean of the metric over seeds and places, and how many runs it is of; None if a run failed."""
    values = []
    for place in tuning.grids[name].places:
        for seed in seeds:
            bounds = done.value(tuning.metric, _arm_name(name, point, place), seed)
            if bounds is None:
                return None, len(values)
            values.append(bounds.low)
    return sum(values) / len(values), len(values)
