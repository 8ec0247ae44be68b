"""A critic from an earlier run: believed at once, dropped when its promises fail, in time the run's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from foretaste.config import (
    AlgorithmConfig,
    EnvConfig,
    HeldOutConfig,
    ModelConfig,
    ReplayConfig,
    SamplingConfig,
    TrainConfig,
)
from foretaste.errors import ConfigError, ModelError
from foretaste.ledger import Ledger
from foretaste.models.loading import CRITIC_FILE
from foretaste.progress import Silent
from foretaste.records import Action, Checkpoint, Episode, EpisodeEnd, Turn
from foretaste.rl import taught
from foretaste.rl.adapt import LambdaAdapter
from foretaste.rl.batch import Batch
from foretaste.rl.learn import Learner
from foretaste.rl.replay import Replay
from foretaste.rl.taught import TaughtCritic
from foretaste.rl.train import train
from foretaste.rl.update import Updater

RANKS = [[60.0, 57.0, 0.004]]
"""An AUC of .95 over sixty pairs."""


def episode(value: float, success: float) -> Episode:
    turn = Turn("", Action("", (1,), (-0.1,), (value,)), (2,))
    return Episode("toy", 1, "train", 1, "plain", (turn,), EpisodeEnd.TERMINATED, success)


def told(critic: TaughtCritic, values: list[float], wins: int) -> dict[str, float]:
    episodes = [episode(value, float(place < wins)) for place, value in enumerate(values)]
    return critic.update(episodes, [[value] for value in values])


# Is it believed? ----------------------------------------------------------------------------------


def test_promises_that_do_not_come_cost_the_belief() -> None:
    critic = TaughtCritic(start_successes=4)
    assert told(critic, [0.5] * 10, wins=0) == {"value/promised_successes": 5.0, "value/came_successes": 0.0}
    assert critic.believed  # five promised of ten and none came: chance .001, at one turn of eight
    assert told(critic, [0.5] * 10, wins=0)["value/dropped"] == 1.0  # ten of twenty: .000001
    assert not critic.believed
    assert told(critic, [0.5] * 10, wins=0) == {}


def test_more_success_than_promised_is_no_fault_and_makes_it_the_runs_own() -> None:
    critic = TaughtCritic(start_successes=4)
    told(critic, [0.01] * 10, wins=3)
    assert critic.believed
    assert not critic.own
    told(critic, [0.01] * 10, wins=1)
    assert critic.own
    assert told(critic, [1.0] * 100, wins=0) == {}  # it has learned here: what it says now is not another run's promise
    assert critic.believed


def test_a_critic_that_is_right_is_seldom_dropped_at_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the chances of the episodes are: the tail of a sum of unequal coins is within that of equal ones."""
    monkeypatch.setattr(taught, "DOUBT", 0.05 * len(taught.LOOKS))  # episodes of one turn use one look of the eight
    rng = np.random.default_rng(0)
    dropped = []
    for _ in range(4000):
        chances = rng.beta(0.3, rng.choice([0.3, 1.0, 6.0]), size=24)
        critic = TaughtCritic(start_successes=10_000)
        won = rng.random(24) < chances
        critic.update([episode(v, float(w)) for v, w in zip(chances, won, strict=True)], [[v] for v in chances])
        dropped.append(not critic.believed)
    assert 0 < np.mean(dropped) <= 0.05


def test_its_state_comes_back() -> None:
    critic, again = TaughtCritic(4), TaughtCritic(4)
    told(critic, [0.2] * 10, wins=1)
    again.load(critic.state())
    assert again.state() == critic.state() == {"looks": [[0, 10, pytest.approx(2.0), 1]], "came": 1}
    assert (again.believed, again.own) == (critic.believed, critic.own) == (True, False)
    again.load({"promised": 9.0, "came": 2})  # of an earlier version, which held V to its word elsewhere
    assert (again.came, again.believed) == (2, True)


def climb(rng: np.random.Generator, *, dies: float, turns: int = 10, true: bool = True) -> tuple[Episode, list[float]]:
    """Play an episode that ends with its first mistake, and return it with a V that is right in every state.

    With `true` false V is that of a task where mistakes end it, but here they never show, and nothing succeeds.
    """
    lasted = next((turn + 1 for turn in range(turns) if rng.random() < dies), turns + 1) if true else turns + 1
    played = min(lasted, turns)
    values = [(1 - dies) ** (turns - turn) for turn in range(played)]
    made = tuple(Turn("", Action("", (1,), (-0.1,), (value,)), (2,)) for value in values)
    won = float(true and lasted > turns)
    return Episode("toy", 1, "train", 1, "plain", made, EpisodeEnd.TERMINATED, won), values


def dropped(rng: np.random.Generator, steps: int = 12, **how: Any) -> int | None:
    """Return the step in which a critic is dropped in a run of 32 episodes a step, or None."""
    critic = TaughtCritic(start_successes=10_000)
    for step in range(1, steps + 1):
        episodes, rows = zip(*(climb(rng, **how) for _ in range(32)), strict=True)
        critic.update(episodes, rows)
        if not critic.believed:
            return step
    return None


def test_a_perfect_critic_is_kept_where_failing_ends_an_episode_early() -> None:
    """V at a share of an episode's own length would promise too much there: what ended early is looked at early on."""
    rng = np.random.default_rng(0)
    assert [dropped(rng, dies=dies) for dies in (0.05, 0.1, 0.3) for _ in range(5)] == [None] * 15


def test_a_critic_that_sees_no_mistakes_where_they_never_show_is_dropped_at_once() -> None:
    rng = np.random.default_rng(0)
    assert {dropped(rng, dies=0.3, true=False) for _ in range(3)} == {1}


def test_an_earlier_runs_ranking_counts_as_steps_before_the_first() -> None:
    adapter = LambdaAdapter(0.7, steps=3, prior=RANKS)
    assert adapter.value == pytest.approx(0.7)
    assert adapter.rows == RANKS
    adapter.update([episode(0.1, 1.0), episode(0.9, 0.0)])
    assert adapter.value == pytest.approx(0.7)  # one success, ranked wrongly, is no news
    for _ in range(2):
        adapter.update([*[episode(0.1, 1.0)] * 5, *[episode(0.9, 0.0)] * 30])
    assert adapter.value == 1.0
    assert len(adapter.rows) == 3
    assert not any(row in RANKS for row in adapter.rows)


# What a step does with it -------------------------------------------------------------------------


@pytest.fixture
def scene(make_learner: Any) -> tuple[Updater, Batch]:
    model = ModelConfig("nano-xs", critic_layers=-1)
    updater, batch = make_learner(model, AlgorithmConfig(passes=1, microbatch_tokens=512), 8)
    lost = tuple(dataclasses.replace(one, success=0.0) for one in batch.episodes)
    updater.actor_critic.critic_taught = True
    updater.actor_critic.critic_ranking = RANKS
    small = np.where(batch.mask_BT, 0.01, 0.0)
    return updater, batch._replace(episodes=lost, rewards_BT=np.zeros_like(batch.rewards_BT), values_BT=small)


def weights(updater: Updater) -> list[torch.Tensor]:
    return [one.detach().clone() for one in updater.actor_critic.policy_parameters()]


def step(updater: Updater, batch: Batch, folder: Path, **algorithm: Any) -> tuple[Learner, dict[str, float], bool]:
    """Take a step of a run that waits for four successes; return the learner, metrics, and whether the policy moved."""
    settings = dataclasses.replace(updater.algorithm, **algorithm)
    config = TrainConfig(algorithm=settings, replay=ReplayConfig(actor_start_successes=4), episodes_per_step=8)
    before = weights(updater)
    learner = Learner(config, updater, Replay(folder), lambda step, advice: None)
    metrics = learner.learn(batch, 1, None)
    return learner, metrics, any((a != b).any() for a, b in zip(before, weights(updater), strict=True))


def test_the_actor_learns_by_it_before_its_first_success(scene: tuple[Updater, Batch], tmp_path: Path) -> None:
    learner, metrics, moved = step(*scene, tmp_path, adapt_lambda=True)
    assert moved
    assert "policy/waiting" not in metrics
    assert metrics["value/lambda"] == pytest.approx(0.7)
    assert learner._algorithm().critic_lambda == 0.0  # outcomes that are all alike teach nothing


def test_without_a_ranking_on_record_the_actor_waits(scene: tuple[Updater, Batch], tmp_path: Path) -> None:
    scene[0].actor_critic.critic_ranking = []
    _, metrics, moved = step(*scene, tmp_path)
    assert not moved
    assert metrics["policy/waiting"] == 1.0


def test_a_critic_that_broke_its_word_is_a_new_one(scene: tuple[Updater, Batch], tmp_path: Path) -> None:
    updater, batch = scene
    batch = batch._replace(values_BT=np.where(batch.mask_BT, 0.99, 0.0))
    learner, metrics, moved = step(updater, batch, tmp_path, adapt_lambda=True)
    assert metrics["value/dropped"] == metrics["policy/waiting"] == 1.0
    assert not moved
    assert learner.adapter.ranking is None
    assert learner._algorithm().critic_lambda == updater.algorithm.critic_lambda == 1.0
    resumed = Learner(learner.config, updater, Replay(tmp_path), lambda step, advice: None)
    resumed.load(learner.state())
    assert resumed.taught is None
    assert resumed.adapter.ranking is None


def test_auto_learns_by_it_from_the_first_step_or_drops_it(scene: tuple[Updater, Batch], tmp_path: Path) -> None:
    updater, batch = scene
    replay = Replay(tmp_path)
    replay.add(batch.episodes, 1)
    config = TrainConfig(algorithm=dataclasses.replace(updater.algorithm, name="auto"), episodes_per_step=8)
    chosen: list[str] = []
    for value in (0.01, 0.99):
        learner = Learner(config, updater, replay, lambda step, advice: chosen.append(advice.method))
        learner.learn(batch._replace(values_BT=np.where(batch.mask_BT, value, 0.0)), 1, None)
    assert chosen == ["value", "success replay"]


def test_successes_are_not_replayed_before_there_are_enough(
    scene: tuple[Updater, Batch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updater, batch = scene
    won = dataclasses.replace(batch.episodes[0], success=1.0)
    replay = Replay(tmp_path)
    replay.add([won, *batch.episodes[1:]], 1)
    imitated: list[int] = []
    monkeypatch.setattr(updater, "imitate", lambda sequences, **_: imitated.append(len(sequences)) or 0.5)
    for start in (4, 1):
        settings = ReplayConfig(success_episodes=2, actor_start_successes=start)
        config = TrainConfig(algorithm=updater.algorithm, replay=settings, episodes_per_step=8)
        learner = Learner(config, updater, replay, lambda step, advice: None)
        learner.learn(batch._replace(episodes=(won, *batch.episodes[1:])), 1, None)
        assert len(imitated) == (start == 1)


# A whole run --------------------------------------------------------------------------------------

PLAIN = TrainConfig(
    env=EnvConfig("guess", examples=0),
    model=ModelConfig("nano-xs", critic_layers=-1),
    sampling=SamplingConfig(max_new_tokens=3),
    algorithm=AlgorithmConfig(learning_rate=1e-3, value_pretraining_episodes=8),
    held_out=HeldOutConfig(items=4),
    steps=2,
    episodes_per_step=8,
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    """Two runs that teach a critic, of which the second replays what it has played."""
    frozen = dataclasses.replace(PLAIN, algorithm=dataclasses.replace(PLAIN.algorithm, freeze_policy=True))
    replaying = dataclasses.replace(frozen, replay=ReplayConfig(critic_episodes=16, policy_passes=1))
    folder = tmp_path_factory.mktemp("teacher")
    return (
        train(dataclasses.replace(frozen, runs_folder=str(folder / "0"))),
        train(dataclasses.replace(replaying, runs_folder=str(folder / "1"))),
    )


def test_a_frozen_policy_stays_as_it_was_while_its_critic_learns(
    teacher: tuple[Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    still = dataclasses.replace(
        PLAIN, algorithm=dataclasses.replace(PLAIN.algorithm, learning_rate=0.0), runs_folder=str(tmp_path)
    )
    untrained = load_file(Path(train(still).path) / "model.safetensors")
    for one in teacher:
        policy = load_file(Path(one.path) / "model.safetensors")
        assert all(torch.equal(weight, untrained[name]) for name, weight in policy.items())
    critics = [load_file(Path(one.path) / CRITIC_FILE) for one in teacher]
    assert any(not torch.equal(weight, critics[1][name]) for name, weight in critics[0].items())


def test_a_run_takes_up_the_critic_of_another_and_names_it_as_a_parent(
    teacher: tuple[Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    model = dataclasses.replace(PLAIN.model, critic_from=teacher[0].path)
    seen: list[str] = []

    class Phases(Silent):
        def phase(self, name: str, total: int | None) -> None:
            seen.append(name)

    config = dataclasses.replace(
        PLAIN, model=model, algorithm=AlgorithmConfig(critic_learning_rate=0.0, head_learning_rate=0.0), seed=5
    )
    done = train(dataclasses.replace(config, runs_folder=str(tmp_path)), progress=Phases())
    assert "value pretraining" not in seen
    assert done.parents == (teacher[0].id,)
    ours, theirs = load_file(Path(done.path) / CRITIC_FILE), load_file(Path(teacher[0].path) / CRITIC_FILE)
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    with Ledger.open(tmp_path) as ledger:
        assert "value/promised_successes" in ledger.records(done.run or "", "metrics")[0].payload
    goes_on = dataclasses.replace(PLAIN, model=dataclasses.replace(PLAIN.model, name=done.path), steps=1)
    assert train(dataclasses.replace(goes_on, runs_folder=str(tmp_path))).parents == (done.id,)


def test_what_is_no_critic_for_this_run_is_refused(teacher: tuple[Checkpoint, Checkpoint], tmp_path: Path) -> None:
    def run(**model: Any) -> None:
        changed = dataclasses.replace(PLAIN.model, **model)
        train(dataclasses.replace(PLAIN, model=changed, runs_folder=str(tmp_path)))

    with pytest.raises(ModelError, match=r"critic_from = '/nowhere' is no foretaste checkpoint.*Accepted: the folder"):
        run(critic_from="/nowhere")
    with pytest.raises(ModelError, match=r"another shape: model\.critic_layers = -1, not 1"):
        run(critic_from=teacher[0].path, critic_layers=1)
    with pytest.raises(ModelError, match="cannot be loaded"):
        run(critic_from=teacher[0].path, name="nano")


@pytest.mark.parametrize("name", ["grpo", "reinforce"])
def test_an_algorithm_without_a_critic_takes_none_and_freezes_nothing(name: Any) -> None:
    algorithm = AlgorithmConfig(name=name, group_size=2)
    with pytest.raises(ConfigError, match=r"model\.critic_from = 'x'.*no critic"):
        train(dataclasses.replace(PLAIN, algorithm=algorithm, model=dataclasses.replace(PLAIN.model, critic_from="x")))
    with pytest.raises(ConfigError, match=r"freeze_policy = True.*nothing would learn"):
        train(dataclasses.replace(PLAIN, algorithm=dataclasses.replace(algorithm, freeze_policy=True)))


def test_auto_cannot_choose_how_a_frozen_policy_learns() -> None:
    algorithm = AlgorithmConfig(name="auto", freeze_policy=True)
    with pytest.raises(ConfigError, match=r"freeze_policy = True.*auto chooses"):
        train(dataclasses.replace(PLAIN, algorithm=algorithm))
