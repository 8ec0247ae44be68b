"""`forecast-success`: does the first tenth of a training run forecast where it ends?

Every run's learning curve up to a tenth of its tokens is fitted by R(C) (`scaling.fit_curve`), and the success at the
end is forecast from that alone, run by run. What one would say without a law: the end is as the last point seen.
The same runs can be fitted by hand: `foretaste lab fit RUN --arm ARM`, with the id of the study's run.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from foretaste.config import TrainConfig
from foretaste.lab.cells import Cell, lock_base
from foretaste.lab.charts import Picture, Series
from foretaste.lab.curves import Measured
from foretaste.lab.methods import method
from foretaste.lab.results import Results
from foretaste.lab.scaling import Fit, Forecast
from foretaste.lab.scaling_curve import CurvePoint, fit_curve
from foretaste.lab.sequences import Bounds, exactly
from foretaste.lab.study import Expectation, Plan, Study

CELL = Cell(2, "at once", 10)
ARM = "value"
SHARE = 0.1
"""Of a run's tokens, from which its end is forecast."""
LATER = {"error from a quarter": 0.25, "error from a half": 0.5}
"""Metrics of the same forecast made later, to show when it becomes possible."""
LAW, AS_BEFORE = "R(C)", "no change"
REFITS = 200


class Checked(NamedTuple):
    """A run's forecast beside its end."""

    seen: int
    """Points of the curve that were fitted, the start not counted."""
    last: float
    """Success at the last of them."""
    forecast: Forecast | None
    """None where what was seen gives no fit, as when nothing has grown yet; the forecast is then the last point."""
    end: float

    @property
    def value(self) -> float:
        """What is forecast."""
        return self.last if self.forecast is None else self.forecast.value

    @property
    def inside(self) -> bool:
        """Whether the end lies in the interval; without one it does not."""
        return self.forecast is not None and self.forecast.covers(self.end)


def checked(curve: Sequence[Measured], end: float, share: float = SHARE) -> Checked | None:
    """Forecast the end of a learning curve from its first part; None for a curve that has no point there."""
    limit = share * curve[-1].tokens
    seen = [point for point in curve if 0 < point.tokens <= limit]
    if not seen:
        return None
    fit = _fit(tuple(seen), curve[0].success)
    forecast = fit.at(float(curve[-1].tokens), new_run=True) if fit else None
    return Checked(len(seen), seen[-1].success, forecast, end)


@functools.lru_cache(maxsize=256)
def _fit(seen: tuple[Measured, ...], start: float) -> Fit | None:
    points = [CurvePoint("run", float(point.tokens), point.success) for point in seen]
    try:
        return fit_curve(points, start=start, refits=REFITS)
    except ValueError:
        return None


def forecasts(results: Results, share: float = SHARE) -> dict[int, Checked]:
    """Return every seed's forecast from a share of its tokens, and its end."""
    found = {}
    for seed in results.seeds:
        result, curve = results.result(ARM, seed), results.curve(ARM, seed)
        one = checked(curve, float(result["success_after"]), share) if result and curve else None
        if one is not None:
            found[seed] = one
    return found


def effects(results: Results, expectation: Expectation) -> dict[int, Bounds]:
    """Return each seed's error of the law, of it less that of "no change", or whether the end lay in the interval."""
    found = {}
    for seed, one in forecasts(results, LATER.get(expectation.metric, SHARE)).items():
        error = abs(one.value - one.end)
        if expectation.metric == "inside":
            error = float(one.inside)
        elif expectation.baseline is not None:
            error -= abs(one.last - one.end)
        found[seed] = exactly(error)
    return found


def rows(results: Results) -> list[dict[str, Any]]:
    """Return one row a seed: what was forecast, and what came."""
    later = {name: forecasts(results, share) for name, share in LATER.items()}
    return [
        {
            "seed": seed,
            "points seen": one.seen,
            "last seen": one.last,
            "forecast": one.value,
            "low": one.forecast and one.forecast.low,
            "high": one.forecast and one.forecast.high,
            "end": one.end,
            "error": abs(one.value - one.end),
            "inside": "yes" if one.inside else "no",
            **{name: abs(found[seed].value - one.end) for name, found in later.items() if seed in found},
        }
        for seed, one in forecasts(results).items()
    ]


def picture(results: Results) -> Picture:
    """Draw the curves and, of the first seed, the fit to its first tenth with its interval up to the end."""
    curves = [results.curve(ARM, seed) for seed in results.seeds if results.curve(ARM, seed)]
    series = [Series("measured", [[(float(p.tokens), p.success) for p in curve if p.tokens] for curve in curves])]
    first = curves[0] if curves else []
    seen = tuple(point for point in first if 0 < point.tokens <= SHARE * first[-1].tokens)
    fit = _fit(seen, first[0].success) if seen else None
    if fit is not None:
        where = np.geomspace(seen[0].tokens, first[-1].tokens, 25)
        ahead = [(float(c), fit.at(float(c))) for c in where]
        band = [(c, one.low, one.high) for c, one in ahead]
        series.append(Series("forecast of the first", [[(c, one.value) for c, one in ahead]], band=band))
    title = "forecast from the first tenth, and what came"
    return Picture(title, "sampled tokens", "held-out success", tuple(series), log_x=True, y_range=(0.0, 1.0))


def config(seed: int) -> TrainConfig:
    """Return a run that measures after every step and goes on to the end of its budget."""
    made = method("value", lock_base(CELL, seed))
    return replace(made, held_out=replace(made.held_out, items=200, every=1, curve_items=64, enough=0.0))


def _plan(seeds: tuple[int, ...], tokens: int, minutes: float) -> Plan:
    return Plan({ARM: config}, seeds=seeds, token_budget=tokens, minutes=minutes)


STUDY = Study(
    name="forecast-success",
    claim=(
        "Fitted to the first tenth of a run's tokens, R(C) forecasts the success at its end within .10, and better "
        "than to say that it stays as it was"
    ),
    source="is this scaling, or a waste of compute? The law is ScaleRL's, 2510.13786",
    expectations=(
        Expectation("error", LAW, None, size=0.10, direction="at_most"),
        Expectation("error", LAW, AS_BEFORE, size=0.0, direction="at_most"),
        Expectation("inside", LAW, None, size=0.8, center="bounded", bounds=(0.0, 1.0), required=False),
        *(Expectation(name, LAW, None, size=0.10, direction="at_most", required=False) for name in LATER),
    ),
    quick=_plan((1, 2), 20_000, 5),
    full=_plan((1, 2, 3, 4, 5, 6, 7, 8), 60_000, 30),
    effects=effects,
    rows=rows,
    picture=picture,
    notes=(
        "Error: absolute difference in success, mean over runs. A run that gives no fit counts with its last point.",
        "Each run is forecast from itself alone, so how runs differ is not in its interval.",
    ),
)
