"""The learner's own process with a real actor-critic: answers with values, new weights without a gap, a kill."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from foretaste.config import ModelConfig
from foretaste.deploy.database import reading
from foretaste.deploy.learner_client import ProcessLearner
from foretaste.deploy.offline import Offline
from foretaste.deploy.settings import LearnerConfig
from foretaste.deploy.tables import answers
from foretaste.models import checkpoint
from foretaste.models.actor_critic import ActorCritic


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Two checkpoints of different weights."""
    folder = tmp_path_factory.mktemp("weights")
    made = [ActorCritic.load(ModelConfig(name="nano", critic_layers=1), seed=seed) for seed in (1, 2)]
    return [checkpoint.save(model, folder / str(place)) for place, model in enumerate(made)]


@pytest.fixture(scope="module")
def running(incumbent: Any, weights: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from deploy_helpers import config_for, serve, wait_for

    folder = tmp_path_factory.mktemp("learner")
    learner = LearnerConfig(checkpoint=weights[0].path, max_new_tokens=4, max_context=200, device="cpu")
    config = replace(config_for(incumbent.url), learner=learner)
    (folder / "deploy.toml").write_text("", encoding="utf-8")
    with serve(config, folder) as found:
        wait_for(lambda: found.deployment.state.checkpoint, 180)
        yield found


def learners(running: Any) -> list[Any]:
    running.flush()
    with reading(running.deployment.engine) as connection:
        return list(connection.execute(sa.select(answers).where(answers.c.role == "learner")))


def test_silent_answers_carry_what_training_needs(running: Any, kit: Any, weights: list[Any]) -> None:
    assert running.deployment.state.checkpoint == weights[0].id
    assert running.ask(5).status_code == 200
    row = kit.wait_for(lambda: learners(running))[0]
    trace = json.loads(row.trace)
    assert row.checkpoint == weights[0].id
    assert len(trace["tokens"]) == len(trace["logprobs"]) == len(trace["values"]) == row.completion_tokens <= 4
    assert (row.value, row.answer_value) == pytest.approx((trace["values"][0], trace["values"][-1]), abs=1e-6)
    assert len(trace["prompt"]) == row.prompt_tokens > 2
    assert all(logprob <= 0 for logprob in trace["logprobs"])


def test_a_prompt_without_room_is_refused_alone(running: Any, kit: Any) -> None:
    before = len(learners(running))
    with running.client() as client:
        long = {"model": "m", "messages": [{"role": "user", "content": "1" * 3000}]}
        assert client.post("/v1/chat/completions", json=long).status_code == 200
    assert running.ask(5).status_code == 200
    kit.wait_for(lambda: len(learners(running)) == before + 1)
    with running.client() as client:
        assert 'foretaste_shadow_shed_total{reason="too_long"} 1.0' in client.get("/metrics").text


def test_new_weights_take_over_without_a_gap(running: Any, kit: Any, weights: list[Any]) -> None:
    deployment = running.deployment
    live = {"stage": "canary", "share": 1.0, "tau": -1.0, "looked": 10**9, "held": True}
    deployment.change("test", "person:test", live, "for a test")
    name = f"foretaste-{weights[0].id[:12]}"
    kit.wait_for(lambda: running.ask(1).json()["model"] in (name, "big"))
    seen: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        with running.client() as client:
            while not stop.is_set():
                answer = client.post("/v1/chat/completions", json=kit.question(1))
                seen.append(answer.json()["model"] if answer.status_code == 200 else str(answer.status_code))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        deployment.change("test", "person:test", {"stage": "shadow"}, "new weights are tried in shadow")
        with Offline.open(deployment.folder / "deploy.toml") as offline:
            assert offline.try_checkpoint(Path(weights[1].path)) == weights[1].id
        kit.wait_for(lambda: deployment.state.checkpoint == weights[1].id, 30)
        assert deployment.learner.checkpoint == weights[1].id
        assert deployment.state.tau is None  # a threshold belongs to one checkpoint
        before = len(seen)
        kit.wait_for(lambda: len(seen) > before + 3)
    finally:
        stop.set()
        asking.join()
    assert not [one for one in seen if one.isdigit()]
    kit.wait_for(lambda: learners(running)[-1].checkpoint == weights[1].id)


def test_beside_a_canary_new_weights_are_tried_in_a_second_process(running: Any, kit: Any, weights: list[Any]) -> None:
    deployment = running.deployment
    canary = {"stage": "canary", "share": 0.2, "tau": 2.0, "looked": 10**9, "held": True}
    deployment.change("test", "person:test", canary, "for a test")
    serving = deployment.state.checkpoint
    with Offline.open(deployment.folder / "deploy.toml") as offline:
        other = weights[0] if serving == weights[1].id else weights[1]
        offline.try_checkpoint(Path(other.path))
    kit.wait_for(lambda: deployment.candidate and deployment.candidate.checkpoint == other.id, 180)
    assert (deployment.learner.checkpoint, deployment.state.candidate) == (serving, other.id)

    def both_answer() -> bool:
        running.ask(1)
        return {row.checkpoint for row in learners(running)[-8:]} >= {other.id}

    kit.wait_for(both_answer, 20)
    assert deployment.state.checkpoint == serving


def test_a_killed_learner_is_started_again_and_nobody_notices(running: Any, kit: Any) -> None:
    learner: ProcessLearner = running.deployment.learner
    checkpoint_before = learner.checkpoint
    first = learner.process_id
    assert first is not None
    os.kill(first, signal.SIGKILL)
    kit.wait_for(lambda: learner.checkpoint is None)
    assert running.ask(1).status_code == 200
    kit.wait_for(lambda: learner.checkpoint == checkpoint_before, 180)
    assert learner.process_id != first
    assert learner.restarts == 1
