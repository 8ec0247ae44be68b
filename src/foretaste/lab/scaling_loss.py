"""L(N, D) = E + A / N^a + B / D^b: the loss of supervised runs against parameters N and tokens D. Pure.

Huber loss on log residuals, log-sum-exp form, many starts (Hoffmann et al. 2203.15556, approach 3). What went wrong
there (Besiroglu et al. 2404.10102) is avoided: the loss is summed and in units of the Huber delta, not averaged, so
that the optimiser does not stop early; every start is run to convergence; intervals come from refitting resampled
points, not from curvature at a point that is no minimum.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from scipy.optimize import least_squares
from scipy.special import logsumexp

from foretaste.lab.scaling import Array, Fit

HUBER_DELTA = 1e-3
"""Log residuals beyond this count linearly, not squared (2203.15556, appendix D.3)."""


class LossPoint(NamedTuple):
    """One supervised run's final loss."""

    parameters: float
    tokens: float
    loss: float


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
