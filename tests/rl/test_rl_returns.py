"""GAE against sums worked out by hand, and the properties that define it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from foretaste.rl.returns import RunningScale, gae, group_advantages, leave_one_out_advantages, vtrace

numbers = st.floats(-2, 2, allow_nan=False)


def one(rewards, values, lambdas, *, final=0.0, **options):
    """GAE of a single episode without padding."""
    row = [np.array([x], dtype=float) for x in (rewards, values, lambdas)]
    return gae(row[0], row[1], np.array([final]), np.array([len(rewards)]), row[2], **options)


def test_gae_equals_the_sums_worked_out_by_hand():
    # Three tokens, the second one ends a turn (lambda .5 there, 1 elsewhere), reward 1 at the end.
    # delta = (.6 - .5, .3 - .6, 1 - .3) = (.1, -.3, .7)
    # A_2 = .7;  A_1 = -.3 + .5 * .7 = .05;  A_0 = .1 + 1 * .05 = .15
    result = one([0, 0, 1], [0.5, 0.6, 0.3], [1.0, 0.5, 1.0])
    np.testing.assert_allclose(result.advantages_BT[0], [0.15, 0.05, 0.7])
    np.testing.assert_allclose(result.targets_BT[0], [1, 1, 1])  # Monte Carlo: critic_lambda = 1
    np.testing.assert_allclose(result.weights_BT[0], [1, 1, 1])


def test_truncation_bootstraps_the_value_of_the_last_state():
    # A_1 = 0 + .8 - .6 = .2;  A_0 = (.6 - .5) + .5 * .2 = .2;  G = .8 everywhere
    result = one([0, 0], [0.5, 0.6], [0.5, 0.5], final=0.8)
    np.testing.assert_allclose(result.advantages_BT[0], [0.2, 0.2])
    np.testing.assert_allclose(result.targets_BT[0], [0.8, 0.8])


def test_discount_and_critic_lambda_by_hand():
    # gamma .9: delta_1 = 1 - .4 = .6, delta_0 = .9 * .4 - .2 = .16
    # A_1 = .6, A_0 = .16 + .9 * .5 * .6 = .43
    # G_1 = 1, G_0 = .9 * (.4 + .5 * (1 - .4)) = .63
    result = one([0, 1], [0.2, 0.4], [0.5, 0.5], gamma=0.9, critic_lambda=0.5)
    np.testing.assert_allclose(result.advantages_BT[0], [0.43, 0.6])
    np.testing.assert_allclose(result.targets_BT[0], [0.63, 1.0])


def test_padding_is_zero_and_changes_nothing():
    short = one([0, 1], [0.3, 0.7], [0.9, 0.9])
    padded = gae(
        np.array([[0, 1, 9, 9], [1, 1, 1, 1.0]]),
        np.array([[0.3, 0.7, 5, 5], [0, 0, 0, 0.0]]),
        np.array([0.0, 0.0]),
        np.array([2, 4]),
        np.full((2, 4), 0.9),
    )
    for name in ("advantages_BT", "targets_BT", "weights_BT"):
        np.testing.assert_allclose(getattr(padded, name)[0, :2], getattr(short, name)[0])
        assert not getattr(padded, name)[0, 2:].any()


@given(arrays(float, 6, elements=numbers), arrays(float, 6, elements=numbers), numbers)
def test_lambda_one_is_monte_carlo_minus_value(rewards, values, final):
    result = one(rewards, values, np.ones(6), final=final)
    returns = np.cumsum(rewards[::-1])[::-1] + final
    np.testing.assert_allclose(result.advantages_BT[0], returns - values, atol=1e-9)
    np.testing.assert_allclose(result.targets_BT[0], returns, atol=1e-9)


@given(arrays(float, 6, elements=numbers), arrays(float, 6, elements=numbers), st.floats(0, 1), st.floats(0.5, 1))
def test_advantages_are_the_lambda_weighted_sum_of_temporal_differences(rewards, values, lam, gamma):
    result = one(rewards, values, np.full(6, lam), gamma=gamma)
    delta = rewards + gamma * np.append(values[1:], 0) - values
    expected = [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, 6)) for t in range(6)]
    np.testing.assert_allclose(result.advantages_BT[0], expected, atol=1e-9)


@given(arrays(float, 5, elements=numbers), arrays(float, 5, elements=numbers), st.floats(0, 1))
def test_critic_target_minus_value_is_the_advantage_at_the_critics_lambda(rewards, values, lam):
    result = one(rewards, values, np.full(5, lam), critic_lambda=lam)
    np.testing.assert_allclose(result.targets_BT[0] - values, result.advantages_BT[0], atol=1e-9)


def test_a_true_value_function_gives_zero_expected_advantage():
    # A fair coin decides reward 0 or 1; V = .5 is right. At any lambda the two outcomes cancel.
    outcomes = [one([0, reward], [0.5, 0.5], [0.3, 0.3]).advantages_BT[0] for reward in (0.0, 1.0)]
    np.testing.assert_allclose(np.mean(outcomes, axis=0), [0, 0])


def test_gate_probability_of_one_is_refused():
    with pytest.raises(ValueError, match="gate probabilities"):
        one([1.0], [0.5], [1.0], gate_BT=np.array([[1.0]]))


def test_group_advantages_by_hand():
    advantages = group_advantages(np.array([1.0, 0.0, 1.0, 1.0]), np.array([7, 7, 9, 9]))
    np.testing.assert_allclose(advantages, [1.0, -1.0, 0.0, 0.0])


def test_an_episode_whose_partners_failed_has_no_advantage_and_leaves_the_others_theirs():
    advantages = group_advantages(np.array([1.0, 1.0, 0.0]), np.array([3, 7, 7]))
    np.testing.assert_allclose(advantages, [0.0, 1.0, -1.0])


@given(arrays(float, st.integers(2, 9), elements=numbers))
def test_leave_one_out_subtracts_the_mean_of_the_others(returns):
    expected = [r - np.delete(returns, i).mean() for i, r in enumerate(returns)]
    np.testing.assert_allclose(leave_one_out_advantages(returns), expected, atol=1e-9)


def test_running_scale_does_not_blow_up_a_step_without_signal():
    scale = RunningScale(decay=0.8)
    assert scale.update(np.array([2.0, -2.0]), np.ones(2)) == pytest.approx(2.0)
    quiet = scale.update(np.array([0.01, -0.01]), np.ones(2))
    assert quiet > 1.0  # normalising within the step would give 0.01
    copy = RunningScale(decay=0.8)
    copy.load(scale.state())
    assert copy.update(np.ones(3), np.ones(3)) == scale.update(np.ones(3), np.ones(3))


def test_running_scale_ignores_padding():
    scale = RunningScale()
    assert scale.update(np.array([3.0, 100.0]), np.array([1.0, 0.0])) == pytest.approx(3.0)


@given(arrays(float, 5, elements=numbers), arrays(float, 5, elements=numbers), st.floats(0, 1), numbers)
def test_vtrace_of_the_same_policy_is_the_critic_target(rewards, values, lam, final):
    on_policy = one(rewards, values, np.ones(5), critic_lambda=lam, final=final, gamma=0.9)
    row = (rewards[None], values[None], np.array([final]), np.array([5]), np.ones((1, 5)))
    np.testing.assert_allclose(vtrace(*row, critic_lambda=lam, gamma=0.9), on_policy.targets_BT, atol=1e-9)


def test_vtrace_by_hand():
    # Ratios (2, .5), cap 1: rho = c = (1, .5). V = (.2, .4), reward 1 at the end.
    # v_1 = .4 + .5 * (1 - .4) = .7;  v_0 = .2 + (.4 - .2) + 1 * (.7 - .4) = .7
    row = (np.array([[0, 1.0]]), np.array([[0.2, 0.4]]), np.zeros(1), np.array([2]), np.array([[2, 0.5]]))
    np.testing.assert_allclose(vtrace(*row), [[0.7, 0.7]])
    # Cap 2 lets rho_0 be 2, while c_0 stays 1: v_0 = .2 + 2 * (.4 - .2) + 1 * (.7 - .4) = .9
    np.testing.assert_allclose(vtrace(*row, ratio_cap=2.0), [[0.9, 0.7]])


@given(
    arrays(float, 4, elements=numbers),
    arrays(float, 4, elements=numbers),
    arrays(float, 4, elements=st.floats(0, 0.9)),
    arrays(float, 4, elements=st.floats(0, 3)),
    st.floats(0, 1),
    numbers,
)
def test_vtrace_over_all_coins_of_the_gate_is_vtrace_without_it(rewards, values, gates, ratios, lam, final):
    gates = gates.copy()
    gates[0] = 0.0  # nothing can be stopped before it has begun
    options = {"critic_lambda": lam, "gamma": 0.9, "ratio_cap": 2.0}

    def errors(stop, end, gate_BT):
        """Reach weight times (target - value), 0 from the stop on."""
        row = (rewards[None, :stop], values[None, :stop], np.array([end]), np.array([stop]), ratios[None, :stop])
        weights = np.cumprod(1 / (1 - gate_BT[0, :stop]))
        found = np.zeros(4)
        found[:stop] = weights * (vtrace(*row, gate_BT=gate_BT[:, :stop], **options)[0] - values[:stop])
        return found

    expected = np.zeros(4)
    for stop in range(1, 5):
        chance = np.prod(1 - gates[1:stop]) * (gates[stop] if stop < 4 else 1.0)
        expected += chance * errors(stop, final if stop == 4 else values[stop], gates[None])
    np.testing.assert_allclose(expected, errors(4, final, np.zeros((1, 4))), atol=1e-8)


def test_vtrace_corrects_towards_the_policy_of_now():
    """Old policy: fair coin. New policy: 0.8 for action 1, worth 1; action 0 is worth 0. True value .8."""
    value = 0.3
    for _ in range(200):  # one state, two actions, expectation under the old policy, repeated to the fixed point
        targets = [
            vtrace(
                np.array([[r]]), np.array([[value]]), np.zeros(1), np.array([1]), np.array([[p / 0.5]]), ratio_cap=10
            )
            for r, p in ((1.0, 0.8), (0.0, 0.2))
        ]
        value += 0.5 * (np.mean(targets) - value)
    assert value == pytest.approx(0.8, abs=1e-6)
