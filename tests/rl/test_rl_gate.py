"""Stopping early must not change the expected update: exact enumeration of every coin and every action."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from foretaste.config import GateConfig
from foretaste.errors import ConfigError
from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.rl.gate import Gate, GateKeeper
from foretaste.rl.returns import gae

T = 5
unit = st.floats(0, 1)


def stopped_at(rewards, values, gates, lambdas, stop, *, final=0.0, gamma=1.0, critic_lambda=1.0):
    """Weighted advantages and errors of an episode that the gate stopped before token `stop` (T: never)."""
    length, end = stop, final if stop == T else values[stop]
    result = gae(
        rewards[None, :length],
        values[None, :length],
        np.array([end]),
        np.array([length]),
        lambdas[None, :length],
        gate_BT=gates[None, :length],
        gamma=gamma,
        critic_lambda=critic_lambda,
    )
    advantages, errors = np.zeros(T), np.zeros(T)
    advantages[:length] = (result.weights_BT * result.advantages_BT)[0]
    errors[:length] = (result.weights_BT * (result.targets_BT - values[None, :length]))[0]
    return advantages, errors


@settings(max_examples=60)
@given(
    arrays(float, T, elements=unit),
    arrays(float, T, elements=unit),
    arrays(float, T, elements=st.floats(0, 0.9)),
    arrays(float, T, elements=unit),
    unit,
    st.floats(0.8, 1),
    unit,
)
def test_gate_is_unbiased_over_all_coins_for_any_wrong_value(
    rewards, values, gates, lambdas, final, gamma, critic_lambda
):
    gates = gates.copy()
    gates[0] = 0.0  # nothing can be stopped before it has begun
    expected = np.zeros((2, T))
    for stop in range(1, T + 1):
        chance = math.prod(1 - p for p in gates[1:stop]) * (gates[stop] if stop < T else 1.0)
        expected += chance * np.array(
            stopped_at(rewards, values, gates, lambdas, stop, final=final, gamma=gamma, critic_lambda=critic_lambda)
        )
    ungated = stopped_at(
        rewards, values, np.zeros(T), lambdas, T, final=final, gamma=gamma, critic_lambda=critic_lambda
    )
    np.testing.assert_allclose(expected, ungated, atol=1e-9)


def test_gate_leaves_the_policy_gradient_unbiased_in_a_random_decision_process():
    """A frozen random policy, a deliberately wrong V, gates that depend on V and on the weight so far.

    The expected gradient with respect to every logit is enumerated exactly over actions and coins.
    """
    rng = np.random.default_rng(7)
    gate = Gate(hopeful_value=0.7, max_probability=0.75, max_weight=4.0)
    states = [state for depth in range(T) for state in itertools.product((0, 1), repeat=depth)]
    chance_of_one = {state: rng.uniform(0.2, 0.8) for state in states}
    value = {state: rng.uniform(0, 1) for state in states}  # wrong on purpose: independent of the rewards
    reward = {leaf: float(rng.random() < 0.3) for leaf in itertools.product((0, 1), repeat=T)}

    def gradient(gated: bool) -> dict[tuple[int, ...], float]:
        total = dict.fromkeys(states, 0.0)
        for leaf in reward:
            path = [leaf[:t] for t in range(T)]
            values = np.array([value[state] for state in path])
            rewards = np.zeros(T)
            rewards[-1] = reward[leaf]
            gates: list[float] = []
            for t in range(T):
                gates.append(gate.probability(values[t], gates) if gated and t else 0.0)
            score = [
                (1 - chance_of_one[s]) if a else -chance_of_one[s] for s, a in zip(path, leaf, strict=True)
            ]  # d log pi(a | s) / d logit of action 1
            chance = [chance_of_one[s] if a else 1 - chance_of_one[s] for s, a in zip(path, leaf, strict=True)]
            for stop in range(1, T + 1):
                coins = math.prod(1 - p for p in gates[1:stop]) * (gates[stop] if stop < T else 1.0)
                if coins == 0:
                    continue
                # Actions after the stop were never taken: summing leaves that share the prefix gives their chance.
                weight = math.prod(chance) * coins
                advantages, _ = stopped_at(rewards, values, np.array(gates), np.full(T, 0.7), stop)
                for t in range(stop):
                    total[path[t]] += weight * advantages[t] * score[t]
        return total

    gated, ungated = gradient(True), gradient(False)
    assert max(abs(g) for g in ungated.values()) > 1e-3
    np.testing.assert_allclose(list(gated.values()), list(ungated.values()), atol=1e-12)


@given(unit, st.lists(st.floats(0, 0.75), max_size=6), st.floats(0.05, 1), st.floats(1, 10))
def test_gate_never_exceeds_its_caps(value, past, hopeful, max_weight):
    gate = Gate(hopeful_value=hopeful, max_probability=0.75, max_weight=max_weight)
    p = gate.probability(value, past)
    assert 0 <= p <= 0.75
    weight = math.prod(1 / (1 - q) for q in past)
    if weight <= max_weight:
        assert weight / (1 - p) <= max_weight * (1 + 1e-9)
    else:
        assert p == 0


def test_gate_stops_only_below_the_hopeful_value_and_more_the_lower_the_value():
    gate = Gate(hopeful_value=0.4, max_weight=100.0)
    assert gate.probability(0.4, []) == 0
    assert gate.probability(0.2, []) == pytest.approx(0.375)
    assert gate.probability(0.0, []) == pytest.approx(0.75)


def test_gate_tosses_a_keyed_coin_with_the_stated_probability():
    gate = Gate(hopeful_value=0.5)
    tosses = [gate.decide(0.1, [], (key, 3)) for key in range(4000)]
    assert tosses == [gate.decide(0.1, [], (key, 3)) for key in range(4000)]
    assert np.mean([stop for _, stop in tosses]) == pytest.approx(tosses[0][0], abs=0.03)


@pytest.mark.parametrize("settings", [{"max_probability": 1.0}, {"max_probability": -0.1}, {"max_weight": 0.5}])
def test_gate_refuses_settings_that_would_bias_it(settings):
    with pytest.raises(ConfigError, match="accepted"):
        Gate(hopeful_value=0.5, **settings)


def test_a_gate_without_a_hopeful_value_compares_with_the_episodes_own_first_state():
    gate = Gate(hopeful_value=None, max_weight=100.0, hopeful_share=0.5)
    assert gate.probability(0.02, [], first=0.04) == 0
    assert gate.probability(0.01, [], first=0.04) == pytest.approx(0.375)
    assert gate.probability(0.02, [], first=0.08) == pytest.approx(0.375)
    assert gate.probability(0.0, []) == 0  # nothing was promised
    assert Gate(hopeful_value=0.02, max_weight=100.0).probability(0.01, [], first=0.9) == pytest.approx(0.375)


def played(success: float) -> Episode:
    turn = Turn("", Action("", (1, 2), (-0.1, -0.1), (0.5, 0.9)), (3,))
    return Episode("toy", 1, "train", 1, "plain", (turn,), EpisodeEnd.TERMINATED, success)


def test_a_believed_critics_promise_stands_in_for_success_until_there_is_some():
    keeper = GateKeeper(GateConfig(max_probability=0.75, hopeful_share=0.4))
    assert keeper.gate() is None
    assert keeper.gate(believed=True) == Gate(None, 0.75, 4.0, 0.4)  # from the first step on
    keeper.update([played(0.0), played(0.0)])
    assert keeper.gate() is None
    assert keeper.gate(believed=True) == Gate(None, 0.75, 4.0, 0.4)
    failed = Episode("toy", 1, "train", 1, "plain", (), EpisodeEnd.ERROR, None)
    keeper.update([played(1.0), played(0.0), failed])
    came = keeper.gate(believed=True)
    assert came is not None
    assert came == keeper.gate()
    assert came.hopeful_value == pytest.approx(0.4 * 0.25)


@pytest.mark.parametrize("row", [[4.0, 2.0, 0.0, 0.0], [4.0, 2.0, 0.0, 0.0, 0.3]])
def test_a_keeper_reads_states_of_earlier_versions(row):
    keeper = GateKeeper(GateConfig(max_probability=0.75))
    keeper.load({"off": False, "recent": [row]})
    assert keeper.gate() == Gate(0.25, 0.75, 4.0)
    keeper.update([played(0.0)])
    assert keeper.state()["recent"] == [[4.0, 2.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
