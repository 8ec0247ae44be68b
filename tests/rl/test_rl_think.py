"""Value-guided choice picks by V, counts every token, and refuses a V that means nothing."""

import dataclasses

import pytest

from foretaste.config import EnvConfig, ModelConfig, SamplingConfig
from foretaste.errors import ConfigError, ModelError
from foretaste.models.actor_critic import ActorCritic
from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.rl import think as module
from foretaste.rl.probe_envs import Masking
from foretaste.rl.think import METHODS, Budget, final_rating, mean_logprob, think

ENV, SAMPLING = EnvConfig("masking", examples=0), SamplingConfig(max_new_tokens=4, max_context=256)


@pytest.fixture(scope="module")
def model():
    found = ActorCritic.load(ModelConfig("nano-xs", critic_layers=-1))
    found.critic_restored = True  # as if it came from a checkpoint
    return found


def run(model, method, **changes):
    budget = Budget(**{"n": 3, **changes})
    return think(model, ENV, SAMPLING, method=method, items=4, budget=budget, env_class=Masking)


def attempt(answer, values, logprobs=(-0.5, -0.5), *, end=EpisodeEnd.TERMINATED, success=0.0):
    action = Action(answer, (1, 2), logprobs, values)
    return Episode("toy", 1, "practice", 1, "plain", (Turn("", action),), end, success)


def test_each_method_picks_by_its_own_measure():
    tries = [
        attempt("left", (0.1, 0.2), (-0.1, -0.1), success=0.0),
        attempt("right", (0.1, 0.9), (-2.0, -2.0), success=1.0),
        attempt("left", (0.9, 0.3), (-0.3, -0.3), success=0.0),
    ]
    picked = {method: module._chosen(method, tries) for method in ("one", "vote", "likelihood", "best")}
    assert [picked[method].answer for method in ("one", "vote", "likelihood", "best")] == [
        "left", "left", "left", "right"
    ]  # fmt: skip
    assert picked["best"].success == 1.0
    assert all(thought.tokens == 6 for thought in picked.values())
    assert final_rating(tries[2]) == 0.3  # the last value, not the first or the largest
    assert mean_logprob(tries[1]) == -2.0


def test_failed_and_abandoned_attempts_are_chosen_last():
    failed = dataclasses.replace(attempt("x", (0.9, 0.9), (0.0, 0.0)), end=EpisodeEnd.ERROR, success=None)
    stopped = dataclasses.replace(attempt("y", (0.9, 0.9)), end=EpisodeEnd.STOPPED, success=None)
    good = attempt("z", (0.1, 0.1), success=1.0)
    for method in ("vote", "likelihood", "best"):
        assert module._chosen(method, [failed, good]).answer == "z"
    assert module._chosen("best", [stopped, good]).answer == "z"
    assert module._chosen("best", [failed]).success is None


def test_every_method_runs_and_more_attempts_cost_more(model):
    found = {method: run(model, method) for method in METHODS}
    assert all(len(one.thoughts) == 4 for one in found.values())
    assert found["one"].tokens_per_item * 2 < found["best"].tokens_per_item
    # The same attempts, chosen differently, cost the same.
    tokens = {method: [thought.tokens for thought in found[method].thoughts] for method in METHODS}
    assert tokens["vote"] == tokens["likelihood"] == tokens["best"]
    assert found["beam"].tokens_per_item > found["one"].tokens_per_item
    interval = found["best"].interval
    assert interval is not None
    assert interval.n == 4
    assert found["best"].to_json()["tokens_per_item"] == found["best"].tokens_per_item


def test_thinking_repeats_itself_from_its_seed(model):
    for method in ("best", "beam", "restart"):
        assert run(model, method) == run(model, method)


def test_restart_stops_as_soon_as_v_is_sure_and_goes_on_until_something_is_finished(model):
    sure = run(model, "restart", sure=0.0, give_up=0.0)
    assert [thought.attempts for thought in sure.thoughts] == [1] * 4
    assert [thought.tokens for thought in sure.thoughts] == [thought.tokens for thought in run(model, "one").thoughts]
    never = run(model, "restart", sure=2.0, give_up=0.0)
    assert [thought.attempts for thought in never.thoughts] == [3] * 4
    hopeless = run(model, "restart", sure=2.0, give_up=100.0)
    assert [thought.attempts for thought in hopeless.thoughts] == [3] * 4
    assert all(thought.success is not None for thought in hopeless.thoughts)  # the last one was played to its end
    assert hopeless.tokens_per_item < never.tokens_per_item


def test_the_beam_takes_the_candidate_that_v_rates_highest(model, monkeypatch):
    seen = []
    real = module._rating

    def watched(action):
        seen.append((action, real(action)))
        return real(action)

    monkeypatch.setattr(module, "_rating", watched)
    found = run(model, "beam")
    assert len(seen) == 4 * 2 * 3  # items, turns, candidates
    assert sum(len(action.tokens) for action, _ in seen) == sum(thought.tokens for thought in found.thoughts)
    assert module._rating(Action("", (1,), (0.0,), (0.9,), True)) < module._rating(Action("", (1,), (0.0,), (-9.0,)))


def test_a_v_that_means_nothing_is_refused(model):
    fresh = ActorCritic.load(ModelConfig("nano-xs", critic_layers=-1))
    with pytest.raises(ModelError, match=r"no trained critic.*one, vote, likelihood"):
        run(fresh, "best")
    assert run(fresh, "vote").thoughts
    fresh.critic_restored = True
    fresh.config = dataclasses.replace(fresh.config, privileged_critic=True)
    with pytest.raises(ModelError, match="privileged"):
        run(fresh, "beam")
    fresh.config = dataclasses.replace(fresh.config, privileged_critic=False, value_head="regression")
    with pytest.raises(ModelError, match=r"no probability of success .*'regression'.* best, beam\. Train"):
        run(fresh, "restart")
    with pytest.raises(ConfigError, match="Unknown method"):
        run(model, "bets")
    with pytest.raises(ConfigError, match="samples by: 'auto'"):
        think(model, ENV, dataclasses.replace(SAMPLING, engine="vllm"), method="one", items=1, env_class=Masking)
    with pytest.raises(ConfigError, match="n = 0"):
        run(model, "best", n=0)
