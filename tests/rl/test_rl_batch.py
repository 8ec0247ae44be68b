"""Which token gets which number: shifting any index by one must fail here."""

import numpy as np
import pytest

from foretaste.config import AlgorithmConfig
from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.rl.batch import as_failures, compute_returns, make_batch, telling, token_sequence
from foretaste.rl.reading import split_by_tokens


def turn(observation, action, *, reward=0.0, values=None, gate=0.0):
    """A turn of token ids; log-probabilities are -id / 100, so that each is recognisable."""
    values = [0.5] * len(action) if values is None else values
    sampled = Action("", tuple(action), tuple(-token / 100 for token in action), tuple(values))
    return Turn("", sampled, tuple(observation), reward, gate)


def episode(*turns, end=EpisodeEnd.TERMINATED, seed=1, final_value=0.0):
    return Episode("toy", seed, "train", 1, "plain", turns, end, 1.0, final_value=final_value)


TWO_TURNS = episode(
    turn([10, 11, 12], [1, 2], reward=0.25, values=[0.1, 0.2]),
    turn([13], [3], reward=1.0, values=[0.3], gate=0.5),
)


def test_tokens_and_mask_are_those_that_were_sampled_and_observed():
    sequence = token_sequence(TWO_TURNS)
    assert list(sequence.tokens) == [10, 11, 12, 1, 2, 13, 3]
    assert list(sequence.action_mask) == [False, False, False, True, True, False, True]


def test_every_number_lands_on_its_token():
    batch = make_batch([TWO_TURNS, episode(turn([10, 11], [4], reward=2.0), seed=2)])
    np.testing.assert_allclose(batch.rewards_BT, [[0, 0.25, 1.0], [2.0, 0, 0]])
    np.testing.assert_allclose(batch.values_BT, [[0.1, 0.2, 0.3], [0.5, 0, 0]])
    np.testing.assert_allclose(batch.logprobs_BT, [[-0.01, -0.02, -0.03], [-0.04, 0, 0]])
    np.testing.assert_allclose(batch.gate_BT, [[0, 0, 0.5], [0, 0, 0]])
    assert batch.turn_end_BT.tolist() == [[False, True, True], [True, False, False]]
    assert batch.mask_BT.tolist() == [[True, True, True], [True, False, False]]
    assert batch.tokens == 4
    assert batch.shared_prefix == 2


def test_ppo_crosses_an_observation_with_one_lambda_step():
    # delta = (.2 - .1, .25 + .3 - .2, 1 - .3) = (.1, .35, .7); the step 1 -> 2 crosses into the next turn.
    plain = episode(
        turn([10], [1, 2], reward=0.25, values=[0.1, 0.2]), turn([13, 14, 15], [3], reward=1.0, values=[0.3])
    )
    algorithm = AlgorithmConfig(turn_lambda=0.5, token_lambda=0.9)
    returns = compute_returns(make_batch([plain]), algorithm)
    a_1 = 0.35 + 0.5 * 0.7
    np.testing.assert_allclose(returns.advantages_BT[0], [0.1 + 0.9 * a_1, a_1, 0.7])
    np.testing.assert_allclose(returns.targets_BT[0], [1.25, 1.25, 1.0])


def test_gate_sits_on_the_first_token_of_its_turn():
    algorithm = AlgorithmConfig(turn_lambda=1.0, token_lambda=1.0)
    returns = compute_returns(make_batch([TWO_TURNS]), algorithm)
    np.testing.assert_allclose(returns.weights_BT[0], [1, 1, 2])  # survived a gate of 1/2 before the second turn
    # A_1 = .25 + .3 - .2 + 2 * .7;  G_1 = .25 + .3 + 2 * (1 - .3)
    np.testing.assert_allclose(returns.advantages_BT[0, 1], 0.35 + 1.4)
    np.testing.assert_allclose(returns.targets_BT[0, 1], 0.55 + 1.4)


def test_truncated_and_stopped_episodes_bootstrap_terminated_ones_do_not():
    for end, final, expected in (
        (EpisodeEnd.TRUNCATED, 0.8, 0.8),
        (EpisodeEnd.STOPPED, 0.1, 0.1),
        (EpisodeEnd.TERMINATED, 0.0, 0.0),
    ):
        batch = make_batch([episode(turn([9], [1, 2]), end=end, final_value=final)])
        returns = compute_returns(batch, AlgorithmConfig())
        np.testing.assert_allclose(returns.targets_BT[0], [expected, expected])


def test_failed_episodes_are_left_out_and_not_reward_zero():
    failed = episode(turn([9], [1, 2]), end=EpisodeEnd.ERROR, seed=3)
    batch = make_batch([failed, TWO_TURNS])
    assert batch.episodes == (TWO_TURNS,)
    with pytest.raises(ValueError, match="no usable episode"):
        make_batch([failed])


def test_an_action_without_tokens_gives_its_reward_to_the_token_before():
    silent = episode(turn([9], [1, 2], reward=0.5), turn([8], [], reward=1.0))
    np.testing.assert_allclose(make_batch([silent]).rewards_BT, [[0, 1.5]])


def test_grpo_compares_episodes_of_the_same_item_only():
    def attempt(seed, reward):
        return episode(turn([9], [1, 2], reward=reward), seed=seed)

    batch = make_batch([attempt(1, 1.0), attempt(2, 0.0), attempt(1, 0.0), attempt(2, 0.0)])
    returns = compute_returns(batch, AlgorithmConfig(name="grpo", group_size=2))
    np.testing.assert_allclose(returns.advantages_BT, [[1, 1], [0, 0], [-1, -1], [0, 0]])


def test_reinforce_subtracts_the_mean_of_the_other_episodes():
    batch = make_batch([episode(turn([9], [1], reward=r), seed=s) for s, r in ((1, 1.0), (2, 0.0), (3, 0.0))])
    returns = compute_returns(batch, AlgorithmConfig(name="reinforce"))
    np.testing.assert_allclose(returns.advantages_BT[:, 0], [1, -0.5, -0.5])


def test_without_a_critic_survivors_stand_for_the_stopped_whose_return_nobody_knows():
    lost = episode(turn([10], [4], reward=0.0), seed=2)
    returns = compute_returns(make_batch([TWO_TURNS, lost]), AlgorithmConfig(name="reinforce"))
    np.testing.assert_allclose(returns.weights_BT, [[2, 2, 2], [1, 0, 0]])  # survived a gate of 1/2
    stopped = episode(turn([10], [4]), end=EpisodeEnd.STOPPED, final_value=0.4)
    with pytest.raises(ValueError, match="the gate stopped; leave it out"):
        compute_returns(make_batch([TWO_TURNS, stopped]), AlgorithmConfig(name="reinforce"))


def test_microbatches_hold_every_row_once_within_the_limit():
    lengths = [5, 100, 7, 60, 5, 1]
    groups = split_by_tokens(lengths, 120)
    assert sorted(index for group in groups for index in group) == list(range(6))
    assert all(len(group) * max(lengths[i] for i in group) <= 120 for group in groups)
    assert split_by_tokens([500], 120) == [[0]]


def test_leave_one_out_compares_within_the_group_where_there_are_groups():
    won = [1.0, 0.0, 1.0, 1.0]
    batch = make_batch([episode(turn([10], [1], reward=r), seed=index // 2) for index, r in enumerate(won)])
    grouped = compute_returns(batch, AlgorithmConfig(name="reinforce", group_size=2)).advantages_BT[:, 0]
    np.testing.assert_allclose(grouped, [1.0, -1.0, 0.0, 0.0])
    whole = compute_returns(batch, AlgorithmConfig(name="reinforce")).advantages_BT[:, 0]
    np.testing.assert_allclose(whole, [1 / 3, -1.0, 1 / 3, 1 / 3])


def test_only_groups_that_differ_are_telling():
    returns = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    episodes = [episode(turn([10], [1], reward=r), seed=index // 2) for index, r in enumerate(returns)]
    assert [one.seed for one in telling(episodes)] == [0, 0]
    assert telling(episodes[2:]) == []


def test_the_biased_stop_makes_failures_of_stopped_episodes_and_forgets_the_gates():
    stopped = episode(turn([10], [1]), turn([11], [2], gate=0.5), end=EpisodeEnd.STOPPED, final_value=0.4)
    found = as_failures([stopped, episode(turn([10], [1], reward=1.0))])
    assert (found[0].end, found[0].success, found[0].final_value) == (EpisodeEnd.TERMINATED, 0.0, 0.0)
    assert make_batch(found).gate_BT.sum() == 0.0
    assert found[1].success == 1.0
