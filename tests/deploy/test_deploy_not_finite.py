"""Numbers that are not finite: V is never served, weights are refused by name, and every JSON stays valid JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from foretaste.config import ModelConfig
from foretaste.deploy import evidence, learner_process
from foretaste.deploy.database import reading
from foretaste.deploy.harm import harm_rule
from foretaste.deploy.judging import guarded
from foretaste.deploy.learner import ScriptedLearner
from foretaste.deploy.offline import Offline
from foretaste.deploy.settings import HarmConfig, LearnerConfig
from foretaste.deploy.tables import answers, checkpoints
from foretaste.errors import ModelError
from foretaste.models import checkpoint
from foretaste.models.actor_critic import ActorCritic
from foretaste.strict_json import to_json


def strict(text: str | bytes) -> Any:
    """Read JSON as a browser does."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_answer_whose_value_is_not_finite_is_never_served_and_counted(
    kit: Any, incumbent: Any, tmp_path: Path, value: float
) -> None:
    learner = ScriptedLearner(lambda messages: (str(int(messages[-1]["content"]) + 1), value))
    with kit.serve(kit.config_for(incumbent.url), tmp_path, learner) as running:
        live = {"stage": "live", "share": 1.0, "tau": 0.0, "checkpoint": "scripted", "accepted": "scripted"}
        running.deployment.change("test", "person:test", live, "test")
        assert {running.ask(number).json()["model"] for number in range(5)} == {"big"}
        with running.client("admin") as client:
            running.flush()
            data = strict(client.get("/admin/data").content)
            metrics = client.get("/metrics").text
        assert data["values_not_finite"] == 5
        assert data["reasons"] == {"value_not_finite": 5}
        assert 'foretaste_kept_back_total{reason="value_not_finite"} 5.0' in metrics
        assert running.deployment.learner.fault == ""
        with reading(running.deployment.engine) as connection:
            assert set(connection.scalars(sa.select(answers.c.value).where(answers.c.role == "learner"))) == {None}
            found = evidence.judged_answers(
                connection, "scripted", fresh_from=0, newest=99, value="request", correct_from=0.5
            )
        assert found == []  # it says nothing about any threshold, and breaks no calibration


def test_a_scripted_learner_without_a_number_is_no_500(kit: Any, incumbent: Any, tmp_path: Path) -> None:
    learner: Any = ScriptedLearner(lambda messages: ("2", None))  # pyright: ignore[reportArgumentType]
    with kit.serve(kit.config_for(incumbent.url), tmp_path, learner) as running:
        live = {"stage": "live", "share": 1.0, "tau": 0.0, "checkpoint": "scripted", "accepted": "scripted"}
        running.deployment.change("test", "person:test", live, "test")
        assert running.ask(1).json()["model"] == "big"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = ActorCritic.load(ModelConfig(name="nano-xs", critic_layers=-1), seed=1)
    return Path(checkpoint.save(model, tmp_path_factory.mktemp("saved") / "nano").path)


@pytest.mark.parametrize("file", ["model.safetensors", "critic.safetensors"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_with_file_and_tensor(
    saved: Path, tmp_path: Path, file: str, bad: float
) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for one in saved.iterdir():
        (folder / one.name).write_bytes(one.read_bytes())
    weights = load_file(folder / file)
    name = sorted(weights)[-1]
    weights[name].view(-1)[-1] = bad
    save_file(weights, folder / file, metadata={"format": "pt"})
    said = rf"{file}: tensor '{name}' holds 1 of"
    with pytest.raises(ModelError, match=said):
        checkpoint.load(folder)
    (tmp_path / "deploy.toml").write_text("", encoding="utf-8")
    with Offline.open(tmp_path / "deploy.toml") as offline:
        with pytest.raises(ModelError, match=said):
            offline.try_checkpoint(folder)
        with reading(offline.engine) as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(checkpoints)) == 0
    sent: list[Any] = []
    process: Any = learner_process._Process(type("Pipe", (), {"send": staticmethod(sent.append)})(), LearnerConfig())  # pyright: ignore
    assert process._load(str(folder)) is None
    assert sent[0].checkpoint is None  # never "ready"
    assert name in sent[0].reason


def test_finite_weights_whose_sum_overflows_are_taken(saved: Path, tmp_path: Path) -> None:
    save_file({"big": torch.full((4,), 3e38)}, tmp_path / "model.safetensors")
    checkpoint.check_finite(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match="cannot be read"):
        checkpoint.check_finite(tmp_path)


numbers = st.floats(allow_nan=True, allow_infinity=True)
plain = st.recursive(
    numbers | st.integers() | st.text() | st.none() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=50)
@given(plain)
def test_json_holds_no_token_that_is_none(values: Any) -> None:
    found = strict(to_json(values))
    if not isinstance(values, float) or math.isfinite(values):
        assert type(found) is type(values)
    else:
        assert found is None


def test_a_judge_that_says_nan_judges_nothing_and_such_harm_is_harm() -> None:
    assert guarded(lambda *_: math.nan, "verifier")("a", "b") is None
    rule = harm_rule(replace(HarmConfig(), rule="test_deploy_not_finite:not_a_number"))
    assert rule is not None
    assert rule([], "text") == 1.0


def not_a_number(*_: Any) -> float:
    return math.nan
