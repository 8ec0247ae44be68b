"""Endpoints as they are: what they refuse, how they limit, in what forms they answer. Against a real local server."""

import email.utils
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from foretaste.errors import ConfigError, ModelError
from foretaste.exams.asking import Pace, ReplyError, read_reply, wait_of
from foretaste.exams.asking.adapting import folded
from foretaste.exams.endpoint import Endpoint, EndpointConfig
from foretaste.exams.exam import sit
from foretaste.exams.paper import Family, Paper
from foretaste.exams.settings import SeatConfig, SitConfig
from foretaste.ledger import Ledger
from foretaste.records import Conversation, Message

KEY = "sk-very'secret/key+1"


def endpoint(server: Any, **settings: Any) -> Endpoint:
    defaults = {"pause_seconds": 0.001, "timeout_seconds": 5.0, "attempts": 3, "concurrent": 1}
    return Endpoint.parse(f"openai:small@http://127.0.0.1:{server.server_port}/v1", **{**defaults, **settings})


def conversations(count: int = 1) -> list[Conversation]:
    return [Conversation(f"c{i}", [Message("system", "s"), Message("user", f"question {i}")]) for i in range(count)]


def refusing(status: int, message: str, when: Callable[[dict[str, Any]], bool]) -> Callable[[Any, Any, int], None]:
    def behave(handler: Any, body: dict[str, Any], number: int) -> None:
        if when(body):
            handler.reply(status, {"error": {"message": message}})
        else:
            handler.answer("ok")

    return behave


# What an endpoint does not take ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "when", "told"),
    [
        (
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
            lambda body: "max_tokens" in body,
            "max_completion_tokens",
        ),
        (
            "Unsupported value: 'temperature' does not support 0. Only the default (1) value is supported.",
            lambda body: "temperature" in body,
            "temperature is left out",
        ),
        ("Unrecognized request argument supplied: seed", lambda body: "seed" in body, "seed is left out"),
        ("System role not supported", lambda body: body["messages"][0]["role"] == "system", "user's message"),
        ("This model only supports stream=true", lambda body: not body.get("stream"), "streams"),
    ],
)
def test_what_an_endpoint_does_not_take_is_sent_otherwise_and_told(
    server: Any, message: str, when: Callable[[dict[str, Any]], bool], told: str
) -> None:
    server.behaviour = refusing(400, message, when)
    with endpoint(server, temperature=1.0) as policy:
        assert [action.text for action in policy.act(conversations(3))] == ["ok"] * 3
        assert policy.usage.requests == 4  # learned once, and no try is spent
        (line,) = policy.told
    assert told in line


def test_a_parameter_refused_for_another_reason_is_not_dropped(server: Any) -> None:
    server.behaviour = refusing(400, "this context is too long", lambda body: True)
    with endpoint(server) as policy:
        policy.act(conversations())
        assert (policy.told, policy.usage.requests) == ([], 1)


def test_the_body_can_be_changed_by_hand(server: Any) -> None:
    extra = {"reasoning_effort": "low", "temperature": 0.7}
    with endpoint(server, extra_body=extra, omit=("max_tokens",), system_in_user=True) as policy:
        policy.act(conversations())
    body = server.bodies[0][2]
    assert (body["reasoning_effort"], body["temperature"], "max_tokens" in body) == ("low", 0.7, False)
    assert body["messages"] == [{"role": "user", "content": "s\n\nquestion 0"}]
    with pytest.raises(ConfigError, match="'messages' is what the exam itself asks"):
        endpoint(server, omit=("messages",))
    with pytest.raises(ConfigError, match="is not JSON"):
        SeatConfig(extra_body="{")
    with pytest.raises(ConfigError, match="is no JSON object"):
        SeatConfig(extra_body="[1]")


def test_instructions_without_a_user_after_them_are_kept() -> None:
    messages = [Message("system", "a"), Message("user", "b"), Message("assistant", "c"), Message("system", "d")]
    assert folded(messages) == [Message("user", "a\n\nb"), Message("assistant", "c"), Message("user", "d")]


# Refusals ----------------------------------------------------------------------------------------


def test_a_cause_that_hits_all_stops_after_a_few(server: Any) -> None:
    server.behaviour = refusing(402, "Insufficient credits: 0.01 left", lambda body: True)
    with (
        endpoint(server) as policy,
        pytest.raises(ModelError, match=r"refused 4 requests alike .*Insufficient credits"),
    ):
        policy.act(conversations(20))
    assert policy.usage.requests == 4


def test_credit_that_ends_midway_stops_too(server: Any) -> None:
    server.behaviour = lambda h, body, number: (
        h.answer("ok") if number < 2 else h.reply(402, {"error": {"message": "no credit"}})
    )
    with endpoint(server) as policy, pytest.raises(ModelError, match="refused 8 requests alike"):
        policy.act(conversations(20))


@pytest.mark.parametrize("status", [403, 404])
def test_one_refused_item_is_that_items_error(server: Any, status: int) -> None:
    server.behaviour = refusing(
        status, "Your input was flagged by moderation", lambda body: body["messages"][-1]["content"] == "question 1"
    )
    with endpoint(server) as policy:
        assert [action.text for action in policy.act(conversations(4))] == ["ok", "", "ok", "ok"]
        assert list(policy.failures) == ["c1"]
        assert policy.unanswered == set()  # asking again would bring nothing


def test_access_refused_to_all_stops(server: Any) -> None:
    server.behaviour = refusing(403, "forbidden", lambda body: True)
    with endpoint(server) as policy, pytest.raises(ModelError, match="refused access"):
        policy.act(conversations(4))


@pytest.mark.parametrize("form", ["finish reason", "error"])
def test_a_content_filter_is_a_refusal_in_both_forms(server: Any, form: str) -> None:
    def filtered(handler: Any, body: dict[str, Any], number: int) -> None:
        if form == "finish reason":
            handler.answer("", "content_filter")
        else:
            said = "filtered due to the prompt triggering Azure OpenAI's content management policy"
            handler.reply(400, {"error": {"message": said, "code": "content_filter"}})

    server.behaviour = filtered
    with endpoint(server) as policy:
        assert policy.act(conversations(6))[0].text == ""
        assert policy.refused == {f"c{i}" for i in range(6)}
        assert policy.failures == {}


@pytest.mark.parametrize("inside", [True, False])
def test_a_providers_failure_is_no_answer(server: Any, inside: bool) -> None:
    error = {"code": 502, "message": "Upstream provider failed"}
    choice = {"message": {"content": ""}, "finish_reason": "error", "error": error}
    server.behaviour = lambda h, body, number: h.reply(200, {"choices": [choice]} if inside else {"error": error})
    with endpoint(server) as policy:
        policy.act(conversations())
        assert "Upstream provider failed (after 3 attempts)" in policy.failures["c0"]
        assert policy.unanswered == {"c0"}


# Forms of an answer ------------------------------------------------------------------------------


def completion(content: Any, reason: str = "stop", **more: Any) -> str:
    return json.dumps({"choices": [{"message": {"content": content, **more}, "finish_reason": reason}]})


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<think>\nhm, 99?\n</think>\n\n12", "12"),
        ("hm, 99?\n</think>\n\n12", "12"),
        ("<thinking>a</thinking><thinking>b</thinking>12", "12"),
        ("[THINK]a[/THINK]12", "12"),
        ("<think>hm, it is 12", ""),
        ("12 is what I think", "12 is what I think"),
        ([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "1"}, {"type": "text", "text": "2"}], "12"),
    ],
)
def test_thoughts_and_parts_of_other_kinds_are_no_part_of_the_answer(content: Any, text: str) -> None:
    assert read_reply(completion(content, reasoning_content="It might be 99.")).text == text


def stream(*events: Any, end: str = "data: [DONE]\n\n") -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + end


def piece(text: str, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": reason}]}


def test_an_event_stream_is_read_whole() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 7.0, "completion_tokens": 2}}
    reply = read_reply(": keep-alive\n\n" + stream(piece("1"), piece("2", "length"), usage))
    assert reply == ("12", True, False, 7, 2)
    assert read_reply(stream(piece("12")), "text/event-stream").text == "12"
    with pytest.raises(ReplyError, match="broke off"):
        read_reply(stream(piece("1"), end=""))
    with pytest.raises(ReplyError, match="overloaded") as error:
        read_reply(stream(piece("1"), {"error": {"message": "overloaded", "code": "503"}}))
    assert error.value.status == 503


# Limits ------------------------------------------------------------------------------------------


def test_every_way_to_name_a_wait_is_read() -> None:
    now = 1_800_000_000.0
    for headers, seconds in (
        ({"retry-after": "7"}, 7),
        ({"retry-after": email.utils.formatdate(now + 9, usegmt=True)}, 9),
        ({"retry-after": email.utils.formatdate(now - 9, usegmt=True)}, 0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"x-ratelimit-reset": str(int((now + 3) * 1000))}, 3),
        ({"x-ratelimit-reset": str(now + 4)}, 4),
        ({"x-ratelimit-reset-requests": "1m30.5s", "x-ratelimit-remaining-requests": "0"}, 90.5),
        ({"x-ratelimit-reset-requests": "1m", "x-ratelimit-remaining-requests": "12"}, None),
        ({"x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ):
        found = wait_of(httpx.Headers(headers), now=now)
        assert found == (seconds if seconds is None else pytest.approx(seconds, abs=1e-3)), headers


def test_a_rate_limit_slows_down_and_gives_nothing_up(server: Any) -> None:
    allowed = [0.0]

    def limited(handler: Any, body: dict[str, Any], number: int) -> None:
        with server.lock:
            free = time.monotonic() >= allowed[0]
            allowed[0] = time.monotonic() + 0.02 if free else allowed[0]
        handler.answer("ok") if free else handler.reply(429, {"error": {"message": "slow down"}})

    server.behaviour = limited
    with endpoint(server, concurrent=8, attempts=4, pause_seconds=0.02) as policy:
        assert [action.text for action in policy.act(conversations(30))] == ["ok"] * 30
        assert policy.failures == {}


def test_a_limit_that_outlasts_the_patience_ends_the_sitting(server: Any) -> None:
    server.behaviour = lambda h, body, number: h.reply(429, {"error": {"message": "daily quota"}}, Retry_After="3600")
    with endpoint(server, patience_seconds=60.0) as policy, pytest.raises(ModelError, match="asks to wait 3600 s"):
        policy.act(conversations(2))


def test_a_pace_learns_how_fast_it_may_go() -> None:
    """A server that takes one request every 3 seconds: of 200, few come too early once the spacing is found."""
    now, last, early = [0.0], [-9.0], 0
    pace = Pace(4, clock=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    answered = 0
    while answered < 200:
        with pace.turn() as started:
            if started - last[0] >= 3.0:
                last[0] = started
                answered += 1
                pace.answered()
            else:
                early += 1
                pace.limited(None, 1.0, started)
    assert early < 100
    assert now[0] < 3 * 200 * 1.6


# Keys --------------------------------------------------------------------------------------------


def test_a_key_is_in_no_message_in_any_spelling(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.parse import quote

    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")  # blanks and a line end come with files and copies
    spellings = [KEY, quote(KEY, safe=""), repr(KEY), json.dumps(KEY)]
    server.behaviour = lambda h, body, number: h.reply(500, {"error": {"message": " ".join(spellings)}})
    with endpoint(server, attempts=1) as policy:
        policy.act(conversations())
        said = policy.failures["c0"]
    assert server.bodies[0][1]["Authorization"] == f"Bearer {KEY}"
    assert "[key]" in said
    assert "secret" not in said


@pytest.mark.parametrize("key", ["sk-schlüssel", "sk one", "sk-a\nb", "sk-\x00"])
def test_a_key_that_no_header_can_hold_is_refused_unshown(key: str) -> None:
    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY holds .* which no header can hold") as error:
        Endpoint(EndpointConfig("m", "http://127.0.0.1:9/v1"), key=key)
    assert key not in str(error.value)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "ftp://127.0.0.1:9", "::::"])
def test_a_proxy_that_cannot_be_used_is_named(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConfigError, match="ALL_PROXY"):
        Endpoint.parse("openai:m@http://127.0.0.1:9/v1")


# A sitting ---------------------------------------------------------------------------------------


def sitting(server: Any, folder: Path) -> Any:
    spec = f"openai:small@http://127.0.0.1:{server.server_port}/v1"
    config = SitConfig(policy=spec, attempts=1, pause_seconds=0.001, public=False, concurrent=2)
    paper = Paper("sums", (Family("route", items=4),), sealed=False)
    with Ledger.open(folder) as ledger:
        return sit(paper, config, ledger, runs_folder=folder)


def test_what_an_endpoint_gave_up_is_asked_again_before_the_verdict(server: Any, tmp_path: Path) -> None:
    server.behaviour = lambda h, body, number: h.reply(503, b"") if number < 3 else h.answer("7")
    found = sitting(server, tmp_path)
    assert found.results["failures"]["error"] == 0
    assert found.results["answers"] == 4
    assert found.usage["prompt_tokens"] == 7 * (len(server.bodies) - 3)  # counted with each answer


def test_no_verdict_rests_on_what_was_easy_to_reach(server: Any, tmp_path: Path) -> None:
    def half_never(handler: Any, body: dict[str, Any], number: int) -> None:
        asked = list(dict.fromkeys(one[2]["messages"][-1]["content"] for one in server.bodies))
        bad = asked.index(body["messages"][-1]["content"]) < 2
        handler.reply(503, b"") if bad else handler.answer("7")

    server.behaviour = half_never
    with pytest.raises(ModelError, match=r"gave up \d of 4 requests, asked at least twice; the first: HTTP 503"):
        sitting(server, tmp_path)
    with Ledger.open(tmp_path) as ledger:
        assert ledger.run("latest").status == "failed"
    server.behaviour = lambda h, body, number: h.answer("7")
    with Ledger.open(tmp_path) as ledger:
        found = sit(None, SitConfig(), ledger, runs_folder=tmp_path, resume="latest")
    assert found.results["failures"]["error"] == 0
