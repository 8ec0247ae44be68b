"""The threshold keeps its promise in worlds made to break it, and says what is missing where it cannot be given."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from foretaste.deploy.takeover import (
    FIRST_LOOK,
    Judged,
    Threshold,
    calibrate,
    choose_threshold,
    confidence_of,
    error_bound,
    least_answers,
    look_due,
    promising,
    renewed,
    worth_waiting,
)
from foretaste.errors import ConfigError
from foretaste.records import Action

ALPHA, DELTA, REPEATS = 0.1, 0.1, 300
GRID = np.linspace(0.0, 0.96, 25)
VALUES = (np.arange(4000) + 0.5) / 4000
"""A uniform population of values, for the true error above each threshold."""


def steep(v: np.ndarray) -> np.ndarray:
    """Wrong as often as alpha allows exactly at half of the values; far more below."""
    return np.where(v > 0.5, ALPHA, 0.95)


def flat_above(v: np.ndarray) -> np.ndarray:
    """A value function that knows nothing, of a learner slightly worse than alpha: nothing may ever be served."""
    return np.full(v.shape, ALPHA + 0.005)


def falling(v: np.ndarray) -> np.ndarray:
    """A learner whose error falls smoothly as its value rises."""
    return 0.6 * (1 - v)


def best_in_the_middle(v: np.ndarray) -> np.ndarray:
    """The surest answers are bad ones, so that stricter is not safer."""
    return np.where(v > 0.9, 0.5, np.where(v > 0.5, 0.0, 0.5))


def violations(world: Callable, n: int, *, grid: np.ndarray | None, levels: int | None = None) -> tuple[float, float]:
    """Share of calibrations whose threshold serves an error above alpha, and the share served on average."""
    rng = np.random.default_rng(n)
    population = VALUES if levels is None else np.floor(VALUES * levels) / levels
    wrong_population = world(VALUES)
    broken = served = 0.0
    for _ in range(REPEATS):
        raw = rng.random(n)
        values = raw if levels is None else np.floor(raw * levels) / levels  # ties: few different values
        correct = rng.random(n) >= world(raw)
        found = choose_threshold(values, correct, alpha=ALPHA, delta=DELTA, grid=grid)
        if found.tau is not None:
            inside = population >= found.tau
            broken += wrong_population[inside].mean() > ALPHA + 1e-9
            served += inside.mean()
    return broken / REPEATS, served / REPEATS


@pytest.mark.parametrize(
    ("world", "grid", "levels", "n"),
    [
        (steep, None, None, 60),
        (steep, None, None, 400),
        (steep, GRID, None, 400),
        (steep, None, 6, 400),
        (flat_above, None, None, 400),
        (flat_above, None, 1, 80),
        (falling, None, None, 400),
        (falling, GRID, None, 400),
        (best_in_the_middle, GRID, None, 400),
    ],
)
def test_the_promise_is_broken_no_more_often_than_delta(world, grid, levels, n) -> None:
    broken, _ = violations(world, n, grid=grid, levels=levels)
    assert broken <= DELTA + 2.5 * np.sqrt(DELTA * (1 - DELTA) / REPEATS)


def test_the_simulation_can_see_a_broken_promise() -> None:
    """Choosing by the observed error alone, as one is tempted to, breaks it far more often than delta."""
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(REPEATS):
        values = np.sort(rng.random(400))[::-1]
        wrong = np.cumsum(rng.random(400) < falling(values))
        good = np.flatnonzero(wrong / np.arange(1, 401) <= ALPHA)
        broken += bool(len(good)) and falling(VALUES[values[good[-1]] <= VALUES]).mean() > ALPHA
    assert broken / REPEATS > 3 * DELTA


def test_much_is_served_where_much_can_be() -> None:
    def clear(v: np.ndarray) -> np.ndarray:
        return np.where(v > 0.3, 0.02, 0.95)

    assert violations(clear, 400, grid=None)[1] > 0.6  # 0.7 can be, and a little of the rest
    assert violations(flat_above, 400, grid=None)[1] < DELTA


@pytest.mark.parametrize("n", [29, 80, 300])
def test_one_candidate_is_the_exact_binomial_test(n) -> None:
    """All values alike: every count of wrong answers can be tried, and the chance of a false threshold added up."""
    just_above = ALPHA + 1e-6
    chance = 0.0
    for wrong in range(n + 1):
        found = choose_threshold([0.5] * n, [i >= wrong for i in range(n)], alpha=ALPHA, delta=DELTA)
        starts = 3 if n >= 2 * least_answers(ALPHA, DELTA / 3) else 1
        assert (found.tau is not None) == bool(binom.cdf(wrong, n, ALPHA) <= DELTA) or starts == 3
        chance += binom.pmf(wrong, n, just_above) * (found.tau is not None)
    assert 0 < chance <= DELTA


judgements = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans() | st.just(True)), min_size=1, max_size=300)


@given(judgements, st.data())
@settings(max_examples=60, deadline=None)
def test_a_better_learner_is_never_served_less(pairs, data) -> None:
    values, correct = [v for v, _ in pairs], [c for _, c in pairs]
    before = choose_threshold(values, correct, alpha=0.2, delta=0.2)
    mended = list(correct)
    mended[data.draw(st.integers(0, len(pairs) - 1))] = True
    after = choose_threshold(values, mended, alpha=0.2, delta=0.2)
    assert after.served_share >= before.served_share
    assert before.tau is None or (after.tau is not None and after.tau <= before.tau)


@given(judgements, st.randoms())
@settings(max_examples=60, deadline=None)
def test_order_and_scale_of_values_do_not_matter_and_figures_agree(pairs, rng) -> None:
    found = choose_threshold([v for v, _ in pairs], [c for _, c in pairs], alpha=0.2, delta=0.2)
    mixed = list(pairs)
    rng.shuffle(mixed)
    other = choose_threshold([4 * v for v, _ in mixed], [c for _, c in mixed], alpha=0.2, delta=0.2)
    assert other.served_share == found.served_share
    assert other.error_bound == found.error_bound
    served = [c for v, c in pairs if found.serves(v)]
    assert len(served) / len(pairs) == pytest.approx(found.served_share)
    if found.tau is None:
        assert found.error_bound == 1.0
        assert not served
        assert found.needed is None or found.needed > 0
    else:
        assert served.count(False) / len(served) <= found.error_bound <= 0.2 + 1e-9
        assert found.needed == 0


def test_it_says_how_many_answers_are_missing() -> None:
    assert least_answers(0.05, 0.05) == 59  # .95^59 = .0485, .95^58 = .0510
    few = choose_threshold([0.9] * 40, [True] * 40, alpha=0.05, delta=0.05)
    assert (few.tau, few.needed) == (None, 19)
    assert choose_threshold([0.9] * 59, [True] * 59, alpha=0.05, delta=0.05).tau == 0.9
    nothing = choose_threshold([], [], alpha=0.05, delta=0.05)
    assert (nothing.tau, nothing.needed) == (None, 59)
    hopeless = choose_threshold([0.5] * 200, [True, False] * 100, alpha=0.05, delta=0.05)
    assert (hopeless.tau, hopeless.needed) == (None, None)
    assert "become better" in hopeless.reason
    right = [True] * 97 + [False] * 3
    short = choose_threshold([0.9] * 100, right, alpha=0.05, delta=0.05)
    assert (short.tau, short.needed) != (None, None)
    hundreds = math.ceil((100 + (short.needed or 0)) / 100)  # the same share of wrong answers goes on
    assert hundreds > 1
    assert choose_threshold([0.9] * 100 * hundreds, right * hundreds, alpha=0.05, delta=0.05).tau == 0.9


def test_a_calibration_belongs_to_one_checkpoint_and_looks_share_delta() -> None:
    good = [Judged("new", 0.9, True)] * 150
    old = [Judged("old", 0.9, False)] * 150
    assert calibrate([*good, *old], "new", alpha=0.05, delta=0.05).n == 150
    assert calibrate([*good, *old], "new", alpha=0.05, delta=0.05).tau == 0.9
    assert calibrate([*good, *old], "old", alpha=0.05, delta=0.05).tau is None
    assert calibrate(old, "new", alpha=0.05, delta=0.05).n == 0
    bounds = [calibrate(good, "new", alpha=0.05, delta=0.05, look=look).error_bound for look in (1, 2, 3)]
    assert bounds == pytest.approx([error_bound(0, 150, 0.05 / k) for k in (2, 6, 12)])
    assert sum(1 / (k * (k + 1)) for k in range(1, 10_000)) < 1
    with pytest.raises(ConfigError, match="accepted: 1"):
        calibrate(good, "new", alpha=0.05, delta=0.05, look=0)


def test_a_calibration_waits_for_half_as_many_again_and_goes_on_where_old_answers_are_deleted() -> None:
    assert not look_due(FIRST_LOOK - 1, FIRST_LOOK - 1)
    assert look_due(FIRST_LOOK, FIRST_LOOK)
    assert not look_due(FIRST_LOOK, 0)

    def looks(kept: int | None) -> list[int]:
        """Return after which of 3,000 judged answers a look was due, where only the newest are kept."""
        found: list[int] = []
        for count in range(1, 3_001):
            if look_due(min(count, kept or count), count - (found[-1] if found else 0)):
                found.append(count)
        return found

    assert looks(None) == [150, 225, 338, 507, 761, 1142, 1713, 2570]
    assert looks(600) == [150, 225, 338, 507, *range(707, 3_001, 200)]


def test_a_threshold_stays_until_answers_speak_against_it() -> None:
    def look(wrong: int) -> Threshold:
        return choose_threshold([0.9] * 100, [i >= wrong for i in range(100)], alpha=0.05, delta=0.05)

    good, short, bad = look(0), look(2), look(30)
    assert (good.tau, short.tau, bad.tau) == (0.9, None, None)
    assert renewed(good, short) == good
    assert renewed(good, bad) == bad
    assert renewed(short, good) == good
    assert renewed(None, short) == short


def test_waiting_is_for_checkpoints_that_may_pass() -> None:
    assert promising([0.5] * 8, [False] * 8, alpha=0.05)  # too few to say
    assert not promising([0.5] * 64, [False] * 64, alpha=0.05)
    assert promising(np.linspace(0, 1, 64).tolist(), [False] * 40 + [True] * 24, alpha=0.05)
    close = choose_threshold([0.9] * 100, [True] * 98 + [False] * 2, alpha=0.05, delta=0.05)
    assert worth_waiting(close, 1)
    assert not worth_waiting(close, 3)
    far = choose_threshold([0.9] * 100, [True] * 96 + [False] * 4, alpha=0.05, delta=0.05)
    assert not worth_waiting(far, 1)


def test_what_cannot_be_weighed_is_refused() -> None:
    action = Action("yes", (4, 5), (-0.1, -0.2), (0.3, 0.8))
    assert (confidence_of(action, "request"), confidence_of(action)) == (0.3, 0.8)
    with pytest.raises(ConfigError, match="value function"):
        confidence_of(Action("yes"))
    with pytest.raises(ConfigError, match="own judgement"):
        choose_threshold([0.1, 0.2], [True], alpha=0.05, delta=0.05)
    with pytest.raises(ConfigError, match="not finite"):
        choose_threshold([float("nan")], [True], alpha=0.05, delta=0.05)
    for alpha, delta in ((0.0, 0.05), (0.05, 1.0)):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            choose_threshold([0.5], [True], alpha=alpha, delta=delta)
