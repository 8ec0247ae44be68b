"""How results grow with scale: two laws, their intervals, and a check of their own forecasts. Pure.

- `fit_loss`: L(N, D) = E + A / N^a + B / D^b, loss of supervised runs against parameters N and tokens D.
  Huber loss on log residuals, log-sum-exp form, many starts (Hoffmann et al. 2203.15556, approach 3). What
  went wrong there (Besiroglu et al. 2404.10102) is avoided: the loss is summed and in units of the Huber
  delta, not averaged, so that the optimiser does not stop early; every start is run to convergence;
  intervals come from refitting resampled points, not from curvature at a point that is no minimum.
- `fit_curve`: R(C) = R0 + (A - R0) / (1 + (C_mid / C)^B), success of reinforcement learning against
  compute (ScaleRL, 2510.13786), with a bootstrap over whole runs.

Shapes: P points, K bootstrap refits. Where the points come from: `curves.py`; who calls: `forecast.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import logsumexp
from scipy.stats import norm
from scipy.stats import t as student

Array = NDArray[np.float64]

HUBER_DELTA = 1e-3
"""Log residuals beyond this count linearly, not squared (2203.15556, appendix D.3)."""


class Forecast(NamedTuple):
    """A predicted value with its interval."""

    value: float
    low: float
    high: float
    level: float

    def covers(self, measured: float) -> bool:
        """Return whether a measured value lies in the interval."""
        return self.low <= measured <= self.high


class LossPoint(NamedTuple):
    """One supervised run's final loss."""

    parameters: float
    tokens: float
    loss: float


class CurvePoint(NamedTuple):
    """One measured point of a run's learning curve."""

    run: str
    compute: float
    """In any one unit: sampled tokens, episodes, seconds."""
    value: float


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


# Loss against parameters and tokens ---------------------------------------------------------------

LOSS_NAMES = ("E", "A", "a", "B", "b")


def fit_loss(
    points: Sequence[LossPoint], *, delta: float = HUBER_DELTA, refits: int = 200, level: float = 0.95, seed: int = 0
) -> Fit:
    """Fit L(N, D) = E + A / N^a + B / D^b.

    Raises: ValueError for fewer than 6 points, values that are not positive, or no spread in N, D or loss.
    """
    data = np.array(points, dtype=float).reshape(-1, 3)
    if len(data) < 6:
        raise ValueError(f"the five parameters of the loss law need at least 6 runs, got {len(data)}")
    if not (np.isfinite(data).all() and (data > 0).all()):
        raise ValueError("parameters, tokens and losses must be positive and finite")
    for index, name in enumerate(("parameter counts", "token counts", "losses")):
        if np.ptp(np.log(data[:, index])) < 1e-9:
            raise ValueError(f"all runs have equal {name} ({data[0, index]:g}): no law can be seen without spread")
        if index < 2 and len(np.unique(data[:, index])) < 3:
            raise ValueError(f"an exponent needs at least three different {name}, got {len(np.unique(data[:, index]))}")
    starts = _loss_starts(data)
    found = sorted((_solve_loss(data, start, delta) for start in starts), key=lambda solved: solved[0])
    best = found[0][1]
    # Refits start from several of the best, so that a resample may settle in another basin.
    basins = [solved[1] for solved in found[:: max(1, len(found) // 6)]][:4]
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(refits):
        sample = data[generator.integers(len(data), size=len(data))]
        if len(np.unique(sample[:, 0])) < 2 or len(np.unique(sample[:, 1])) < 2:
            continue  # such a resample says nothing about an exponent
        rows.append(min((_solve_loss(sample, start, delta) for start in basins), key=lambda solved: solved[0])[1])
    residual_N = np.log(data[:, 2]) - np.log(loss_law(_named(best), data[:, :2]))
    spread = float(np.sqrt(np.sum(residual_N**2) / max(1, len(data) - 5)))
    named = np.array([_named(row) for row in rows])
    return Fit(LOSS_NAMES, _named(best), named, spread, len(data), "points", loss_law, len(data), level)


def loss_law(parameters: Array, inputs: Array) -> Array:
    """Return E + A / N^a + B / D^b for rows (N, D)."""
    E, A, a, B, b = parameters
    return E + A * inputs[:, 0] ** -a + B * inputs[:, 1] ** -b


def _named(solution: Array) -> Array:
    """Return (E, A, a, B, b) of (log E, log A, a, log B, b)."""
    e, A, a, B, b = solution
    return np.array([np.exp(e), np.exp(A), a, np.exp(B), b])


def _loss_starts(data: Array) -> list[Array]:
    """Return starting points (log E, log A, a, log B, b): a grid whose terms share the typical loss."""
    middle_N, middle_D = np.log(data[:, 0]).mean(), np.log(data[:, 1]).mean()
    lowest, typical = data[:, 2].min(), float(np.median(data[:, 2]))
    starts = []
    for share, a, b, split in itertools.product((0.3, 0.6, 0.9), (0.2, 0.6), (0.2, 0.6), (0.3, 0.7)):
        rest = max(typical - share * lowest, 1e-3 * typical)
        starts.append(
            np.array(
                [
                    np.log(share * lowest),
                    np.log(split * rest) + a * middle_N,
                    a,
                    np.log((1 - split) * rest) + b * middle_D,
                    b,
                ]
            )
        )
    return starts


def _solve_loss(data: Array, start: Array, delta: float) -> tuple[float, Array]:
    """Return (summed Huber loss in units of delta squared, solution) from one start."""
    log_N, log_D, log_L = np.log(data).T
    # Centred logarithms: without them A and a (B and b) are almost the same direction and the solver crawls.
    centre_N, centre_D = log_N.mean(), log_D.mean()
    shift = np.array([0.0, start[2] * centre_N, 0.0, start[4] * centre_D, 0.0])

    def terms(x: Array) -> Array:
        e, A, a, B, b = x
        return np.stack([np.full_like(log_N, e), A - a * (log_N - centre_N), B - b * (log_D - centre_D)])

    def residuals(x: Array) -> Array:
        return (np.asarray(logsumexp(terms(x), axis=0)) - log_L) / delta

    def slopes(x: Array) -> Array:
        parts = terms(x)
        w_e, w_A, w_B = np.exp(parts - np.asarray(logsumexp(parts, axis=0)))
        return np.stack([w_e, w_A, -w_A * (log_N - centre_N), w_B, -w_B * (log_D - centre_D)], axis=1) / delta

    bounds = ([-60.0, -60.0, 0.0, -60.0, 0.0], [60.0, 60.0, 5.0, 60.0, 5.0])
    solved: Any = least_squares(
        residuals,
        start - shift,
        jac=cast(Any, slopes),
        bounds=bounds,
        loss="huber",
        f_scale=1.0,
        max_nfev=400,
        ftol=1e-10,
    )
    x = solved.x + np.array([0.0, solved.x[2] * centre_N, 0.0, solved.x[4] * centre_D, 0.0])
    return float(solved.cost), x


# Success against compute --------------------------------------------------------------------------

CURVE_NAMES = ("R0", "A", "C_mid", "B")


def fit_curve(
    points: Sequence[CurvePoint],
    *,
    start: float | None = None,
    ceiling: float = 1.0,
    refits: int = 300,
    level: float = 0.95,
    seed: int = 0,
) -> Fit:
    """Fit R(C) = R0 + (A - R0) / (1 + (C_mid / C)^B), with 0 <= R0 <= A <= `ceiling`.

    `start` fixes R0 to a known starting success. With three runs or more the bootstrap draws whole runs;
    with fewer it draws the sign and size of residuals, and so cannot see how runs differ.

    Raises: ValueError for fewer than 5 points, compute that is not positive, or no spread.
    """
    runs = np.array([point.run for point in points])
    data = np.array([[point.compute, point.value] for point in points], dtype=float).reshape(-1, 2)
    if len(data) < 5:
        raise ValueError(f"the saturating curve needs at least 5 measured points, got {len(data)}")
    if not np.isfinite(data).all() or (data[:, 0] <= 0).any():
        raise ValueError("compute must be positive, and every value finite; leave the point before training out")
    if len(np.unique(data[:, 0])) < 4:
        raise ValueError(f"the curve needs at least 4 different amounts of compute, got {len(np.unique(data[:, 0]))}")
    if np.ptp(data[:, 1]) < 1e-9:
        raise ValueError(f"every point has the value {data[0, 1]:g}: there is no growth to fit")
    best = _solve_curve(data, start, ceiling)
    residuals = data[:, 1] - curve_law(best, data[:, :1])
    spread = float(np.sqrt(np.sum(residuals**2) / max(1, len(data) - 4)))
    generator = np.random.default_rng(seed)
    names = np.unique(runs)
    rows = []
    for _ in range(refits):
        if len(names) >= 3:
            drawn = generator.choice(names, size=len(names))
            sample = np.concatenate([data[runs == name] for name in drawn])
        else:
            drawn_residuals = generator.choice(residuals, size=len(data)) * generator.choice(
                [-1.0, 1.0], size=len(data)
            )
            sample = np.column_stack([data[:, 0], curve_law(best, data[:, :1]) + drawn_residuals])
        rows.append(_solve_curve(sample, start, ceiling))
    kind, units = ("runs", len(names)) if len(names) >= 3 else ("residuals", len(data))
    return Fit(CURVE_NAMES, best, np.array(rows), spread, len(data), kind, curve_law, units, level, (0.0, ceiling))


def curve_law(parameters: Array, inputs: Array) -> Array:
    """Return R0 + (A - R0) / (1 + (C_mid / C)^B) for rows (C,)."""
    low, high, middle, steepness = parameters
    log_ratio = steepness * (np.log(middle) - np.log(inputs[:, 0]))
    return low + (high - low) / (1.0 + np.exp(np.clip(log_ratio, -60, 60)))


def _solve_curve(data: Array, start: float | None, ceiling: float) -> Array:
    """Return (R0, A, C_mid, B) of the least squares fit.

    Given C_mid and B the law is linear in R0 and A, which have a closed form; so only two dimensions are searched, by a
    grid over all of them that is then narrowed. Neither a start nor a stopping rule can mislead it.
    """
    log_C, y = np.log(data[:, 0]), data[:, 1]
    # Half-way points far outside what was seen, and steps or straight lines, cannot be told apart; they are bounded.
    lows = np.array([log_C.min() - 5, np.log(0.2)])
    highs = np.array([log_C.max() + 7, np.log(8.0)])
    centre, half = (lows + highs) / 2, (highs - lows) / 2
    best: tuple[float, Array] | None = None
    for zoom in range(8):
        count = (33, 21) if zoom == 0 else (13, 9)
        axes = [
            np.clip(np.linspace(c - h, c + h, n), lo, hi)
            for c, h, n, lo, hi in zip(centre, half, count, lows, highs, strict=True)
        ]
        middle_G, steep_G = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
        exponent = np.exp(steep_G)[:, None] * (middle_G[:, None] - log_C[None, :])
        z_GP = 1.0 / (1.0 + np.exp(np.clip(exponent, -60, 60)))
        low_G, high_G = _ends(z_GP, y, start, ceiling)
        cost_G = np.sum((low_G[:, None] + (high_G - low_G)[:, None] * z_GP - y) ** 2, axis=1)
        i = int(np.argmin(cost_G))
        if best is None or cost_G[i] < best[0]:
            best = float(cost_G[i]), np.array([low_G[i], high_G[i], middle_G[i], steep_G[i]])
        centre, half = best[1][2:], half / (8.0 if zoom == 0 else 3.0)
    assert best is not None
    low, high, middle, steep = best[1]
    return np.array([low, high, np.exp(middle), np.exp(steep)])


def _ends(z_GP: Array, y: Array, start: float | None, ceiling: float) -> tuple[Array, Array]:
    """Return the R0 and A of least squares for each row z of y = R0 + (A - R0) z, within 0 <= R0 <= A <= ceiling."""
    tiny = 1e-12
    if start is None:
        z_mean, y_mean = z_GP.mean(axis=1), y.mean()
        centred = z_GP - z_mean[:, None]
        slope = np.maximum((centred * (y - y_mean)).sum(axis=1) / np.maximum((centred**2).sum(axis=1), tiny), 0.0)
        low = y_mean - slope * z_mean
        rest = 1 - z_GP
        at_ceiling = (rest * (y - ceiling * z_GP)).sum(axis=1) / np.maximum((rest**2).sum(axis=1), tiny)
        low = np.clip(np.where(low + slope > ceiling, at_ceiling, low), 0.0, ceiling)
    else:
        low = np.full(len(z_GP), start)
    rise = (z_GP * (y - low[:, None])).sum(axis=1) / np.maximum((z_GP**2).sum(axis=1), tiny)
    return low, np.clip(low + rise, low, np.maximum(ceiling, low))


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
