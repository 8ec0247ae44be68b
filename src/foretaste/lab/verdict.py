"""From effects over seeds to a verdict: held, refuted, undecided, or exploratory.

The claim is "the effect is at least `size`". It is *held* if the whole interval lies at or beyond `size`, *refuted* if
none of it does, else *undecided*. A verdict whose expectation was not registered before its results is *exploratory*:
a direction to look in, not evidence.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from foretaste.errors import RunError
from foretaste.lab.sequences import (
    Bounds,
    Range,
    bounded_sequence,
    median_interval,
    median_sequence,
    t_interval,
    t_sequence,
    without_spread,
)
from foretaste.lab.study import Expectation
from foretaste.records import RECORD_VERSION, check_version


class Decision(StrEnum):
    """What a study says of its claim."""

    HELD = "held"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    EXPLORATORY = "exploratory"


@dataclass(frozen=True)
class Judged:
    """One expectation beside what came out."""

    expectation: str
    """As a sentence."""
    decision: Decision
    estimate: float | None
    """In the unit of the effect; None where censoring or failures leave it unknown."""
    low: float | None
    """Lower end of the interval; None: minus infinity (for a ratio: zero)."""
    high: float | None
    """Upper end; None: infinity."""
    level: float
    size: float
    seeds: int
    """Seeds with a result in every arm concerned."""
    censored: int
    """Seeds whose effect is known only to lie in a range."""
    required: bool
    note: str = ""


KEPT_OF_BEFORE = (
    "mode",
    "claim",
    "decision",
    "judged",
    "rows",
    "seeds",
    "core_minutes",
    "registered",
    "registration",
    "code",
    "notes",
    "tuning",
)
"""What stays of a verdict once another registration of its study takes its place."""


@dataclass(frozen=True)
class Verdict:
    """What is written of a judged study: `results/<study>.json`, and a `verdict` record."""

    study: str
    mode: str
    claim: str
    source: str
    decision: Decision
    would_be: Decision
    """The decision if the expectation had been registered in time; equals `decision` unless that is exploratory."""
    judged: tuple[Judged, ...]
    rows: tuple[dict[str, Any], ...]
    seeds: tuple[int, ...]
    token_budget: int
    failed: int
    """Jobs that ended in an error."""
    unfinished: int
    """Jobs that have not been run."""
    core_minutes: float
    """Sum of the jobs' wall time, each on one core."""
    minutes: float
    """The same spread over the workers that ran them: what a repetition takes."""
    workers: int
    registered: str
    """UTC time at which the expectation entered the ledger, before any result that it is judged on."""
    registration: str
    """Hash of the registered expectation."""
    code: str
    """Hash of the code that trained."""
    command: str
    notes: tuple[str, ...] = ()
    curves: dict[str, list[list[list[float]]]] = dataclasses.field(default_factory=dict)
    """Of each arm, each seed's (tokens, success) points."""
    own_budgets: dict[str, int] = dataclasses.field(default_factory=dict)
    """Arms whose jobs could sample another number of tokens than `token_budget`."""
    picture: dict[str, Any] | None = None
    """The page's chart where it is not that of the curves: `charts.Picture` as plain values."""
    own_items: bool = False
    """Whether every seed was examined on items of its own, or on none; in verdicts of earlier studies that train, all
    seeds share the held-out items."""

    tuning: dict[str, Any] | None = None
    """How each arm was tuned before: `tuning.Tuned` as plain values; None where settings were fixed, or not tuned."""
    before: tuple[dict[str, Any], ...] = ()
    """The verdicts of earlier registrations that this one takes the place of, newest first (`before_this`)."""

    @property
    def headline(self) -> Judged:
        """The first required expectation that came out as the claim did; without one, the first required."""
        required = [judged for judged in self.judged if judged.required]
        return next((judged for judged in required if judged.decision is self.would_be), required[0])

    def to_json(self) -> dict[str, Any]:
        """Return plain values with the record version."""
        return {"version": RECORD_VERSION, **dataclasses.asdict(self)}

    def after(self, earlier: Verdict) -> Verdict:
        """Return this verdict with an earlier one kept beside it, unless both are of one registration.

        Of the earlier one the figures stay, and not the points of its curves.
        """
        if earlier.registration == self.registration:
            return dataclasses.replace(self, before=earlier.before)
        kept = {name: value for name, value in earlier.to_json().items() if name in KEPT_OF_BEFORE}
        return dataclasses.replace(self, before=(kept, *earlier.before))


def from_json(values: Mapping[str, Any]) -> Verdict:
    """Read a verdict written by `Verdict.to_json`.

    Raises: RunError for a file that is no verdict, or from a newer foretaste.
    """
    try:
        fields = dict(values)
        check_version(fields)
        fields.pop("version", None)
        for name in ("decision", "would_be"):
            fields[name] = Decision(fields[name])
        fields["judged"] = tuple(Judged(**{**one, "decision": Decision(one["decision"])}) for one in fields["judged"])
        for name in ("rows", "seeds", "notes", "before"):
            fields[name] = tuple(fields.get(name, ()))
        return Verdict(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"This is no verdict that can be read: {error}. Make it anew: foretaste lab run NAME") from error


def interval_of(effects: Sequence[Bounds], expectation: Expectation) -> Range:
    """Return the interval that the expectation names, over seeds in their order."""
    anytime = expectation.stopping == "anytime"
    if expectation.center == "bounded":
        low, high = expectation.bounds
        return bounded_sequence(effects, expectation.level, low=low, high=high)
    if expectation.center == "median":
        return (median_sequence if anytime else median_interval)(effects, expectation.level)
    return (t_sequence if anytime else t_interval)(effects, expectation.level)


@dataclass(frozen=True)
class Worst:
    """Effects of seeds in several places, of which the claim is about the lowest: "nowhere less than"."""

    places: tuple[Mapping[int, Bounds], ...]

    def only(self, seeds: Collection[int]) -> Worst:
        """Return the same of these seeds alone."""
        return Worst(tuple({seed: one for seed, one in place.items() if seed in seeds} for place in self.places))

    @property
    def together(self) -> dict[int, Bounds]:
        """Of each seed that has a value in every place, the lowest of them."""
        shared = set[int]().union(*self.places).intersection(*self.places)
        return {
            seed: Bounds(min(place[seed].low for place in self.places), min(place[seed].high for place in self.places))
            for seed in sorted(shared)
        }

    def interval(self, expectation: Expectation) -> Range:
        """Return the interval for the lowest of the places' true effects.

        Its lower end is the lowest of the places' lower ends, without correction: it exceeds the truth only if that of
        the truly worst place does (Berger 1982, intersection-union). Its upper end is the lowest of their upper ends at
        1 - (1 - level) / places, since the place with the lowest end was chosen by looking (Bonferroni). Taking the
        interval of the place that came out worst would refute a true claim far too often.
        """
        if not self.places or not all(self.places):
            return Range(None, -math.inf, math.inf)
        strict = dataclasses.replace(expectation, level=1 - (1 - expectation.level) / len(self.places))
        each = [list(place.values()) for place in self.places]
        plain, corrected = ([interval_of(values, one) for values in each] for one in (expectation, strict))
        middles = [one.estimate for one in plain if one.estimate is not None]
        return Range(
            min(middles) if len(middles) == len(plain) else None,
            min(one.low for one in plain),
            min(one.high for one in corrected),
        )


def judge(expectation: Expectation, effects: Mapping[int, Bounds] | Worst, planned: Sequence[int]) -> Judged:
    """Compare an expectation with the effects of seeds; ratios come in as logarithms and leave as ratios.

    Raises: RunError for a claim about the worst of several places that does not say "at least".
    """
    if isinstance(effects, Worst):
        if expectation.direction != "at_least":
            raise RunError(f"The worst place can be claimed to be at least something, not {expectation.direction}")
        values = list(effects.together.values())
        found = effects.interval(expectation)
    else:
        values = list(effects.values())
        found = interval_of(values, expectation) if values else Range(None, -math.inf, math.inf)
    unbounded = not math.isfinite(found.low) and not math.isfinite(found.high)
    size = expectation.size
    if expectation.baseline is not None and expectation.effect != "difference":
        found = Range(
            None if found.estimate is None else math.exp(found.estimate),
            math.exp(found.low) if found.low > -math.inf else 0.0,
            math.exp(min(found.high, 700.0)) if found.high < math.inf else math.inf,
        )
    missing = len(planned) - len(values)
    note = ""
    if expectation.stopping == "fixed" and missing and expectation.center != "bounded":
        note = (
            f"{missing} of the {len(planned)} registered seeds are missing, so an interval of fixed size cannot decide"
        )
        decision = Decision.UNDECIDED
    elif expectation.direction == "at_least":
        decision = _decide(found.low >= size, found.high < size)
    else:
        decision = _decide(found.high <= size, found.low > size)
    if not note and unbounded and expectation.center == "mean" and without_spread(values):
        note = f"the effects of all {len(values)} seeds are equal: without a spread they give no interval of this kind"
    elif not note and unbounded and values:
        note = f"{len(values)} seeds cannot give an interval of this kind at level {expectation.level:g}"
    return Judged(
        expectation.text,
        decision,
        found.estimate,
        found.low if math.isfinite(found.low) else None,
        found.high if math.isfinite(found.high) else None,
        expectation.level,
        size,
        len(values),
        sum(1 for value in values if not value.known),
        expectation.required,
        note,
    )


def combined(judged: Sequence[Judged]) -> Decision:
    """Return the decision on the claim: all required expectations must hold, one that is refuted refutes it.

    Each is tested at its own level. To hold needs no correction, because all must pass (Berger 1982,
    intersection-union). To refute, one is enough, so the chances of a false refutation add up (`false_refutation`).
    """
    required = [one.decision for one in judged if one.required]
    return _decide(
        bool(required) and all(one is Decision.HELD for one in required),
        any(one is Decision.REFUTED for one in required),
    )


def false_refutation(judged: Sequence[Judged]) -> float:
    """Return the most that a true claim's chance to be refuted can be: half of what each required interval may miss."""
    return sum((1 - one.level) / 2 for one in judged if one.required)


def _decide(held: bool, refuted: bool) -> Decision:
    if held:
        return Decision.HELD
    return Decision.REFUTED if refuted else Decision.UNDECIDED
