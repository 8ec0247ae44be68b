"""Several sources of items: the same ones at every call, drawn in the stated order, resumed to the same result."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.checks import check
from foretaste.config import (
    AlgorithmConfig,
    CurriculumConfig,
    EnvConfig,
    HeldOutConfig,
    ImitateConfig,
    ModelConfig,
    SamplingConfig,
    TrainConfig,
)
from foretaste.envs.base import choose_register
from foretaste.envs.seeds import seed_for
from foretaste.errors import ConfigError
from foretaste.ledger import Ledger
from foretaste.progress import Silent
from foretaste.records import Action, Episode, EpisodeEnd, Turn
from foretaste.rl.curriculum import Curriculum, metrics_of
from foretaste.rl.pools import MixedPool, pool_of
from foretaste.rl.sources import held_out_sources, title, training_sources
from foretaste.rl.tasks import Task, allot, held_out_tasks, keyed_seed, training_tasks
from foretaste.rl.train import train

THREE = ("guess@1", "guess@2/terse", "lock?horizon=3&critical=1&choices=2&table=5")


def mixed(*sources, **changes):
    return TrainConfig(
        env=EnvConfig("guess", registers=("plain", "casual")), curriculum=CurriculumConfig(sources, **changes)
    )


# Which items -----------------------------------------------------------------------------------------


def test_without_sources_the_tasks_are_those_of_the_one_environment():
    config = TrainConfig(env=EnvConfig("maze", level=2, registers=("plain", "casual")), seed=7, episodes_per_step=6)
    config = dataclasses.replace(config, algorithm=AlgorithmConfig(group_size=2))
    seeds = [seed_for("train", 3_000_000 + index // 2, secret="run seed 7") for index in range(6)]
    draws = [keyed_seed(7, "train", 3, index) for index in range(6)]
    wanted = [Task("maze", s, 2, choose_register(("plain", "casual"), s), d) for s, d in zip(seeds, draws, strict=True)]
    assert training_tasks(config, 3) == wanted
    assert training_tasks(config, 3, 4, first=2) == wanted[2:]
    held = [(seed_for("practice", index), keyed_seed(7, "held out", "after", index)) for index in range(5)]
    assert [(task.seed, task.sample_seed) for task in held_out_tasks(config, "after", 5)] == held
    assert title(config) == "maze"


def test_a_source_takes_from_env_what_it_does_not_say():
    found = training_sources(mixed("reasoning/gcd", "desk@3", "lock?horizon=20&table=4@2/plain", "dataset:a@b.jsonl@4"))
    assert [(one.env, one.level, one.registers) for one in found] == [
        ("reasoning/gcd", 1, ("plain", "casual")),
        ("desk", 3, ("plain", "casual")),
        ("lock?horizon=20&table=4", 2, ("plain",)),
        ("dataset:a@b.jsonl", 4, ("plain", "casual")),
    ]
    assert title(mixed("desk@3", "maze")) == "desk@3 and 1 more"


@pytest.mark.parametrize("name", ["", "maze@two", "maze@", "@1", "maze@1/", "maze@1/plain/casual"])
def test_a_source_that_cannot_be_read_says_what_can(name):
    with pytest.raises(ConfigError, match=r"cannot be read; accepted: ENV, ENV@LEVEL or ENV@LEVEL/REGISTER"):
        training_sources(mixed("guess", name))


@pytest.mark.parametrize("pair", [("guess", "guess"), ("guess", "guess@1/casual")])
def test_sources_that_share_items_are_refused(pair):
    with pytest.raises(ConfigError, match="share items"):
        training_sources(mixed(*pair))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gues", "Unknown env 'gues'. Did you mean 'guess'?"),
        ("guess@9", "guess has no level 9; it has 1 to 5"),
        ("guess@1/casul", "Unknown register of guess: 'casul'. Did you mean 'casual'?"),
        ("guess?table=3", "Unknown argument of env 'guess'"),
    ],
)
@pytest.mark.parametrize("held_out", [False, True])
def test_what_there_is_not_is_said_before_anything_is_played(name, said, held_out):
    config = mixed("guess@2", held_out=(name,)) if held_out else mixed("guess@2", name)
    with pytest.raises(ConfigError) as caught:
        MixedPool(config)
    assert said in str(caught.value)


def test_an_environment_class_and_sources_are_refused_together():
    from foretaste.envs.guess import Guess

    with pytest.raises(ConfigError, match="my_module:MyEnv@1"):
        pool_of(mixed("guess"), Guess)


@pytest.mark.parametrize(("field", "value"), [("explore", 1.5), ("window", 2), ("mastered", -0.1)])
def test_numbers_out_of_range_are_refused(field, value):
    with pytest.raises(ConfigError, match=rf"curriculum\.{field}"):
        check(mixed("guess", **{field: value}))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=7), st.integers(1, 64), st.integers(0, 10_000))
def test_every_share_gets_its_items_rounded_up_or_down(weights, items, key):
    shares = np.array(weights) / sum(weights)
    drawn = allot(shares.tolist(), items, (key,))
    assert drawn == allot(shares.tolist(), items, (key,))
    counts = np.bincount(drawn, minlength=len(shares))
    assert counts.sum() == items
    assert (np.abs(counts - items * shares) < 1 + 1e-9).all()


def test_every_item_meets_every_source_with_its_share():
    shares = [0.05, 0.15, 0.8]
    drawn = np.array([allot(shares, 4, (key,)) for key in range(4000)])
    for index, share in enumerate(shares):
        np.testing.assert_allclose((drawn == index).mean(axis=0), share, atol=0.03)


def test_attempts_of_a_group_share_their_item_and_steps_share_none():
    config = dataclasses.replace(mixed(*THREE), algorithm=AlgorithmConfig(group_size=4), episodes_per_step=24)
    tasks = training_tasks(config, 1, shares=[0.5, 0.25, 0.25])
    for start in range(0, 24, 4):
        assert len({(t.env, t.level, t.register, t.seed) for t in tasks[start : start + 4]}) == 1
        assert len({t.sample_seed for t in tasks[start : start + 4]}) == 4
    assert [(t.env, t.level) for t in tasks].count(("guess", 1)) == 12
    assert not {t.seed for t in tasks} & {t.seed for t in training_tasks(config, 2)}


def test_held_out_items_go_round_the_sources_that_are_named_for_it():
    config = mixed(*THREE, held_out=("guess@3/plain", "guess@4/plain"))
    assert [task.level for task in held_out_tasks(config, "before", 5)] == [3, 4, 3, 4, 3]
    assert len({task.seed for task in held_out_tasks(config, "before", 6)}) == 6
    assert [source.name for source in held_out_sources(mixed(*THREE))] == list(THREE)


# How often --------------------------------------------------------------------------------------------


def episode(success, *, level=1, end=EpisodeEnd.TERMINATED, gates=()):
    turns = tuple(Turn("", Action("", (1,), (0.0,)), gate_probability=p) for p in (gates or (0.0,)))
    return Episode("guess", 1, "train", level, "plain", turns, end, success)


def curriculum(order="learning_progress", count=3, **changes):
    config = mixed(*(f"guess@{level}/plain" for level in range(1, count + 1)), order=order, **changes)
    return Curriculum(config.curriculum, training_sources(config))


def feed(made, level, outcomes):
    return made.update([episode(outcome, level=level) for outcome in outcomes])


def test_progress_is_the_change_of_success_and_what_is_not_known_of_it():
    made = curriculum(window=4, explore=0.0)
    feed(made, 1, [0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0])  # 1/4, then 3/4
    feed(made, 2, [0.0] * 8)
    feed(made, 3, [1.0] * 8)
    rising, hopeless, finished = made.standings()
    assert rising is not None
    assert rising.success == 0.75
    assert rising.progress == pytest.approx(0.5 + (0.5 * 0.5 * (1 / 4 + 1 / 4)) ** 0.5)
    assert (hopeless, finished) == ((0.0, 0.0), (1.0, 0.0))
    assert made.shares() == [1.0, 0.0, 0.0]


def test_forgetting_counts_like_learning_and_only_the_newest_episodes_count():
    made = curriculum(window=4, count=2, explore=0.2)
    feed(made, 1, [0.0] * 50 + [1.0] * 4 + [0.0] * 4)
    feed(made, 2, [1.0] * 50 + [0.0] * 4 + [1.0] * 4)
    assert made.shares() == pytest.approx([0.5, 0.5])
    feed(made, 1, [0.0] * 8)
    assert made.shares() == pytest.approx([0.1, 0.9])  # exploration still looks at what is left alone


def test_a_source_that_nothing_is_known_of_is_tried_like_the_best():
    made = curriculum(window=4, explore=0.0)
    assert made.shares() == pytest.approx([1 / 3] * 3)
    feed(made, 1, [0.0] * 4 + [1.0] * 4)
    feed(made, 2, [0.0] * 8)
    feed(made, 3, [1.0] * 3)
    assert made.shares() == pytest.approx([0.5, 0.0, 0.5])


def test_a_failed_episode_is_no_evidence_and_a_survivor_stands_for_the_stopped():
    made = curriculum(window=4, count=2)
    drawn = made.update(
        [episode(None, end=EpisodeEnd.ERROR)] * 6
        + [episode(1.0, end=EpisodeEnd.ERROR)] * 6
        + [episode(None, end=EpisodeEnd.STOPPED, gates=(0.5,))] * 6
    )
    assert made.standings()[0] is None
    assert drawn["episodes"] == [18, 0]
    assert drawn["success"] == [None, None]
    made.update([episode(0.0)] * 2 + [episode(1.0, gates=(0.5, 0.5))] * 2)
    known = made.standings()[0]
    assert known is not None
    assert known.success == pytest.approx(8 / 10)


def test_easiest_first_takes_the_most_successful_that_is_not_mastered():
    made = curriculum("easiest_first", window=4, mastered=0.9, explore=0.3)
    feed(made, 1, [1.0] * 4)
    feed(made, 2, [0.0] * 4)
    assert made.shares() == pytest.approx([1 / 3] * 3)  # one is not known yet
    feed(made, 3, [0.0, 1.0, 0.0, 1.0])
    assert made.shares() == pytest.approx([0.1, 0.1, 0.8])
    feed(made, 3, [1.0] * 4)
    assert made.shares() == pytest.approx([0.1, 0.8, 0.1])
    feed(made, 2, [1.0] * 4)
    assert made.shares() == pytest.approx([1 / 3] * 3)


def test_the_listed_order_goes_on_when_a_source_is_mastered_and_back_when_it_is_forgotten():
    made = curriculum("listed", window=4, explore=0.0)
    assert made.shares() == [1.0, 0.0, 0.0]
    feed(made, 1, [1.0] * 4)
    assert made.shares() == [0.0, 1.0, 0.0]
    feed(made, 1, [0.0] * 4)
    assert made.shares() == [1.0, 0.0, 0.0]


def test_uniform_stays_uniform_whatever_comes():
    made = curriculum("uniform", window=4)
    feed(made, 1, [0.0] * 4 + [1.0] * 4)
    assert made.shares() == pytest.approx([1 / 3] * 3)


def test_the_figures_of_a_step_are_of_the_shares_it_was_drawn_with():
    made = curriculum(window=4, count=2, explore=0.0)
    assert metrics_of(made.update([])) == {"curriculum/sources": pytest.approx(2.0)}
    drawn = feed(made, 1, [0.0] * 4 + [1.0] * 4)
    assert metrics_of(drawn)["curriculum/sources"] == pytest.approx(2.0)
    drawn = feed(made, 2, [0.0] * 8)
    assert metrics_of(drawn)["curriculum/progress"] == pytest.approx((1.0 + 0.5**0.5 / 2**0.5 + 0.0) / 2, abs=0.2)
    assert metrics_of(feed(made, 2, []))["curriculum/sources"] == pytest.approx(1.0)


def test_a_coin_loses_to_a_source_that_is_learned():
    made = curriculum(count=4, window=32, explore=0.1)
    random = np.random.default_rng(0)
    for step in range(40):
        rising = step / 40
        for level, chance in ((1, 0.0), (2, 1.0), (3, 0.5), (4, rising)):
            feed(made, level, (random.random(8) < chance).astype(float).tolist())
        if step == 20:
            hopeless, finished, coin, learned = made.shares()
            assert hopeless == finished == pytest.approx(0.025)
            assert learned > coin


def test_state_goes_and_comes_back():
    made, other = curriculum(window=4), curriculum(window=4)
    feed(made, 1, [0.0, 1.0, 1.0, 1.0])
    other.load(made.state())
    assert other.shares() == made.shares()
    assert other.outcomes == made.outcomes


# Whole runs -------------------------------------------------------------------------------------------


def run_config(folder):
    return TrainConfig(
        env=EnvConfig(examples=0),
        curriculum=CurriculumConfig(THREE, order="learning_progress", window=4, held_out=("guess@1", "guess@3")),
        model=ModelConfig(name="nano-xs", critic_layers=1),
        sampling=SamplingConfig(max_new_tokens=3),
        algorithm=AlgorithmConfig(
            learning_rate=1e-3, group_size=2, value_pretraining_episodes=8, value_pretraining_passes=1
        ),
        imitate=ImitateConfig(episodes=64, passes=3, learning_rate=1e-2),
        held_out=HeldOutConfig(items=8),
        steps=4,
        episodes_per_step=16,
        save_every=2,
        runs_folder=str(folder),
    )


class Interrupting(Silent):
    """Breaks a run off after its third step."""

    def metrics(self, step, values):
        if step == 3:
            raise KeyboardInterrupt


def test_a_resumed_curriculum_ends_exactly_like_an_uninterrupted_one(tmp_path):
    whole = train(run_config(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train(run_config(tmp_path / "broken"), progress=Interrupting())
    resumed = train(resume="latest", runs_folder=str(tmp_path / "broken"))
    assert resumed.id == whole.id  # every weight, bit by bit
    with Ledger.open(tmp_path / "whole") as one, Ledger.open(tmp_path / "broken") as other:
        drawn = [record.payload for record in one.records(whole.run or "", "curriculum")]
        again = {record.step: record.payload for record in other.records(resumed.run or "", "curriculum")}
        assert [again[step] for step in (1, 2, 3, 4)] == drawn
        assert drawn[0]["share"] == pytest.approx([1 / 3] * 3)
        assert drawn[-1]["share"] != drawn[0]["share"]  # the state that was saved decided something
        assert sum(drawn[-1]["episodes"]) == 16
        assert one.run(whole.run or "").name == "guess@1 and 2 more"
        held = one.records(whole.run or "", "held_out")[-1].payload
    assert {name: row["n"] for name, row in held["by_source"].items()} == {"guess@1": 4, "guess@3": 4}
    solved = sum(row["success"] * row["n"] for row in held["by_source"].values())
    assert solved == pytest.approx(sum(held["success"]))
