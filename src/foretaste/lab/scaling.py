"""A fitted law of scale: its parameters, its forecasts with intervals, and a check of those. Pure.

The laws: `scaling_loss.py` (loss against parameters and tokens) and `scaling_curve.py` (success against compute).
Shapes: P parameters, K bootstrap refits. Where the points come from: `curves.py`; who calls: `forecast.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

Array = NDArray[np.float64]


class Forecast(NamedTuple):
    """A predicted value with its interval."""

    value: float
    low: float
    high: float
    level: float

    def covers(self, measured: float) -> bool:
        """Return whether a measured value lies in the interval."""
        return self.low <= measured <= self.high


@dataclass(frozen=True)
class Fit:
    """A fitted law: its parameters by name, their bootstrap refits, and what it predicts."""

    names: tuple[str, ...]
    parameters: Array
    refits_KP: Array
    """K refits to resampled data, a row each."""
    residual_sd: float
    """Standard deviation of the residuals: of log loss, or of the success of one point."""
    n_points: int
    resampled: str
    """What the bootstrap drew: "points", "runs" or "residuals"."""
    law: Callable[[Array, Array], Array]
    """(parameters, inputs) -> predictions; inputs are rows (N, D) or (C,)."""
    units: int
    """How many points or runs were drawn from: few of them make a bootstrap too sure, see `_widened`."""
    level: float = 0.95
    limits: tuple[float, float] = (0.0, np.inf)
    """Values that cannot be left: a success lies between 0 and its ceiling, a loss above 0."""

    def at(self, *inputs: float, new_run: bool = False) -> Forecast:
        """Return the forecast at (N, D) or at compute C.

        The interval is of the law's own value; `new_run=True` widens it by the scatter of a single measurement.
        """
        where = np.array([inputs], dtype=float)
        value = float(self.law(self.parameters, where)[0])
        draws = _widened(np.array([self.law(row, where)[0] for row in self.refits_KP]), self.units, self.level)
        if new_run:
            noise = np.random.default_rng(0).normal(0.0, self.residual_sd, size=(len(draws), 20))
            if len(self.names) == 5:  # the loss law's residuals are those of its logarithm
                draws = (draws[:, None] * np.exp(noise)).ravel()
            else:
                draws = (draws[:, None] + noise).ravel()
        low, high = _percentiles(np.clip(draws, *self.limits), self.level)
        return Forecast(value, min(low, value), max(high, value), self.level)

    def interval(self, name: str) -> Forecast:
        """Return a parameter with its interval."""
        index = self.names.index(name)
        low, high = _percentiles(_widened(self.refits_KP[:, index], self.units, self.level), self.level)
        return Forecast(float(self.parameters[index]), low, high, self.level)


class ForecastCheck(NamedTuple):
    """A forecast beside what was then measured."""

    at: tuple[float, ...]
    forecast: Forecast
    measured: float
    inside: bool


def check_forecast(fit: Fit, held_out: Sequence[tuple[tuple[float, ...], float]]) -> list[ForecastCheck]:
    """Compare a fit with (inputs, measured value) pairs that it has not seen.

    The interval is that of a new single measurement, so it includes the scatter of runs.
    Raises: ValueError if there is nothing to check.
    """
    if not held_out:
        raise ValueError("a forecast needs at least one held-out measurement to be checked on")
    checks = []
    for inputs, measured in held_out:
        forecast = fit.at(*inputs, new_run=True)
        checks.append(ForecastCheck(tuple(inputs), forecast, measured, forecast.covers(measured)))
    return checks


def _widened(draws: Array, units: int, level: float) -> Array:
    """Stretch bootstrap draws about their median by what a bootstrap over few units misses.

    The variance of n drawn units is (n - 1) / n of the truth, and its quantiles are normal where Student's t with
    n - 1 degrees would be right: for 8 runs a factor 1.3, for 3 runs 2.7.

    Source: Hesterberg 2015 (1411.5279), section 4.
    """
    upper = (1 + level) / 2
    factor = float(student.ppf(upper, units - 1) / norm.ppf(upper) * np.sqrt(units / (units - 1)))
    middle = np.median(draws)
    return middle + factor * (draws - middle)


def _percentiles(draws: Array, level: float) -> tuple[float, float]:
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)
