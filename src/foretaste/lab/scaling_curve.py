"""R(C) = R0 + (A - R0) / (1 + (C_mid / C)^B): success of reinforcement learning against compute C. Pure.

The law is ScaleRL's (2510.13786); its intervals come from a bootstrap over whole runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from foretaste.lab.scaling import Array, Fit


class CurvePoint(NamedTuple):
    """One measured point of a run's learning curve."""

    run: str
    compute: float
    """In any one unit: sampled tokens, episodes, seconds."""
    value: float


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
