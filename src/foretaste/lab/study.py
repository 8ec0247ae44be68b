"""What a study is: a claim, the arms that test it, and what must come out for the claim to hold.

A study is one file with a `STUDY`; `STUDIES` names them all. How to write one: `foretaste/lab/__init__.py`.
How it is run: `runner.py`; how it is judged: `verdict.py`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from foretaste.config import TrainConfig, to_dict
from foretaste.errors import ConfigError, unknown
from foretaste.lab.jobs import TRAIN, Job

if TYPE_CHECKING:
    from foretaste.lab.charts import Picture
    from foretaste.lab.results import Results
    from foretaste.lab.sequences import Bounds
    from foretaste.lab.tuning import Tuned, Tuning
    from foretaste.lab.verdict import Worst

STUDIES: dict[str, str] = {
    "credit-map": "foretaste.lab.credit_map",
    "taught": "foretaste.lab.taught",
    "horizon": "foretaste.lab.horizon",
    "credit": "foretaste.lab.credit",
    "credit-maze": "foretaste.lab.credit_maze",
    "gate": "foretaste.lab.gate",
    "replay": "foretaste.lab.replay",
    "curriculum": "foretaste.lab.curriculum",
    "drives": "foretaste.lab.drives",
    "think": "foretaste.lab.think",
    "ping-pong": "foretaste.lab.ping_pong",
    "split-brain": "foretaste.lab.split_brain",
    "student-a-b": "foretaste.lab.student_a_b",
    "reward-hacker": "foretaste.lab.reward_hacker",
    "forecast": "foretaste.lab.forecast_loss",
    "forecast-success": "foretaste.lab.forecast_success",
    "idea-or-scale": "foretaste.lab.idea_or_scale",
    "bug-or-idea": "foretaste.lab.bug_or_idea",
    "smoke": "foretaste.lab.smoke",
}
"""Each study's name, and the module with its `STUDY`; modules are imported when they are asked for."""

Mode = Literal["quick", "full"]

TUNING_SEEDS = range(9_000, 10_000)
"""Seeds of tuning runs, with their rule tables and items: no plan may score one of them, and tuning uses no other."""


@dataclass(frozen=True)
class Expectation:
    """What must come out, stated before the first run. The claim is "the effect is at least (at most) `size`"."""

    metric: str
    """Of a job's result: a number by its name (`success_after`, `gain`, `area` ...), or `tokens_to:0.5`,
    `episodes_to:0.5`, the sampled tokens or training episodes to that held-out success."""
    treatment: str
    """The arm that the claim is about."""
    baseline: str | None
    """The arm it is compared with, seed by seed; None: the treatment's own value is the effect."""
    size: float
    """The effect that the claim promises, in the unit of `effect`."""
    effect: Literal["difference", "ratio", "speedup"] = "difference"
    """treatment - baseline, treatment / baseline, or baseline / treatment ("times fewer")."""
    direction: Literal["at_least", "at_most"] = "at_least"
    center: Literal["mean", "median", "bounded"] = "mean"
    """What is estimated over seeds: a mean of normal differences (of logarithms for ratios), a median (any
    distribution, censoring included), or a mean of differences within `bounds` (any distribution)."""
    bounds: tuple[float, float] = (-1.0, 1.0)
    """Limits that the effect cannot leave; used by `center = "bounded"` only."""
    stopping: Literal["fixed", "anytime"] = "fixed"
    """`fixed`: judged when all registered seeds are done; `anytime`: after every seed, and stopped when decided."""
    level: float = 0.95
    """Coverage of the interval."""
    required: bool = True
    """Whether the claim needs it; others are registered, reported and judged on their own."""

    @property
    def text(self) -> str:
        """The expectation as a sentence."""
        against = f" against {self.baseline}" if self.baseline else ""
        words = {"difference": "difference", "ratio": "ratio", "speedup": "speed-up"}[self.effect]
        what = f"{words} in {self.metric}" if self.baseline else self.metric
        return f"{self.center} {what} of {self.treatment}{against} {self.direction.replace('_', ' ')} {self.size:g}"


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a training config, or any work that returns a dict of figures."""

    config: TrainConfig | Callable[[int], TrainConfig]
    """The config, or a function of the seed that returns it (another warm start for each seed, say)."""
    work: str = TRAIN
    """`module:function` that a worker process calls with (arguments, context); see `jobs.py`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further plain values for `work`; part of the content that identifies a finished job."""
    token_budget: int | None = None
    """Tokens that each of this arm's jobs may sample for learning; None: as many as the plan says."""
    tuned: str | None = None
    """The grid of the study's tuning whose winner this arm takes; arms of one method in several places share one."""


@dataclass(frozen=True)
class Plan:
    """What is run: every arm with every seed, each with the same budget of sampled tokens or one of the arm's own."""

    arms: Mapping[str, TrainConfig | Callable[[int], TrainConfig] | Arm]
    seeds: tuple[int, ...]
    token_budget: int
    """Tokens that each job may sample for learning, where its arm names no other number; held-out measurements are
    not counted."""
    minutes: float
    """Expected minutes on two cores, for the person who waits."""
    max_steps: int = 2000
    """A job ends here even if its budget is not used up, as when a policy answers with nothing."""

    def jobs(self) -> list[Job]:
        """Return every job, seed by seed, so that all arms of a seed are done before the next begins.

        All arms of a seed are measured on the same held-out items, and each seed on items of its own: an interval over
        seeds is one over training and over items.
        """
        return [self._job(name, arm, seed) for seed in self.seeds for name, arm in self.arms.items()]

    def _job(self, name: str, given: TrainConfig | Callable[[int], TrainConfig] | Arm, seed: int) -> Job:
        arm = given if isinstance(given, Arm) else Arm(given)
        config = arm.config if isinstance(arm.config, TrainConfig) else arm.config(seed)
        budget = arm.token_budget or self.token_budget
        held_out = dataclasses.replace(config.held_out, seed=seed)
        config = dataclasses.replace(config, seed=seed, token_budget=budget, steps=self.max_steps, held_out=held_out)
        return Job(name, seed, arm.work, {"config": to_dict(config), "options": arm.options})

    @property
    def own_budgets(self) -> dict[str, int]:
        """Return the token budgets of the arms that have one of their own."""
        return {name: arm.token_budget for name, arm in self.arms.items() if isinstance(arm, Arm) and arm.token_budget}


@dataclass(frozen=True)
class Study:
    """A claim and its test."""

    name: str
    claim: str
    """One sentence that can be wrong."""
    source: str
    """Where the claim comes from, in own words, or a paper."""
    expectations: tuple[Expectation, ...]
    """All required ones must hold for the claim to hold."""
    quick: Plan
    full: Plan
    effects: Callable[[Results, Expectation], dict[int, Bounds] | Worst] | None = None
    """Effect of each seed (or other independent unit), where it is not a paired difference of one metric; `Worst` where
    the claim is about the worst of several places."""
    rows: Callable[[Results], list[dict[str, Any]]] | None = None
    """The table of the page; without it, one row an arm."""
    picture: Callable[[Results], Picture] | None = None
    """The chart of the page; without it, the learning curves of every arm and seed."""
    notes: tuple[str, ...] = ()
    """What a reader must know to interpret the result."""
    tuning: Tuning | None = None
    """How every arm is tuned before anything is scored, at the same budget each; None: their settings are fixed."""
    tuned: Tuned | None = None
    """What came of it, once the arms have it (`tuning.resolve`)."""
    resolved: bool = False
    """Whether the arms have settings of their grids: those that won or, without `tuned`, the first ones."""
    internal: bool = False
    """True for studies that test the laboratory itself; they are not on the claims page."""

    def plan(self, mode: Mode) -> Plan:
        """Return the plan of a mode."""
        return self.quick if mode == "quick" else self.full


def load(name: str) -> Study:
    """Return a study by its name, or by `module:ATTRIBUTE` for one of your own.

    Raises: ConfigError for a name that is not known, a module without a study, or arms that expectations lack.
    """
    module, _, attribute = name.partition(":") if ":" in name else (STUDIES.get(name, ""), "", "STUDY")
    if not module:
        raise ConfigError(unknown("study", name, STUDIES))
    try:
        study = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"No study at {module}:{attribute}: {error}") from error
    if not isinstance(study, Study):
        raise ConfigError(f"{module}:{attribute} is a {type(study).__name__}, not a Study")
    check_study(study)
    return study


def check_study(study: Study) -> None:
    """Refuse a study that could not be judged, or not fairly.

    Raises: ConfigError naming the part.
    """
    from foretaste.lab.tuning import check_tuning

    check_tuning(study)
    if not any(expectation.required for expectation in study.expectations):
        raise ConfigError(f"Study {study.name!r} requires no expectation, so nothing could refute its claim")
    modes: Sequence[Mode] = ("quick", "full")
    for mode in modes:
        plan = study.plan(mode)
        if not plan.seeds or len(set(plan.seeds)) != len(plan.seeds):
            raise ConfigError(f"Study {study.name!r}, {mode}: seeds = {plan.seeds} must be one or more, all different")
        if set(plan.seeds) & set(TUNING_SEEDS):
            raise ConfigError(
                f"Study {study.name!r}, {mode}: seeds = {plan.seeds} must not lie in {TUNING_SEEDS[0]} to "
                f"{TUNING_SEEDS[-1]}, which settings are chosen on"
            )
        for expectation in study.expectations:
            for arm in (expectation.treatment, expectation.baseline):
                if arm is not None and arm not in plan.arms and study.effects is None:
                    raise ConfigError(unknown(f"arm in study {study.name!r}, {mode}:", arm, plan.arms))
            if expectation.baseline is None and expectation.effect != "difference" and study.effects is None:
                raise ConfigError(f"Study {study.name!r}: effect = {expectation.effect!r} needs a baseline arm")
