"""Laws of scale: known parameters are found again, intervals cover, forecasts are checked, nonsense is refused."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.lab.scaling import check_forecast
from foretaste.lab.scaling_curve import CurvePoint, curve_law, fit_curve
from foretaste.lab.scaling_loss import LossPoint, fit_loss, loss_law

LOSS = np.array([1.8, 400.0, 0.35, 900.0, 0.37])
CURVE = np.array([0.1, 0.8, 3e4, 1.5])


def loss_points(noise: float, seed: int = 0) -> list[LossPoint]:
    generator = np.random.default_rng(seed)
    sizes = [(N, D) for N in np.geomspace(1e5, 3e6, 6) for D in np.geomspace(1e6, 1e8, 6)]
    losses = loss_law(LOSS, np.array(sizes)) * np.exp(generator.normal(0, noise, len(sizes)))
    return [LossPoint(N, D, float(loss)) for (N, D), loss in zip(sizes, losses, strict=True)]


def curve_points(seed: int, *, runs: int = 8, between: float = 0.03, within: float = 0.03) -> list[CurvePoint]:
    generator = np.random.default_rng(seed)
    amounts = np.geomspace(3e3, 1e5, 8)
    true = curve_law(CURVE, amounts[:, None])
    return [
        CurvePoint(f"run {run}", float(C), float(value + offset + generator.normal(0, within)))
        for run in range(runs)
        for offset in [generator.normal(0, between)]
        for C, value in zip(amounts, true, strict=True)
    ]


def test_the_loss_law_is_found_exactly_without_noise() -> None:
    fit = fit_loss(loss_points(0.0), refits=1)
    assert fit.parameters == pytest.approx(LOSS, rel=2e-3)


def test_the_loss_law_survives_noise_and_outliers() -> None:
    points = loss_points(0.003)
    points[5] = points[5]._replace(loss=points[5].loss * 1.5)  # a run that went wrong
    fit = fit_loss(points, refits=8)
    assert fit.parameters[[0, 2, 4]] == pytest.approx(LOSS[[0, 2, 4]], rel=0.15)
    ahead = fit.at(3e7, 1e9)
    truth = float(loss_law(LOSS, np.array([[3e7, 1e9]]))[0])
    assert ahead.value == pytest.approx(truth, rel=0.03)
    assert ahead.low < ahead.value < ahead.high


def test_the_curve_is_found_without_noise() -> None:
    fit = fit_curve(curve_points(0, between=0.0, within=0.0), refits=5)
    assert fit.parameters == pytest.approx(CURVE, rel=0.02)


def test_intervals_of_forecasts_cover_the_truth() -> None:
    """16 simulated sets of 8 runs; 95% intervals at twice and ten times the compute seen, at 40 refits each."""
    hits = np.zeros(2)
    for seed in range(16):
        fit = fit_curve(curve_points(seed + 100), refits=40, start=0.1)
        for index, C in enumerate((2e5, 1e6)):
            forecast = fit.at(C)
            hits[index] += forecast.low <= float(curve_law(CURVE, np.array([[C]]))[0]) <= forecast.high
    assert (hits / 16 >= 0.8).all(), hits / 16


def test_three_runs_give_wider_intervals_than_twelve() -> None:
    few, many = (fit_curve(curve_points(3, runs=n), refits=60).at(1e6) for n in (3, 12))
    assert few.high - few.low > 1.3 * (many.high - many.low)


def test_a_forecast_is_checked_on_what_it_has_not_seen() -> None:
    fit = fit_curve(curve_points(1), refits=60)
    true = float(curve_law(CURVE, np.array([[4e5]]))[0])
    good, bad = check_forecast(fit, [((4e5,), true), ((4e5,), true - 0.4)])
    assert good.inside
    assert not bad.inside
    assert fit.at(4e5, new_run=True).high > fit.at(4e5).high  # one more run scatters, the law does not
    with pytest.raises(ValueError, match="held-out"):
        check_forecast(fit, [])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (loss_points(0.0)[:5], "at least 6 runs"),
        ([LossPoint(1e5, D, 3.0 + 1 / D) for D in range(1, 9)], "equal parameter counts"),
        ([LossPoint(N, D, 3.0) for N, D in zip(range(1, 9), range(1, 9), strict=True)], "equal losses"),
        ([LossPoint(N, D, -1.0) for N, D in zip(range(1, 9), range(1, 9), strict=True)], "positive"),
        ([LossPoint(1 + i % 2, 1 + i, 3.0 + i) for i in range(8)], "three different parameter counts"),
    ],
)
def test_a_loss_law_needs_spread(points: list[LossPoint], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_loss(points)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (curve_points(0)[:4], "at least 5"),
        ([CurvePoint("a", 10.0 * (i % 2 + 1), 0.1 * i) for i in range(6)], "4 different amounts"),
        ([CurvePoint("a", 10.0 * (i + 1), 0.3) for i in range(6)], "no growth"),
        ([CurvePoint("a", 10.0 * i, 0.1 * i) for i in range(6)], "must be positive"),
    ],
)
def test_a_curve_needs_spread(points: list[CurvePoint], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_curve(points)
