"""Drives as potential-based shaping: nothing is worth more or less for them, and every index is where it belongs."""

import dataclasses
import itertools
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.checks import check
from foretaste.config import (
    AlgorithmConfig,
    DrivesConfig,
    EnvConfig,
    HeldOutConfig,
    ImitateConfig,
    ModelConfig,
    ReplayConfig,
    SamplingConfig,
    TrainConfig,
)
from foretaste.errors import ConfigError
from foretaste.ledger import Ledger
from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.rl import drives
from foretaste.rl.batch import compute_returns, make_batch
from foretaste.rl.drives import Feelings
from foretaste.rl.learn import Learner
from foretaste.rl.replay import Replay
from foretaste.rl.returns import gae
from foretaste.rl.rollout import EnvPool, Oracle, rollout
from foretaste.rl.tasks import training_tasks
from foretaste.rl.train import train

ALL = DrivesConfig(repetition=0.3, checks=0.2, novelty=0.15, surprise=0.25, displeasure=0.1, permission=0.4)


def turn(observation, action, *, values=(0.5,), harm=0.0, checks=None, gate=0.0):
    sampled = Action(action, tuple(range(len(values))), (0.0,) * len(values), tuple(values))
    return Turn(observation, sampled, (1,), 0.0, gate, checks, harm)


def episode(*turns, end=EpisodeEnd.TERMINATED, final="", value=0.0, success=1.0):
    return Episode(
        "toy", 1, "train", 1, "plain", turns, end, success, final_value=value, final_observation=final,
        final_observation_tokens=(2,) if end is not EpisodeEnd.TERMINATED else (),
    )  # fmt: skip


texts = st.sampled_from(["door key", "door", "Wrong. door", "a new way", "no key", ""])
turns = st.builds(
    turn,
    texts,
    st.sampled_from(["go", "take", ""]),
    values=st.lists(st.floats(0, 1), min_size=1, max_size=3),
    harm=st.sampled_from([0.0, 0.0, 0.4, 2.0]),
    checks=st.none() | st.lists(st.booleans(), min_size=2, max_size=2).map(tuple),
    gate=st.sampled_from([0.0, 0.5]),
)
ends = st.sampled_from([EpisodeEnd.TERMINATED, EpisodeEnd.TRUNCATED, EpisodeEnd.STOPPED])
episodes = st.builds(
    lambda played, end, final, value: episode(*played, end=end, final=final, value=value),
    st.lists(turns, min_size=1, max_size=6),
    ends,
    texts,
    st.floats(0, 1),
)


# Nothing is worth more or less -------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.lists(episodes, min_size=1, max_size=4), st.sampled_from([1.0, 0.9]))
def test_shaping_adds_up_to_nothing_over_an_episode_and_to_the_last_potential_if_it_is_cut(played, gamma):
    batch = make_batch(played)
    potential = drives.potentials(batch, Feelings(ALL))
    rewards = drives.shaping_rewards(potential, batch.length_B, gamma=gamma)
    sums = (rewards * gamma ** np.arange(rewards.shape[1])).sum(axis=1)
    np.testing.assert_allclose(sums, gamma**batch.length_B * potential.final_B, atol=1e-12)
    over = [one.end is EpisodeEnd.TERMINATED for one in played]
    np.testing.assert_allclose(sums[over], 0.0, atol=1e-12)
    assert not potential.states_BT[~batch.mask_BT].any()
    assert not potential.states_BT[:, 0].any()  # nothing has come of anything yet


@settings(max_examples=150, deadline=None)
@given(st.lists(turns, min_size=2, max_size=6), st.data())
def test_a_cut_state_feels_like_the_same_state_in_a_longer_episode(played, data):
    at = data.draw(st.integers(1, len(played) - 1))
    after = played[at]
    cut = episode(*played[:at], end=EpisodeEnd.TRUNCATED, final=after.observation, value=after.action.values[0])
    whole = drives.potentials(make_batch([episode(*played)]), Feelings(ALL)).states_BT[0]
    tokens = sum(len(one.action.tokens) for one in played[:at])
    assert drives.potentials(make_batch([cut]), Feelings(ALL)).final_B[0] == pytest.approx(whole[tokens], abs=1e-12)
    assert len(set(whole[tokens : tokens + len(after.action.tokens)].tolist())) == 1  # it stands still within a turn


def tree():
    """All 64 trajectories of three turns with two actions and a coin after each; what is seen depends on both.

    Returns a dict from (actions, coins) to the episode, whose reward depends on all that happened.
    """
    found = {}
    for actions in itertools.product((0, 1), repeat=3):
        for coins in itertools.product((0, 1), repeat=3):
            seen, value, played = "start", 0.2, []
            for depth, (action, coin) in enumerate(zip(actions, coins, strict=True)):
                last = depth == 2
                reward = float(action != coins[0] and actions[0] == 1) if last else 0.0
                made = turn(seen, f"act {action}", values=(value,), harm=0.3 * action * coin)
                played.append(dataclasses.replace(made, reward=reward))
                value = 0.2 + 0.3 * action + 0.4 * coin
                seen = ("Wrong, again", "start", "a fresh sight", "other")[2 * coin + action]
            found[actions, coins] = episode(*played)
    return found


def test_no_policy_of_a_small_decision_process_gains_or_loses_by_any_drive():
    played = tree()
    batch = make_batch(list(played.values()))
    for name in (*drives.weights_of(ALL), "all"):
        config = ALL if name == "all" else DrivesConfig(**{name: 1.0})
        shaped = drives.shaping_rewards(drives.potentials(batch, Feelings(config)), batch.length_B, gamma=1.0)
        felt = name not in ("checks",)
        assert bool(np.abs(shaped).max() > 0.01) == felt
        row = {key: index for index, key in enumerate(played)}
        # Every deterministic policy: its action in each of the 1 + 2 + 4 histories of coins.
        for policy in itertools.product((0, 1), repeat=7):
            plain = total = 0.0
            for coins in itertools.product((0, 1), repeat=3):
                actions = (policy[0], policy[1 + coins[0]], policy[3 + 2 * coins[0] + coins[1]])
                index = row[actions, coins]
                plain += batch.rewards_BT[index].sum() / 8
                total += (batch.rewards_BT[index] + shaped[index]).sum() / 8
            assert total == pytest.approx(plain, abs=1e-12)


def test_in_every_state_the_order_of_the_actions_stays():
    """With the returns of shaped rewards, Q(h, a) falls by Phi(h), the same for both actions."""
    played = tree()
    batch = make_batch(list(played.values()))
    potential = drives.potentials(batch, Feelings(ALL))
    shaped = drives.shaping_rewards(potential, batch.length_B, gamma=1.0)
    ahead = np.cumsum(shaped[:, ::-1], axis=1)[:, ::-1]
    np.testing.assert_allclose(ahead, -potential.states_BT, atol=1e-12)
    assert np.abs(potential.states_BT[:, 1:]).max() > 0.05
    keys = list(played)
    for depth in range(3):
        groups: dict[Any, dict[int, list[int]]] = {}
        for index, (actions, coins) in enumerate(keys):
            groups.setdefault((actions[:depth], coins[:depth]), {0: [], 1: []})[actions[depth]].append(index)
        for rows in groups.values():
            gained = [ahead[rows[action], depth].mean() for action in (0, 1)]
            assert gained[0] == pytest.approx(gained[1], abs=1e-12)


def test_with_lambda_one_the_expected_gradient_stays_and_below_one_it_moves_until_the_drives_have_faded():
    batch = make_batch(list(tree().values()))
    actions = np.array([[int(t.action.text[-1]) for t in one.turns] for one in batch.episodes])
    score = actions - 0.5  # of a uniform policy over two actions, in each state

    def moved(turn_lambda, share):
        algorithm = AlgorithmConfig(turn_lambda=turn_lambda)
        added = drives.shaping_advantages(batch, drives.potentials(batch, Feelings(ALL), share=share), algorithm)
        return np.abs((added * score).mean(axis=0)).max()

    assert moved(1.0, 1.0) < 1e-12
    assert moved(0.5, 1.0) > 1e-3
    np.testing.assert_allclose(moved(0.5, 0.25), 0.25 * moved(0.5, 1.0))
    assert drives.share_left(ALL, 0) == 1.0
    assert drives.share_left(DrivesConfig(half_life_steps=5.0), 10) == 0.25


@settings(max_examples=100, deadline=None)
@given(
    st.lists(episodes, min_size=1, max_size=4),
    st.sampled_from([1.0, 0.95]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 99),
)
def test_shaping_is_gae_with_the_drives_added_to_v(played, gamma, turn_lambda, token_lambda, seed):
    batch = make_batch(played)
    algorithm = AlgorithmConfig(gamma=gamma, turn_lambda=turn_lambda, token_lambda=token_lambda)
    potential = drives.potentials(batch, Feelings(ALL))
    values = np.random.default_rng(seed).random(batch.values_BT.shape) * batch.mask_BT
    with_drives = batch._replace(
        values_BT=values + potential.states_BT, final_value_B=batch.final_value_B + potential.final_B
    )
    plain = compute_returns(batch, algorithm, values_BT=values)
    added = drives.shaping_advantages(batch, potential, algorithm)
    np.testing.assert_allclose(
        plain.advantages_BT + added, compute_returns(with_drives, algorithm).advantages_BT, atol=1e-9
    )


def test_with_lambda_one_it_is_a_baseline():
    played = [episode(turn("a", "go"), turn("Wrong", "go", values=(0.1, 0.9)), turn("b", "go"))]
    batch = make_batch(played)
    potential = drives.potentials(batch, Feelings(ALL))
    added = drives.shaping_advantages(batch, potential, AlgorithmConfig(turn_lambda=1.0))
    np.testing.assert_allclose(added, -potential.states_BT, atol=1e-12)
    assert abs(added[0, 1]) > 0.05


# What is felt ------------------------------------------------------------------------------------------


CIRCLE = episode(
    turn("hall", "north", values=(0.4,)),
    turn("Wall. hall", "north", values=(0.6,), harm=0.25, checks=(True, False)),
    turn("Wall. hall", "north", values=(0.2,), harm=2.0, checks=(True, True)),
    end=EpisodeEnd.TRUNCATED,
    final="Unknown hall garden",
    value=0.7,
)


@pytest.mark.parametrize(
    ("name", "felt"),
    [
        ("repetition", [0, 0, 0, -0.5]),
        ("checks", [0, 0, 0.5, 1.0]),
        ("novelty", [0, 0.25, 0.125, 0.0625 + 1 / 3]),
        ("surprise", [0, 0.1, 0.05 + 0.2, 0.125 + 0.25]),
        ("displeasure", [0, 0, 0, -0.5]),
        ("permission", [0, 0, -0.25, -1.0]),
    ],
)
def test_what_each_drive_feels(name, felt):
    assert drives.DRIVES[name](CIRCLE) == pytest.approx(felt)
    potential = drives.potentials(make_batch([CIRCLE]), Feelings(DrivesConfig(**{name: 2.0})), share=0.5)
    assert [*potential.states_BT[0], potential.final_B[0]] == pytest.approx(felt)
    means = drives.metrics_of([CIRCLE], Feelings(DrivesConfig(**{name: 2.0})), share=0.5)
    assert means == {"drives/share": 0.5, f"drives/{name}": pytest.approx(np.mean(felt[:-1]))}


def test_every_drive_has_a_weight_and_every_weight_a_drive():
    weights = {field.name for field in dataclasses.fields(DrivesConfig)} - {"half_life_steps"}
    assert weights == set(drives.DRIVES)
    assert drives.weights_of(DrivesConfig()) == {}


def test_words_count_as_words_and_not_within_others():
    assert drives.displeasure(episode(turn("No", "a"), turn("nothing new: knot", "a"), turn("knot", "a")))[:3] == [
        0.0,
        -0.5,
        -0.25,
    ]


def test_episodes_without_recorded_values_surprise_nobody():
    bare = dataclasses.replace(CIRCLE.turns[1], action=Action("north", (1,), (0.0,)))
    assert drives.surprise(episode(CIRCLE.turns[0], bare, CIRCLE.turns[2])) == [0.0] * 4


def test_a_cut_episode_keeps_the_text_it_was_cut_at(tmp_path):
    config = TrainConfig(env=EnvConfig("guess", examples=0, max_turns=1), episodes_per_step=12)
    played = rollout(Oracle(), training_tasks(config, 1), EnvPool(config.env)).episodes
    cut = [one for one in played if one.end is EpisodeEnd.TRUNCATED]
    assert cut
    assert all("It is from" in one.final_observation for one in cut)
    assert not any(one.final_observation for one in played if one.end is EpisodeEnd.TERMINATED)
    Replay(tmp_path).add([CIRCLE], 1)
    again = Replay(tmp_path)
    again.load(1)
    assert again.newest(1) == [CIRCLE]


# In training -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algorithm": AlgorithmConfig(name="grpo", group_size=8)}, "add up to nothing"),
        ({"algorithm": AlgorithmConfig(name="reinforce")}, "add up to nothing"),
        ({"model": ModelConfig(privileged_critic=True)}, "drives.surprise"),
        ({"drives": DrivesConfig(checks=-0.1)}, "drives.checks"),
        ({"drives": DrivesConfig(half_life_steps=0.0)}, "drives.half_life_steps"),
    ],
)
def test_settings_under_which_drives_could_do_nothing_or_harm_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        check(TrainConfig(**{"drives": ALL, **changes}))
    check(TrainConfig(**{**changes, "drives": DrivesConfig()}))


def test_drives_touch_the_policy_and_leave_the_critic_alone(make_learner):
    """One optimiser step with any advantages: the same value loss, another gradient of the policy."""
    algorithm = AlgorithmConfig(learning_rate=1e-3, passes=1, minibatches=1, normalize_advantages=False)
    found = []
    for shaping in (0.0, -1.0):
        updater, batch = make_learner(ModelConfig("nano-xs", critic_layers=1), algorithm, 8)
        advantages_BT = compute_returns(batch, algorithm).advantages_BT
        found.append(updater.update(batch, step=2, seed=0, shaping_BT=shaping * advantages_BT))
    plain, undone = found
    assert plain["value/loss"] == undone["value/loss"]
    assert plain["value/gradient_norm"] == undone["value/gradient_norm"]
    assert plain["policy/gradient_norm"] > 1e-3
    assert undone["policy/gradient_norm"] == undone["policy/loss"] == 0.0  # it is added, to the advantages


def test_lambda_follows_v_and_drives_together():
    """V says nothing; harm tells failures: lambda falls only if the drives are heard."""
    kind = [episode(turn("a", "x"), turn("b", "x"), turn("c", "x")) for _ in range(8)]
    harmful = [episode(turn("a", "x", harm=1.0), turn("b", "x"), turn("c", "x"), success=0.0) for _ in range(8)]
    config = TrainConfig(drives=DrivesConfig(permission=0.5), algorithm=AlgorithmConfig(adapt_lambda=True))
    for share, lower in ((0.0, False), (1.0, True)):
        updater = SimpleNamespace(actor_critic=SimpleNamespace(critic_taught=False))
        learner = Learner(config, cast(Any, updater), cast(Any, None), lambda step, advice: None)
        metrics = learner._judge_critic(make_batch([*kind, *harmful]), Feelings(config.drives), share)
        assert (learner.adapter.value < 0.9) == lower
        assert metrics["value/auc_50"] == 0.5  # the critic is still measured alone


def run_config(folder, weights, **changes):
    return TrainConfig(
        env=EnvConfig("guess", examples=0),
        model=ModelConfig(name="nano-xs", critic_layers=1),
        sampling=SamplingConfig(max_new_tokens=3),
        algorithm=AlgorithmConfig(learning_rate=1e-3, value_pretraining_episodes=8, value_pretraining_passes=1),
        imitate=ImitateConfig(episodes=16, passes=1, learning_rate=3e-3),
        held_out=HeldOutConfig(items=4),
        drives=weights,
        steps=2,
        episodes_per_step=16,
        runs_folder=str(folder),
        **changes,
    )


def test_weights_of_zero_change_no_bit_and_others_change_only_what_is_learned(tmp_path):
    plain = train(run_config(tmp_path, DrivesConfig()))
    zero = train(run_config(tmp_path, DrivesConfig(half_life_steps=1.0)))
    driven = train(run_config(tmp_path, ALL))
    faded = train(run_config(tmp_path, dataclasses.replace(ALL, half_life_steps=0.005)))
    assert zero.id == plain.id == faded.id
    assert driven.id != plain.id
    with Ledger.open(tmp_path) as ledger:
        runs = [ledger.records(one.run or "", "metrics") for one in (plain, driven)]
        first, shaped = (records[0].payload for records in runs)
    told = [name for name in first if name.startswith("train/")]
    assert "train/reward" in told
    assert all(first[name] == shaped[name] for name in told)  # the same policy sampled; nothing else is measured
    assert not any(name.startswith("drives/") for name in first)
    assert {name for name in shaped if name.startswith("drives/")} == {
        "drives/share",
        *(f"drives/{name}" for name in drives.DRIVES),
    }
    assert shaped["drives/share"] == pytest.approx(0.5 ** (1 / 20))


def test_an_episode_is_felt_once_a_step_and_shared_feelings_change_no_figure(tmp_path, monkeypatch):
    asked, steps = [], []
    real, learn = drives.repetition, Learner.learn

    def counted(one):
        asked[-1].append(id(one))
        return real(one)

    def learned(self, batch, step, reference):
        asked.append([])
        steps.append(len(batch.episodes))
        return learn(self, batch, step, reference)

    monkeypatch.setitem(drives.DRIVES, "repetition", counted)
    monkeypatch.setattr(Learner, "learn", learned)
    train(run_config(tmp_path, ALL, replay=ReplayConfig(actor_episodes=32)))
    # The actor's first step holds the eight episodes of value pretraining too, its second those of both steps.
    assert [len(ids) for ids in asked] == [8 + steps[0], sum(steps)]
    assert all(len(set(ids)) == len(ids) for ids in asked)
    batch, shared = make_batch([CIRCLE, *tree().values()]), Feelings(ALL)
    for share in (1.0, 0.3):
        again, alone = (
            drives.potentials(batch, shared, share=share),
            drives.potentials(batch, Feelings(ALL), share=share),
        )
        assert np.array_equal(again.states_BT, alone.states_BT)
        assert np.array_equal(again.final_B, alone.final_B)


def test_gae_of_no_value_is_the_discounted_sum():
    """What `shaping_advantages` builds on: with V = 0 everywhere, GAE of a reward is its (gamma lambda) sum."""
    found = gae(np.array([[1.0, 2.0, 4.0]]), np.zeros((1, 3)), np.zeros(1), np.array([3]), np.full((1, 3), 0.5))
    np.testing.assert_allclose(found.advantages_BT, [[1 + 1 + 1, 2 + 2, 4.0]])
