"""The server as clients see it: the official client works unchanged, and the learner takes over where it may."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import openai
import pytest
import sqlalchemy as sa

from foretaste.deploy.database import reading
from foretaste.deploy.learner import ScriptedLearner
from foretaste.deploy.settings import LearnerConfig, TakeoverConfig
from foretaste.deploy.tables import answers, requests


def plus_one(messages: list[dict[str, Any]]) -> tuple[str, float]:
    """Right and sure of small numbers, wrong and unsure of others."""
    number = int(messages[-1]["content"])
    return (str(number + 1), 0.9) if number < 100 else ("no idea", 0.1)


def rows(running: Any, table: Any) -> list[Any]:
    running.flush()
    with reading(running.deployment.engine) as connection:
        return list(connection.execute(sa.select(table).order_by(table.c.number)))


def promoted(running: Any, kit: Any, **changes: Any) -> None:
    """Put the deployment into a stage, as a person may."""
    deployment = running.deployment
    kit.wait_for(lambda: deployment.state.checkpoint or "checkpoint" in changes)
    defaults = {"stage": "live", "share": 1.0, "tau": 0.5, "held": True, "looked": 10**9}
    deployment.change("test", "person:test", {**defaults, **changes}, "for a test")


def test_the_official_client_works_unchanged(kit: Any, incumbent: Any, tmp_path: Any) -> None:
    with kit.serve(kit.config_for(incumbent.url), tmp_path) as running:
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.secrets["user"]) as client:
            found = client.chat.completions.create(model="big", messages=[{"role": "user", "content": "41"}])
            assert found.choices[0].message.content == "42"
            assert found.id.startswith("chatcmpl-up")
            stream = client.chat.completions.create(
                model="big", messages=[{"role": "user", "content": "99"}], stream=True
            )
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "100"
            assert [model.id for model in client.models.list()] == ["big"]
        with (
            openai.OpenAI(base_url=f"{running.url}/v1", api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError, match="not known here"),
        ):
            client.models.list()
        written = rows(running, requests)
        assert [(row.route, row.reason, row.status, row.stream) for row in written] == [
            ("incumbent", "no_learner", 200, False),
            ("incumbent", "no_learner", 200, True),
        ]
        assert [row.text for row in rows(running, answers)] == ["42", "100"]
    assert [headers.get("authorization") for headers in incumbent.headers] == [None] * 3


def test_bytes_pass_through_unchanged(kit: Any, incumbent: Any, tmp_path: Any) -> None:
    with kit.serve(kit.config_for(incumbent.url), tmp_path) as running, running.client() as client:
        body = b'{"messages" : [{"role":"user","content":"1"}], "unknown_setting": {"a": [1, 2.50]}}'
        found = client.post("/v1/chat/completions", content=body)
        assert found.status_code == 200
        assert incumbent.seen == [json.loads(body)]
        assert found.headers["content-type"] == "application/json"
        assert found.headers["x-foretaste-id"].startswith("chatcmpl-")


def test_the_learner_answers_silently_and_is_compared(kit: Any, incumbent: Any, tmp_path: Any) -> None:
    with kit.serve(kit.config_for(incumbent.url), tmp_path, ScriptedLearner(plus_one)) as running:
        assert running.ask(5).json()["choices"][0]["message"]["content"] == "6"
        assert running.ask(500).json()["choices"][0]["message"]["content"] == "501"
        found = kit.wait_for(lambda: [row for row in rows(running, answers) if row.role == "learner" and row.judged])
        kit.wait_for(lambda: len([row for row in rows(running, answers) if row.judged]) == 2)
        found = {row.text: (row.score, row.judge, row.served) for row in rows(running, answers) if row.judged}
        assert found == {"6": (1.0, "comparator", False), "no idea": (0.0, "comparator", False)}
        assert running.deployment.metrics.shadow_coverage == 1.0


def test_the_learner_answers_where_its_value_is_high_and_defers_elsewhere(
    kit: Any, incumbent: Any, tmp_path: Any
) -> None:
    config = kit.config_for(incumbent.url, takeover=TakeoverConfig(every_seconds=0.05, check_share=0.0))
    with kit.serve(config, tmp_path, ScriptedLearner(plus_one)) as running:
        promoted(running, kit)
        sure, unsure = running.ask(5).json(), running.ask(500).json()
        assert (sure["model"], sure["choices"][0]["message"]["content"]) == ("scripted", "6")
        assert (unsure["model"], unsure["choices"][0]["message"]["content"]) == ("big", "501")
        assert len(incumbent.seen) == 1
        assert [(row.route, row.reason) for row in rows(running, requests)] == [
            ("learner", ""),
            ("incumbent", "low_value"),
        ]
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.secrets["user"]) as client:
            stream = client.chat.completions.create(
                model="big",
                messages=[{"role": "user", "content": "41"}],
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "42"
        assert chunks[-1].usage is not None
        assert {chunk.id for chunk in chunks} == {rows(running, requests)[-1].id}


def test_the_state_keeps_the_learner_back(kit: Any, incumbent: Any, tmp_path: Any) -> None:
    cases: dict[str, dict[str, Any]] = {
        "shadow": {"stage": "shadow"},
        "not_drawn": {"share_ceiling": 0.0},
        "no_threshold": {"tau": None},
        "not_permitted": {"may_serve": False},
        "token_cap": {"tokens_per_day": 0},
        "not_loaded": {"checkpoint": "other weights"},
    }
    normal = {"stage": "live", "share_ceiling": 1.0, "tau": 0.5, "may_serve": True, "tokens_per_day": 10_000}
    config = kit.config_for(incumbent.url, takeover=TakeoverConfig(every_seconds=600))
    with kit.serve(config, tmp_path, ScriptedLearner(plus_one)) as running:
        kit.wait_for(lambda: running.deployment.state.checkpoint)  # the first look has been; no other follows
        promoted(running, kit, checkpoint="scripted")
        for changes in cases.values():
            running.deployment.change("test", "person:test", {**normal, **changes}, "for a test")
            assert running.ask(5).json()["model"] == "big"
        assert [row.reason for row in rows(running, requests)] == list(cases)


def test_what_the_learner_cannot_do_is_the_incumbents(kit: Any, incumbent: Any, tmp_path: Any) -> None:
    unsupported: list[dict[str, Any]] = [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"n": 2},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"max_tokens": 0},
        {"max_tokens": "5"},
        {"max_completion_tokens": True},
        {"stream": True, "stream_options": "x"},
    ]
    with kit.serve(kit.config_for(incumbent.url), tmp_path, ScriptedLearner(plus_one)) as running:
        promoted(running, kit)
        found = [running.ask(5, **more) for more in unsupported]
        assert [one.status_code for one in found] == [200] * 8
        assert ["big" in one.text for one in found] == [True] * 8
        assert [row.reason for row in rows(running, requests)] == ["unsupported"] * 8


def test_an_answer_longer_than_the_request_allows_is_not_given(kit: Any, incumbent: Any, tmp_path: Any) -> None:
    def wordy(_: list[dict[str, Any]]) -> tuple[str, float]:
        return "one two three", 0.9

    cases: list[tuple[dict[str, Any], str]] = [
        ({"max_tokens": 2}, "max_tokens"),
        ({"max_tokens": 3}, ""),
        ({"max_tokens": None, "max_completion_tokens": 2}, "max_tokens"),
        ({"max_tokens": 9, "max_completion_tokens": 2}, "max_tokens"),
        ({"temperature": 0.0, "top_p": 0.5, "seed": 1}, ""),
    ]
    with kit.serve(kit.config_for(incumbent.url), tmp_path, ScriptedLearner(wordy)) as running:
        promoted(running, kit)
        models = [running.ask(5, **more).json()["model"] for more, _ in cases]
        assert models == ["big" if reason else "scripted" for _, reason in cases]
        assert [row.reason for row in rows(running, requests)] == [reason for _, reason in cases]


def test_a_sample_of_what_the_learner_serves_is_checked_by_the_incumbent(
    kit: Any, incumbent: Any, tmp_path: Any
) -> None:
    config = kit.config_for(incumbent.url, takeover=TakeoverConfig(every_seconds=0.05, check_share=1.0))
    with kit.serve(config, tmp_path, ScriptedLearner(plus_one)) as running:
        promoted(running, kit)
        assert running.ask(5, stream=True).headers["content-type"] == "text/event-stream"
        kit.wait_for(lambda: [row for row in rows(running, answers) if row.judged])
        assert [(row.role, row.served, row.score) for row in rows(running, answers)] == [
            ("learner", True, 1.0),
            ("incumbent", False, None),
        ]
        assert "stream" not in incumbent.seen[0]


def test_a_slow_learner_delays_nobody_twice(kit: Any, incumbent: Any, tmp_path: Any) -> None:
    config = kit.config_for(incumbent.url, learner=LearnerConfig(deadline_seconds=1.0, shadow_deadline_seconds=1.0))
    with kit.serve(config, tmp_path, ScriptedLearner(plus_one, seconds=9.0)) as running:
        promoted(running, kit)
        assert running.ask(5).json()["model"] == "big"
        assert running.ask(5).json()["model"] == "big"
        assert [row.reason for row in rows(running, requests)] == ["deadline", "slow"]


def test_silent_answers_are_shed_first(kit: Any, incumbent: Any, tmp_path: Any) -> None:
    config = kit.config_for(incumbent.url, learner=LearnerConfig(shadow_queue=2, shadow_deadline_seconds=5.0))
    with kit.serve(config, tmp_path, ScriptedLearner(plus_one, seconds=3.0)) as running:
        assert [running.ask(number).status_code for number in range(5)] == [200] * 5
        with running.client() as client:
            page = client.get("/metrics").text
        assert 'foretaste_shadow_shed_total{reason="busy"} 3.0' in page
        assert "foretaste_shadow_coverage 0.0" in page


def test_harm_is_never_served_and_counts(kit: Any, incumbent: Any, tmp_path: Any) -> None:
    config = kit.config_for(incumbent.url)
    config = replace(config, harm=replace(config.harm, patterns=("^6$",)))
    with kit.serve(config, tmp_path, ScriptedLearner(plus_one)) as running:
        promoted(running, kit)
        assert running.ask(5).json()["model"] == "big"
        assert running.ask(6).json()["model"] == "scripted"
        assert [row.reason for row in rows(running, requests)] == ["harm", ""]
        assert [row.harm for row in rows(running, answers) if row.role == "learner"] == [1.0, 0.0]


@pytest.fixture
def gate(kit: Any) -> Any:
    """Shut while a test runs, so that `deploy_helpers:hanging` hangs."""
    kit.GATE.clear()
    yield kit.GATE
    kit.GATE.set()


def test_a_verifier_that_hangs_holds_no_user_up(kit: Any, incumbent: Any, tmp_path: Any, gate: Any) -> None:
    takeover = TakeoverConfig(every_seconds=0.05, check_share=1.0, correct_from=0.2, verifier="deploy_helpers:hanging")
    with kit.serve(kit.config_for(incumbent.url, takeover=takeover), tmp_path, ScriptedLearner(plus_one)) as running:
        promoted(running, kit)
        assert running.deployment.writer.correct_from == 0.2
        assert [running.ask(number).json()["model"] for number in [5] * 20 + [500]] == ["scripted"] * 20 + ["big"]
        kit.wait_for(lambda: [row for row in rows(running, answers) if row.judge == "comparator"])
        gate.set()

        def judged() -> set[tuple[float, str]]:
            return {(row.score, row.judge) for row in rows(running, answers) if row.role == "learner"}

        kit.wait_for(lambda: judged() == {(0.25, "verifier")})  # in place of what the comparator said


def test_a_verifier_does_not_overrule_a_user(kit: Any, incumbent: Any, tmp_path: Any, gate: Any) -> None:
    takeover = TakeoverConfig(every_seconds=0.05, check_share=0.0, verifier="deploy_helpers:hanging")
    with kit.serve(kit.config_for(incumbent.url, takeover=takeover), tmp_path, ScriptedLearner(plus_one)) as running:
        promoted(running, kit)
        identity = running.ask(5).json()["id"]
        with running.client() as client:
            assert client.post("/v1/feedback", json={"response_id": identity, "thumbs": "up"}).status_code == 200
        written = running.deployment.writer.written
        gate.set()
        kit.wait_for(lambda: running.deployment.writer.written > written)
        assert [(row.score, row.judge) for row in rows(running, answers)] == [(1.0, "user")]


def test_a_rule_of_harm_that_hangs_leaves_the_user_to_the_incumbent(
    kit: Any, incumbent: Any, tmp_path: Any, gate: Any
) -> None:
    config = kit.config_for(incumbent.url, learner=LearnerConfig(deadline_seconds=1.0, shadow_deadline_seconds=0.2))
    config = replace(config, harm=replace(config.harm, rule="deploy_helpers:hanging"))
    with kit.serve(config, tmp_path, ScriptedLearner(plus_one)) as running:
        promoted(running, kit)
        assert [running.ask(5).json()["model"] for _ in range(2)] == ["big", "big"]
        kit.wait_for(lambda: [row.harm for row in rows(running, answers) if row.role == "learner"] == [1.0, 1.0])
        assert [row.reason for row in rows(running, requests)] == ["deadline", "slow"]
