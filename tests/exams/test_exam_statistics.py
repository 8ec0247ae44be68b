"""Each measure against exact enumeration, a reference implementation, or simulation of its promise."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from foretaste.exams.gaps import perturbation_drop, public_sealed_gap, split_brain
from foretaste.exams.statistics import (
    beta_binomial_interval,
    calibration_by_turn,
    clustered_mean,
    clustered_proportion,
    clustered_standard_error,
    paired_clustered_difference,
    pass_at_k,
    pass_hat_k,
)
from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.statistics import exact_interval

scores = st.lists(st.integers(0, 1), min_size=2, max_size=30)


def test_clustered_error_by_hand() -> None:
    # mean 1/2; cluster a deviates by 1/2 + 1/2 = 1, b by -1/2 - 1/2 = -1: sqrt(1 + 1) / 4
    assert clustered_standard_error([1, 1, 0, 0], list("aabb")) == pytest.approx(math.sqrt(2) / 4)
    assert clustered_standard_error([1, 0, 1, 0], list("aabb")) == 0


def test_three_clusters_give_the_interval_of_statsmodels() -> None:
    """The figures are statsmodels' own: an OLS of the scores on a constant, fitted with

    `.fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)`, whose t has C - 1 = 2 degrees of freedom.
    """
    values, clusters = [1.0, 0.5, 0.0, 0.25, 1.0, 1.0, 0.0, 0.75], [0, 0, 0, 1, 1, 2, 2, 2]
    found = clustered_mean(values, clusters)
    assert found.mean == pytest.approx(0.5625)
    assert found.standard_error == pytest.approx(0.035801372616842485, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((0.40845913, 0.71654087), abs=1e-7)


@given(scores)
def test_clusters_of_one_give_the_ordinary_error(values: list[int]) -> None:
    n = len(values)
    assert clustered_standard_error(values, range(n)) == pytest.approx(float(np.std(values)) / math.sqrt(n))
    assert clustered_mean(values, range(n)).standard_error == pytest.approx(np.std(values, ddof=1) / math.sqrt(n))


@given(scores, st.integers(2, 5))
def test_repeating_an_item_adds_no_certainty(values: list[int], times: int) -> None:
    clusters = [i for i in range(len(values)) for _ in range(times)]
    repeated = clustered_standard_error(np.repeat(values, times), clusters)
    assert repeated == pytest.approx(clustered_standard_error(values, range(len(values))))


def test_clustered_interval_covers_95_percent_where_the_naive_one_does_not() -> None:
    rng = np.random.default_rng(0)
    exams, items, registers = 10_000, 40, 5
    rates = rng.beta(1.0, 1.0, (exams, items))  # an item's own difficulty: its registers agree
    right = (rng.random((exams, items, registers)) < rates[:, :, None]).astype(float)
    covered = naive = 0
    clusters = [item for item in range(items) for _ in range(registers)]
    for exam in right[:1000]:
        found = clustered_mean(exam.ravel(), clusters)
        covered += found.low <= 0.5 <= found.high
    p = right.mean(axis=(1, 2))
    naive = np.mean(np.abs(p - 0.5) <= 1.96 * np.sqrt(p * (1 - p) / (items * registers)))
    # the same formula as clustered_mean for equal clusters, on all 10,000 exams
    error = right.mean(axis=2).std(axis=1, ddof=1) / math.sqrt(items)
    all_covered = np.mean(np.abs(p - 0.5) <= 2.0227 * error)
    assert all_covered == pytest.approx(0.95, abs=0.01)
    assert covered / 1000 == pytest.approx(0.95, abs=0.02)
    assert naive < 0.85


def test_paired_difference_cancels_what_items_share() -> None:
    rng = np.random.default_rng(1)
    difficulty = rng.random(200)
    draw = rng.random(200)
    first, second = (draw < difficulty).astype(float), (draw < difficulty + 0.1).astype(float)
    paired = paired_clustered_difference(first, second, range(200))
    assert paired.mean == pytest.approx(second.mean() - first.mean())
    unpaired = math.hypot(clustered_standard_error(first, range(200)), clustered_standard_error(second, range(200)))
    assert paired.standard_error < unpaired / 1.5
    assert paired_clustered_difference(second, first, range(200)).mean == pytest.approx(-paired.mean)
    with pytest.raises(ValueError, match="paired"):
        paired_clustered_difference([1, 0], [1], range(2))


def test_one_cluster_tells_nothing() -> None:
    assert clustered_mean([1, 1, 1], ["a"] * 3).high == math.inf
    with pytest.raises(ValueError, match="one cluster per score"):
        clustered_mean([1, 1], ["a"])
    with pytest.raises(ValueError, match="non-empty"):
        clustered_mean([], [])


def test_beta_binomial_interval_is_exact_on_average_over_the_prior() -> None:
    # For every count s, P(rate in interval | s) under the posterior is the level; enumerate all counts.
    n = 12
    inside = 0.0
    for s in range(n + 1):
        found = beta_binomial_interval(s, n, 0.9)
        assert found.mean == pytest.approx((s + 1) / (n + 2))
        grid = (np.arange(20_000) + 0.5) / 20_000
        likelihood = binom.pmf(s, n, grid)
        inside += likelihood[(grid >= found.low) & (grid <= found.high)].sum() / 20_000
    assert inside == pytest.approx(0.9, abs=1e-3)


@given(st.integers(0, 12), st.integers(1, 12))
@settings(max_examples=25)
def test_clustered_proportion_with_clusters_of_one_is_the_beta_posterior(wins: int, more: int) -> None:
    values = [1] * wins + [0] * more
    found, exact = clustered_proportion(values, range(len(values))), beta_binomial_interval(wins, len(values))
    assert found[:4] == pytest.approx(exact[:4], abs=2e-3)


def test_clustered_proportion_covers_over_its_prior() -> None:
    rng = np.random.default_rng(2)
    covered, trials = 0, 200
    for _ in range(trials):
        rate, strength = rng.random(), 1 / rng.random() - 1 + 1e-9
        item = rng.beta(rate * strength + 1e-12, (1 - rate) * strength + 1e-12, 15)
        values = (rng.random((15, 4)) < item[:, None]).astype(float).ravel()
        found = clustered_proportion(values, [c for c in range(15) for _ in range(4)])
        covered += found.low <= rate <= found.high
    assert covered / trials == pytest.approx(0.95, abs=0.035)
    agreeing = clustered_proportion([1] * 20 + [0] * 20, [i // 4 for i in range(40)])
    assert agreeing.high - agreeing.low > 1.5 * (beta(21, 21).ppf(0.975) - beta(21, 21).ppf(0.025))


@given(st.integers(1, 7), st.data())
def test_pass_at_k_and_pass_hat_k_by_enumeration(samples: int, data: st.DataObject) -> None:
    correct, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    tries = [1] * correct + [0] * (samples - correct)
    chosen = list(itertools.combinations(tries, k))
    assert pass_at_k(correct, samples, k) == pytest.approx(sum(map(any, chosen)) / len(chosen))
    assert pass_hat_k(correct, samples, k) == pytest.approx(sum(map(all, chosen)) / len(chosen))


def test_pass_at_k_refuses_impossible_counts() -> None:
    with pytest.raises(ValueError, match="k=4"):
        pass_at_k(1, 3, 4)
    with pytest.raises(ValueError, match="correct"):
        pass_hat_k(4, 3, 1)


def test_split_brain_by_hand() -> None:
    found = split_brain(
        {"plain": [1, 1, 1, 0], "casual": [1, 0, 0, 1], "formal": [1, 1, 1, 0]},
        [[1, 1], [1, 0], [1, 1], [1, 0]],
    )
    assert found.mean == pytest.approx(8 / 12)
    assert (found.worst_register, found.worst) == ("casual", 0.5)
    assert found.all_right == 0.25
    assert found.lost == {"casual": pytest.approx(2 / 3), "formal": 0.0}
    assert found.flip_rate == pytest.approx(1 / 6)
    assert found.net_lost["casual"].mean == pytest.approx(2 / 3 - 1 / 6)
    assert found.net_lost["formal"].mean == pytest.approx(-1 / 6)


def test_a_policy_blind_to_wording_shows_no_net_loss_but_a_raw_one() -> None:
    rng = np.random.default_rng(3)
    rates = rng.random(4000)
    draws = {name: (rng.random(4000) < rates).astype(float) for name in ("plain", "casual")}
    found = split_brain(draws, (rng.random((4000, 3)) < rates[:, None]).astype(float))
    assert found.lost["casual"] > 0.25
    assert found.net_lost["casual"].low < 0 < found.net_lost["casual"].high
    assert found.net_lost["casual"].high < 0.04


def test_split_brain_without_plain_successes_or_resamples() -> None:
    found = split_brain({"plain": [0, 0], "casual": [1, 0]})
    assert (found.lost, found.flip_rate, found.net_lost) == ({}, None, {})
    with pytest.raises(ValueError, match="needs the register 'plain'"):
        split_brain({"casual": [1]})
    with pytest.raises(ValueError, match="same items"):
        split_brain({"plain": [1, 0], "casual": [1]})


def test_perturbation_drop_and_its_coverage() -> None:
    assert perturbation_drop([0, 0], [1, 0], range(2)) is None
    exact = perturbation_drop([1, 1, 1, 1], [1, 1, 1, 0], range(4))
    assert exact is not None
    assert exact.mean == pytest.approx(0.25)
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(600):
        shared = rng.random(120)
        original, perturbed = (shared < 0.6).astype(float), (shared + rng.normal(0, 0.1, 120) < 0.45).astype(float)
        found = perturbation_drop(original, perturbed, range(120))
        assert found is not None
        # the true ratio: P(u + noise < .45) = .45 - (mass below 0 balances mass above), found by quadrature
        covered += found.low <= 1 - TRUE_PERTURBED / 0.6 <= found.high
    assert covered / 600 == pytest.approx(0.95, abs=0.03)


_grid = (np.arange(20_000) + 0.5) / 20_000
TRUE_PERTURBED = float(np.mean([0.5 * (1 + math.erf((0.45 - u) / (0.1 * math.sqrt(2)))) for u in _grid]))


def test_drop_is_unbounded_where_the_original_may_be_zero() -> None:
    found = perturbation_drop([1, 0, 0, 0], [0, 0, 0, 1], range(4))
    assert found is not None
    assert found.low == -math.inf


def test_gap_by_hand_and_pairing_by_stratum() -> None:
    public = {("a", 1): [1, 1, 1, 1], ("b", 1): [0, 0], ("only", 1): [1]}
    sealed = {("a", 1): [1, 0, 1, 0], ("b", 1): [0, 0, 0, 0]}
    found = public_sealed_gap(public, sealed)
    assert found.mean == pytest.approx((0.5 + 0.0) / 2)
    with pytest.raises(ValueError, match="share no family"):
        public_sealed_gap({"a": [1]}, {"b": [1]})


def test_gap_of_one_family_combines_the_two_exact_intervals() -> None:
    found = public_sealed_gap({"a": [1.0] * 9 + [0.0] * 3}, {"a": [1.0] * 4 + [0.0] * 11})
    public, sealed = exact_interval(9, 12), exact_interval(4, 15)
    down = math.hypot(public.mean - public.low, sealed.high - sealed.mean)
    up = math.hypot(public.high - public.mean, sealed.mean - sealed.low)
    assert found[:3] == pytest.approx((9 / 12 - 4 / 15, 9 / 12 - 4 / 15 - down, 9 / 12 - 4 / 15 + up))


@pytest.mark.parametrize("rates", [(0.9, 0.3), (0.97, 0.97), (0.5, 0.1)])
def test_gap_covers_and_a_different_mix_is_no_gap(rates: tuple[float, float]) -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(600):
        public = {0: rng.random(40) < rates[0], 1: rng.random(10) < rates[1]}
        sealed = {0: rng.random(10) < rates[0], 1: rng.random(40) < rates[1]}
        found = public_sealed_gap(public, sealed)  # type: ignore[arg-type]
        covered += found.low <= 0 <= found.high
    assert covered / 600 >= 0.95


def episode(values: list[float], success: float | None, end: EpisodeEnd = EpisodeEnd.TERMINATED) -> Episode:
    turns = tuple(Turn("o", Action("a", (1, 2), (0.0, 0.0), (v, 0.0))) for v in values)
    return Episode("e", 0, "sealed", 1, "plain", turns, end, success)


def test_calibration_by_turn_by_hand() -> None:
    table = calibration_by_turn(
        [
            episode([0.8, 0.9], 1.0),
            episode([0.4], 0.0),
            episode([0.9], None, EpisodeEnd.STOPPED),
            episode([0.9], 1.0, EpisodeEnd.ERROR),
        ]
    )
    assert [(row.turn, row.n) for row in table] == [(0, 2), (1, 1)]
    assert table[0].brier == pytest.approx((0.04 + 0.16) / 2)
    assert table[0].calibration_error == pytest.approx((0.2 + 0.4) / 2)
    assert (table[0].auc, table[1].auc) == (1.0, None)
    assert table[0].mean_value == pytest.approx(0.6)
    assert calibration_by_turn([]) == []
