"""Learning from single answers: scores and corrections move a real (tiny) policy; stale samples and alarms do not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foretaste.config import AlgorithmConfig, ModelConfig
from foretaste.deploy.alarms import AlarmConfig
from foretaste.deploy.online import Experience, OnlineConfig, OnlineTrainer, fresh_rows, to_episode
from foretaste.errors import ConfigError
from foretaste.models import checkpoint as checkpoints
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.records import Action, Message
from foretaste.rl.batch import make_batch

ALGORITHM = AlgorithmConfig(learning_rate=2e-3, critic_learning_rate=2e-3, head_learning_rate=3e-3, passes=1)
CONFIG = OnlineConfig(algorithm=ALGORITHM, corrections=0, old_tasks=0, max_log_ratio=5.0)


def trainer(folder: Path, config: OnlineConfig = CONFIG, **options) -> OnlineTrainer:
    return OnlineTrainer(ActorCritic.load(ModelConfig("nano-xs", critic_layers=-1)), config, folder, **options)


def logprob(learner: OnlineTrainer, answer: str, question: str = "which way?") -> float:
    """Log-probability of an answer under the weights of now."""
    with torch.no_grad():
        evaluation = learner.model.evaluate([sequence(learner, answer, question)], values=False)
    return float(evaluation.logprobs_N.sum())


def sequence(learner: OnlineTrainer, answer: str, question: str = "which way?") -> TokenSequence:
    prompt, tokens = learner.model.template.start([Message("user", question)]), learner.model.template.action(answer)
    return TokenSequence([*prompt, *tokens], [False] * len(prompt) + [True] * len(tokens))


def experience(learner: OnlineTrainer, answer: str, score: float | None, *, shift: float = 0.0, **more) -> Experience:
    """An answer as if the policy of now had given it (`shift`: as if at a log-probability lower by this a token)."""
    prompt = learner.model.template.start([Message("user", "which way?")])
    tokens = learner.model.template.action(answer)
    with torch.no_grad():
        logprobs = learner.model.evaluate([sequence(learner, answer)], values=False).logprobs_N.tolist()
    action = Action(answer, tuple(tokens), tuple(one - shift for one in logprobs), (0.5,) * len(tokens))
    return Experience(f"{answer} {score}", "c", tuple(prompt), action, score, **more)


def mixed(learner: OnlineTrainer) -> list[Experience]:
    return [experience(learner, word, float(word == "left")) for word in ("left", "right") for _ in range(4)]


def test_scores_alone_move_the_policy_towards_what_was_right(tmp_path) -> None:
    learner = trainer(tmp_path)
    before = logprob(learner, "left") - logprob(learner, "right")
    for _ in range(6):
        report = learner.step(mixed(learner))
        assert report.masked == 0
    assert logprob(learner, "left") - logprob(learner, "right") > before + 1
    assert {"policy/entropy", "value/loss", "online/accepted_kl", "online/masked_share"} <= report.metrics.keys()
    assert report.metrics["online/accepted_kl"] > 0


def test_the_critic_learns_what_answers_are_worth(tmp_path) -> None:
    learner = trainer(tmp_path)
    for _ in range(8):
        learner.step(mixed(learner))
    batch = make_batch([to_episode(experience(learner, word, 0.0)) for word in ("left", "right")])
    left, right = learner.updater.values(batch)[:, 1]
    assert left > right + 0.1


def test_a_critic_that_has_learned_goes_on_from_what_it_knows_after_a_restart(tmp_path) -> None:
    still = replace(CONFIG, algorithm=replace(ALGORITHM, critic_learning_rate=0.0, head_learning_rate=0.0))
    learner = trainer(tmp_path)
    for _ in range(2):
        learner.step(mixed(learner))
    again = OnlineTrainer(checkpoints.load(learner.publish().path), still, tmp_path / "again")
    before = [weight.detach().clone() for weight in again.model.critic_parameters()]
    right = [experience(again, "left", 1.0)]
    again.step(right)
    assert all(torch.equal(a, b) for a, b in zip(before, again.model.critic_parameters(), strict=True))


def test_corrections_and_old_tasks_are_imitated_without_any_score(tmp_path) -> None:
    learner = trainer(tmp_path, replace(CONFIG, corrections=8, old_tasks=8))
    learner.old_tasks = [sequence(learner, "seven", "three and four?")]
    before = logprob(learner, "up"), logprob(learner, "seven", "three and four?")
    told = tuple(learner.model.template.action("up"))
    for _ in range(5):
        report = learner.step([experience(learner, "down", None, correction=told)])
    assert report.metrics.keys() == {"policy/imitation_loss"}
    assert logprob(learner, "up") > before[0] + 2
    assert logprob(learner, "seven", "three and four?") > before[1] + 2


def test_stale_samples_are_masked_from_the_actor(tmp_path) -> None:
    learner = trainer(tmp_path)
    weights = [p.detach().clone() for p in learner.model.policy_parameters()]
    stale = [experience(learner, word, score, shift=6.0) for word, score in (("left", 1.0), ("right", 0.0))]
    report = learner.step(stale)
    assert report.masked == 2
    assert all(torch.equal(a, b) for a, b in zip(weights, learner.model.policy_parameters(), strict=True))
    report = learner.step([*stale, *mixed(learner)])
    assert report.masked == 2
    assert not all(torch.equal(a, b) for a, b in zip(weights, learner.model.policy_parameters(), strict=True))
    batch = make_batch([to_episode(one) for one in stale])
    assert fresh_rows(batch, batch.logprobs_BT + 4.9, 5.0).all()
    assert not fresh_rows(batch, batch.logprobs_BT - 5.1, 5.0).any()


def test_learning_stays_near_the_accepted_version(tmp_path) -> None:
    moved = []
    for weight in (0.0, 3.0):
        learner = trainer(tmp_path / str(weight), replace(CONFIG, algorithm=replace(ALGORITHM, kl_coefficient=weight)))
        before = logprob(learner, "left")
        for _ in range(4):
            learner.step(mixed(learner))
        moved.append(abs(logprob(learner, "left") - before))
    assert moved[1] < 0.7 * moved[0]


def test_an_alarm_stops_learning_and_brings_the_accepted_weights_back(tmp_path) -> None:
    config = replace(CONFIG, alarms=AlarmConfig(max_kl=1e-4, window=2, soft_responses=0))
    learner = trainer(tmp_path, config)
    learner.step(mixed(learner))
    report = learner.step(mixed(learner))
    assert report.stopped
    assert [alarm.name for alarm in report.alarms] == ["kl"]
    accepted = checkpoints.load(learner.accepted.path)
    for now, then in zip(learner.model.parameters(), accepted.parameters(), strict=True):
        assert torch.equal(now, then)
    still = learner.step(mixed(learner))
    assert still.stopped
    assert still.metrics == {}
    assert len(learner.episodes) == 24  # what comes in meanwhile is remembered
    learner.resume()
    assert not learner.step(mixed(learner)).stopped
    learner.forget()
    assert (learner.episodes, learner.corrections, learner.history) == ([], [], [])


def test_checkpoints_are_named_by_their_content_and_know_their_parent(tmp_path) -> None:
    learner = trainer(tmp_path)
    first = learner.accepted
    assert learner.publish().path == first.path  # nothing was learned since
    learner.step(mixed(learner))
    second = learner.publish()
    assert second.id != first.id
    assert Path(second.path).name == second.id[:16]
    assert checkpoints.content_id(second.path) == second.id
    assert second.parents == (first.id,)
    learner.accept(second)
    assert learner.publish(parents=()).id == second.id
    batch = make_batch([to_episode(one) for one in mixed(learner)])
    reference = learner.reference.logprobs(learner.updater, batch)
    assert reference == pytest.approx(learner.updater.logprobs(batch), abs=1e-5)


def test_nothing_is_stayed_near_before_anything_is_trusted(tmp_path) -> None:
    learner = trainer(tmp_path, trusted=False)
    assert "online/accepted_kl" not in learner.step(mixed(learner)).metrics
    learner.accept(learner.publish())
    assert "online/accepted_kl" in learner.step(mixed(learner)).metrics


def test_experiences_that_teach_nothing_are_refused_or_ignored(tmp_path) -> None:
    action = Action("x", (5,), (-0.5,))
    with pytest.raises(ConfigError, match="accepted: 0 to 1"):
        Experience("r", "c", (1, 2), action, 1.5)
    with pytest.raises(ConfigError, match="1 tokens and 0 log-probabilities"):
        Experience("r", "c", (1, 2), Action("x", (5,)), 1.0)
    with pytest.raises(ConfigError, match="not judged"):
        to_episode(Experience("r", "c", (1, 2), action))
    learner = trainer(tmp_path)
    assert learner.step([Experience("r", "c", (1, 2), action)]).metrics == {}
    episode = to_episode(Experience("r", "c", (1, 2), action, 0.5))
    assert (episode.total_reward, episode.success, episode.checkpoint) == (0.5, 0.5, "c")
