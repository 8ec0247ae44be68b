"""Rollouts with a real sampler and with a scripted oracle; environments that misbehave become data."""

import math

import numpy as np
import pytest

from foretaste.config import AlgorithmConfig, EnvConfig, HeldOutConfig, ModelConfig, SamplingConfig, TrainConfig
from foretaste.envs.base import TextEnv
from foretaste.envs.seeds import seed_for, split_of
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.sampler import Sampler
from foretaste.records import Action, EpisodeEnd
from foretaste.rl.batch import make_batch
from foretaste.rl.gate import Gate
from foretaste.rl.player import Player
from foretaste.rl.reading import Reader
from foretaste.rl.rollout import EnvPool, Oracle, rollout
from foretaste.rl.tasks import Task, held_out_tasks, training_tasks


class Count(TextEnv):
    """Three turns; the answer does not matter; reward .5 in the last one."""

    name = "count"
    instructions = "Say anything."

    def begin(self):
        self.number = self.random.randrange(100)
        return f"start {self.number}", {"privileged": "turn 0"}

    def act(self, action):
        done = self.turn == 2
        return (
            f"turn {self.turn + 1}",
            0.5 * done,
            done,
            {"privileged": f"turn {self.turn + 1}", "success": float(done)},
        )

    def oracle(self):
        return "yes"

    def max_turns(self):
        return 5


class Endless(Count):
    """Never terminates."""

    def act(self, action):
        return "more", 0.0, False, {}


class Wordy(Endless):
    """Says more than a context has room for."""

    def act(self, action):
        return "word " * 400, 0.0, False, {}


class Broken(Count):
    """Fails in the way that the item's first observation names."""

    def act(self, action):
        fault = self.number % 4
        if fault == 0:
            raise KeyError("lost")
        reward = math.nan if fault == 1 else 0.0
        observation = 7 if fault == 2 else "fine"
        return observation, reward, True, {"error": "the grader failed"} if fault == 3 else {}  # type: ignore[return-value]


@pytest.fixture(scope="module")
def actor_critic():
    return ActorCritic.load(ModelConfig(name="nano", critic_layers=1), seed=3)


def sampler(actor_critic, **settings):
    return Sampler(actor_critic, SamplingConfig(**{"max_new_tokens": 6, "concurrent": 3, **settings}))


def tasks(count, level=1):
    return [Task("count", seed, level, "plain", 100 + seed) for seed in range(count)]


def pool(env, **settings):
    return EnvPool(EnvConfig(id="count", **{"examples": 1, **settings}), env)


def test_episodes_hold_what_was_sampled_token_by_token(actor_critic):
    played = rollout(sampler(actor_critic), tasks(8), pool(Count), checkpoint="abc")
    assert [episode.seed for episode in played.episodes] == list(range(8))
    batch = make_batch(played.episodes)
    evaluation = actor_critic.evaluate(batch.sequences)
    np.testing.assert_allclose(
        evaluation.logprobs_N.detach().numpy(), batch.logprobs_BT[batch.mask_BT], atol=2e-4, rtol=0
    )
    np.testing.assert_allclose(evaluation.values_N.detach().numpy(), batch.values_BT[batch.mask_BT], atol=2e-4, rtol=0)
    for episode in played.episodes:
        assert episode.end is EpisodeEnd.TERMINATED
        assert episode.success == 1.0
        assert episode.checkpoint == "abc"
        assert episode.final_value == 0.0
        assert [turn.reward for turn in episode.turns] == [0, 0, 0.5]
        assert [turn.privileged for turn in episode.turns] == ["turn 0", "turn 1", "turn 2"]
        assert episode.turns[0].observation.startswith("start")
        text = actor_critic.tokenizer.decode(episode.turns[1].observation_tokens)
        assert "turn 1" in text  # the observation's tokens sit before the second action


def test_the_same_tasks_give_the_same_episodes_whatever_runs_beside_them(actor_critic):
    together = rollout(sampler(actor_critic), tasks(6), pool(Count)).episodes
    alone = rollout(sampler(actor_critic, concurrent=1), tasks(6), pool(Count)).episodes
    for a, b in zip(together, alone, strict=True):
        assert [turn.action.tokens for turn in a.turns] == [turn.action.tokens for turn in b.turns]


def test_the_tasks_own_turn_limit_ends_it_and_nothing_is_worth_anything_after(actor_critic):
    episodes = rollout(sampler(actor_critic), tasks(3), pool(Endless, examples=0)).episodes
    for episode in episodes:
        assert episode.end is EpisodeEnd.TERMINATED
        assert (len(episode.turns), episode.success, episode.final_value) == (5, 0.0, 0.0)


def test_an_endless_env_is_truncated_and_bootstraps_the_value_of_its_last_state(actor_critic):
    episodes = rollout(sampler(actor_critic), tasks(4), pool(Endless, examples=0, max_turns=2)).episodes
    for episode in episodes:
        assert episode.end is EpisodeEnd.TRUNCATED
        assert len(episode.turns) == 2
        assert episode.success == 0.0
    # The bootstrap is V after the last observation: the value that a further turn would have started with.
    longer = rollout(sampler(actor_critic), tasks(4), pool(Endless, examples=0, max_turns=3)).episodes
    for short, long in zip(episodes, longer, strict=True):
        assert short.final_value == pytest.approx(long.turns[2].action.values[0], abs=1e-4)


def test_a_full_context_truncates(actor_critic):
    probe = rollout(sampler(actor_critic), tasks(1), pool(Endless, examples=0)).episodes[0]
    room = sum(len(turn.observation_tokens) + len(turn.action.tokens) for turn in probe.turns[:2])
    episode = rollout(sampler(actor_critic, max_context=room + 1), tasks(1), pool(Endless, examples=0)).episodes[0]
    assert episode.end is EpisodeEnd.TRUNCATED
    assert len(episode.turns) < len(probe.turns)
    assert episode.final_value > 0.0


@pytest.mark.parametrize("room_left", [0, 5])
def test_the_state_that_a_full_context_cut_is_kept_as_far_as_it_was_read(actor_critic, room_left):
    probe = rollout(sampler(actor_critic), tasks(1), pool(Wordy, examples=0)).episodes[0].turns[0]
    full = len(probe.observation_tokens) + len(probe.action.tokens) + room_left
    cut = rollout(sampler(actor_critic, max_context=full), tasks(1), pool(Wordy, examples=0)).episodes[0]
    assert cut.end is EpisodeEnd.TRUNCATED
    assert len(cut.final_observation_tokens) == room_left
    assert cut.final_observation.startswith("word word")
    batch = make_batch([cut])
    head = actor_critic.critic.head.linear.weight
    reader = Reader(actor_critic, AlgorithmConfig(), temperature=1.0)
    assert head.abs().sum() > 0  # V differs from state to state
    assert reader.final_values(batch._replace(final_value_B=np.full(1, -1.0)))[0] == pytest.approx(
        cut.final_value, abs=1e-5
    )


def test_a_prompt_that_does_not_fit_is_an_error_that_names_the_knob(actor_critic):
    episode = rollout(sampler(actor_critic, max_context=4), tasks(1), pool(Count)).episodes[0]
    assert episode.end is EpisodeEnd.ERROR
    assert "sampling.max_context" in (episode.error or "")


def test_faults_of_the_environment_become_errors_and_never_reward_zero(actor_critic):
    episodes = rollout(sampler(actor_critic), tasks(24), pool(Broken)).episodes
    assert {episode.end for episode in episodes} == {EpisodeEnd.ERROR}
    assert {episode.success for episode in episodes} == {None}
    reasons = " | ".join(sorted({episode.error or "" for episode in episodes}))
    for part in ("KeyError: 'lost'", "no finite number", "type int; return str", "the grader failed"):
        assert part in reasons


class Speaking(Count):
    """Two turns that pay .5 each; what `info` says of each is given, and the task ends after `last` turns."""

    infos = ({}, {})
    last = 99

    def act(self, action):
        return "more", 0.5, self.turn + 1 == self.last, self.infos[min(self.turn, 1)]


def played_by(infos, *, turns=2, ends=False, cut=False):
    """An episode of a few turns, over by its end, by the turn limit, or by `cut`."""
    env = type("Spoken", (Speaking,), {"infos": infos, "last": turns if ends else 99})()
    player = Player(tasks(1)[0], env, [], max_turns=99 if cut else turns)
    player.start("0")
    for _ in range(turns):
        if player.end is None:
            player.answer(Action("yes"))
    if cut and player.end is None:
        player.cut()
    return player.episode()


@pytest.mark.parametrize("over", [{"ends": True}, {"cut": True}, {}], ids=["end", "context", "turns"])
def test_what_the_environment_says_of_success_counts_however_the_episode_ends(over):
    assert played_by(({"success": 0.0}, {"success": 0.0}), **over).success == 0.0
    assert played_by(({"success": 0.0}, {}), **over).success == 0.0  # said once, and not taken back
    assert played_by(({"success": 0.0}, {"success": 0.25}), **over).success == 0.25
    assert played_by(({}, {"success": None}), **over).success == 1.0  # never spoken of: .5 + .5
    assert played_by(({}, {}), turns=1, **over).success == 0.0


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (None, "step 2 returned info of type NoneType; return a dict"),
        ({"harm": None}, "step 2 returned info['harm'] = None; return a number of at least 0"),
        ({"harm": math.nan}, "info['harm'] = nan"),
        ({"harm": -1.0}, "info['harm'] = -1.0"),
        ({"checks": 5}, "step 2 returned info['checks'] = 5; return a tuple of bool"),
        ({"success": "yes"}, "step 2 returned info['success'] = 'yes'; return a number in [0, 1]"),
        ({"success": math.nan}, "info['success'] = nan"),
        ({"success": 1.5}, "info['success'] = 1.5"),
    ],
)
def test_an_info_that_breaks_the_contract_is_an_error_of_the_episode(info, said):
    episode = played_by(({}, info))
    assert (episode.end, episode.success) == (EpisodeEnd.ERROR, None)
    assert said in (episode.error or "")
    assert len(episode.turns) == 1


def test_what_info_may_hold_is_taken_as_it_is_meant():
    episode = played_by(({"checks": [1, 0], "harm": 2}, {"checks": None, "success": True}))
    assert [(turn.checks, turn.harm) for turn in episode.turns] == [((True, False), 2.0), (None, 0.0)]
    assert episode.success == 1.0
    env = Count()
    env.begin = lambda: ("start", None)  # type: ignore[method-assign]
    player = Player(tasks(1)[0], env, [])
    assert player.start("0") is None
    assert player.error == "reset returned info of type NoneType; return a dict"


@pytest.mark.parametrize("hopeful", [2.0, None])
def test_gate_stops_with_the_recorded_probability_and_bootstraps(actor_critic, hopeful):
    gate = Gate(hopeful, max_probability=0.5, max_weight=100.0, hopeful_share=4.0)  # V is always below: it often stops
    episodes = rollout(sampler(actor_critic), tasks(60), pool(Count), gate=gate).episodes
    stopped = [episode for episode in episodes if episode.end is EpisodeEnd.STOPPED]
    assert 10 < len(stopped) < 50
    for episode in episodes:
        assert episode.turns[0].gate_probability == 0.0
        for turn in episode.turns[1:]:
            bar = hopeful or 4.0 * episode.turns[0].action.values[0]
            expected = gate.max_probability * (1 - turn.action.values[0] / bar)
            assert turn.gate_probability == pytest.approx(expected, abs=1e-6)
    for episode in stopped:
        assert episode.success is None
        assert 0 < episode.final_value < 1


def test_instructions_can_be_left_out():
    shown = EnvPool(EnvConfig("lock", examples=1)).prompt
    spared = EnvPool(EnvConfig("lock", examples=1, instructions=False)).prompt
    assert shown[0].role == "system"
    assert spared == shown[1:]


def test_the_oracle_plays_without_a_model():
    episodes = rollout(Oracle(), tasks(5), pool(Count)).episodes
    assert [turn.action.text for turn in episodes[0].turns] == ["yes"] * 3
    assert all(episode.success == 1.0 for episode in episodes)


def test_training_and_held_out_items_never_meet_and_steps_do_not_repeat():
    config = TrainConfig(env=EnvConfig(id="guess"), episodes_per_step=8)
    steps = [training_tasks(config, step) for step in range(4)]
    training = {task.seed for step in steps for task in step}
    assert len(training) == 32
    assert not training & {task.seed for task in held_out_tasks(config, "before", 200)}
    assert [t.seed for t in held_out_tasks(config, "before", 9)] == [t.seed for t in held_out_tasks(config, "after", 9)]


def test_which_items_are_held_out_is_said_by_their_own_seed_and_not_by_the_run_s():
    def items(seed: int, held_out: int) -> set[int]:
        config = TrainConfig(env=EnvConfig(id="guess"), seed=seed, held_out=HeldOutConfig(seed=held_out))
        return {task.seed for task in held_out_tasks(config, "before", 50)}

    assert items(1, 0) == items(2, 0) == {seed_for("practice", index) for index in range(50)}
    assert items(1, 5) == items(2, 5)
    assert not items(1, 5) & items(1, 0)
    assert not items(1, 5) & items(1, 6)
    assert {split_of(seed) for seed in items(1, 5)} == {"practice"}


def test_a_group_shares_its_item_and_not_its_sampling():
    from foretaste.config import AlgorithmConfig

    config = TrainConfig(algorithm=AlgorithmConfig(name="grpo", group_size=4), episodes_per_step=8)
    chosen = training_tasks(config, 1)
    assert [len({task.seed for task in chosen[i : i + 4]}) for i in (0, 4)] == [1, 1]
    assert len({task.sample_seed for task in chosen}) == 8
