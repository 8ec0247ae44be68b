"""An endpoint policy against a real local server that misbehaves."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from foretaste.errors import ConfigError, ModelError
from foretaste.exams.endpoint import Endpoint, parse_endpoint
from foretaste.records import Conversation, Message

KEY = "sk-very-secret"


def endpoint(server: Any, **settings: Any) -> Endpoint:
    defaults = {"pause_seconds": 0.001, "timeout_seconds": 5.0, "attempts": 4, "concurrent": 4}
    return Endpoint.parse(f"openai:small@http://127.0.0.1:{server.server_port}/v1", **{**defaults, **settings})


def conversations(count: int = 1) -> list[Conversation]:
    return [Conversation(f"c{i}", [Message("system", "s"), Message("user", f"question {i}")]) for i in range(count)]


def test_answers_come_in_order_with_totals_and_the_key_only_in_the_header(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    open_now, most = [0], [0]

    def echo(handler: Any, body: dict[str, Any], number: int) -> None:
        with server.lock:
            open_now[0] += 1
            most[0] = max(most[0], open_now[0])
        time.sleep(0.02)
        with server.lock:
            open_now[0] -= 1
        handler.answer(body["messages"][-1]["content"].upper(), "length" if number == 0 else "stop")

    server.behaviour = echo
    with endpoint(server) as policy:
        actions = policy.act(conversations(12))
        assert [action.text for action in actions] == [f"QUESTION {i}" for i in range(12)]
        assert sum(action.cut for action in actions) == 1
        assert (policy.usage.prompt_tokens, policy.usage.completion_tokens, policy.usage.retries) == (84, 24, 0)
        assert policy.usage.cost(1.0, 10.0) == pytest.approx((84 + 240) / 1e6)
        assert KEY not in repr(policy) + policy.name
    assert 1 < most[0] <= 4
    path, headers, body = server.bodies[0]
    assert (path, headers["Authorization"], body["model"]) == ("/v1/chat/completions", f"Bearer {KEY}", "small")


def drop(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choi')
    handler.close_connection = True


PASSING_FAULTS: dict[str, Callable[[Any], None]] = {
    "429": lambda h: h.reply(429, {"error": {"message": "slow down"}}, Retry_After="0"),
    "500": lambda h: h.reply(500, b"<html>oops</html>"),
    "503 with a date": lambda h: h.reply(503, {}, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"),
    "garbage": lambda h: h.reply(200, b"\xff\xfenot json"),
    "a number": lambda h: h.reply(200, b"7"),
    "empty choices": lambda h: h.reply(200, {"choices": []}),
    "no message": lambda h: h.reply(200, {"choices": [{}]}),
    "content is a list": lambda h: h.reply(200, {"choices": [{"message": {"content": [1]}}]}),
    "dropped": drop,
}


@pytest.mark.parametrize("fault", PASSING_FAULTS)
def test_faults_that_pass_are_tried_again(server: Any, fault: str) -> None:
    server.behaviour = lambda h, body, number: PASSING_FAULTS[fault](h) if number < 2 else h.answer("at last")
    with endpoint(server) as policy:
        assert policy.act(conversations())[0].text == "at last"
        assert (policy.usage.requests, policy.usage.retries, policy.failures) == (3, 2, {})


@pytest.mark.parametrize("fault", PASSING_FAULTS)
def test_faults_that_stay_fail_one_item_and_the_others_go_on(server: Any, fault: str) -> None:
    def one_bad(handler: Any, body: dict[str, Any], number: int) -> None:
        bad = body["messages"][-1]["content"] == "question 1"
        PASSING_FAULTS[fault](handler) if bad else handler.answer("ok")

    server.behaviour = one_bad
    with endpoint(server) as policy:
        assert [action.text for action in policy.act(conversations(3))] == ["ok", "", "ok"]
        assert list(policy.failures) == ["c1"]
        assert "after 4 attempts" in policy.failures["c1"]
        server.behaviour = lambda handler, body, number: handler.answer("ok")
        assert policy.act(conversations(3))[1].text == "ok"
        assert policy.failures == {}


def test_slow_bytes_are_cut_off_as_a_whole(server: Any) -> None:
    def dribble(handler: Any, body: dict[str, Any], number: int) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(100):  # a byte every 20 ms: no pause is ever long
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.02)
        except OSError:
            pass

    server.behaviour = dribble
    start = time.monotonic()
    with endpoint(server, timeout_seconds=0.2, attempts=2) as policy:
        assert policy.act(conversations())[0].text == ""
        assert "more than 0.2 s" in policy.failures["c0"]
    assert time.monotonic() - start < 1.5


def test_silence_times_out(server: Any) -> None:
    server.behaviour = lambda handler, body, number: time.sleep(0.5)
    with endpoint(server, timeout_seconds=0.1, attempts=2) as policy:
        policy.act(conversations())
        assert "no reply within 0.1 s" in policy.failures["c0"]


def test_the_servers_wish_to_wait_is_granted(server: Any) -> None:
    server.behaviour = lambda h, body, number: (
        h.reply(429, {}, Retry_After="0.2") if number == 0 else h.answer("thanks")
    )
    start = time.monotonic()
    with endpoint(server) as policy:
        assert policy.act(conversations())[0].text == "thanks"
    assert time.monotonic() - start >= 0.2


def test_a_wrong_model_stops_with_a_suggestion(server: Any) -> None:
    message = "The model `smal` does not exist"
    server.behaviour = lambda handler, body, number: handler.reply(404, {"error": {"message": message}})
    url = f"http://127.0.0.1:{server.server_port}/v1"
    with Endpoint.parse(f"openai:smal@{url}") as policy, pytest.raises(ModelError, match="Did you mean 'small'"):
        policy.act(conversations())
    with endpoint(server) as policy, pytest.raises(ModelError, match="usually ending in /v1"):
        policy.act(conversations())
    assert policy.usage.retries == 0


def test_a_refused_key_stops_and_is_not_shown(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.behaviour = lambda h, body, number: h.reply(401, {"error": {"message": f"Incorrect API key: {KEY}"}})
    with endpoint(server) as policy, pytest.raises(ModelError, match="OPENAI_API_KEY") as caught:
        policy.act(conversations(3))
    assert KEY not in str(caught.value)
    monkeypatch.delenv("OPENAI_API_KEY")
    with endpoint(server) as policy, pytest.raises(ModelError, match="there is no key"):
        policy.act(conversations())


def test_a_bad_request_fails_its_item_at_once(server: Any) -> None:
    server.behaviour = lambda h, body, number: h.reply(400, {"error": {"message": "context too long"}})
    with endpoint(server, failures_in_a_row=2) as policy:
        assert [action.text for action in policy.act(conversations(5))] == [""] * 5
        assert policy.failures["c0"] == "HTTP 400: context too long"
        assert policy.usage.requests == 5


def test_an_endpoint_that_is_down_stops_the_sitting(server: Any) -> None:
    policy = Endpoint.parse("openai:small@http://127.0.0.1:9/v1", attempts=1, failures_in_a_row=3, concurrent=1)
    with policy, pytest.raises(ModelError, match="3 requests in a row failed for good, the last: ConnectError"):
        policy.act(conversations(10))
    assert policy.usage.requests == 3


def test_refusals_and_missing_usage_are_answers(server: Any) -> None:
    choice = {"message": {"content": None, "refusal": "I cannot"}}
    server.behaviour = lambda handler, body, number: handler.reply(200, {"choices": [choice]})
    with endpoint(server) as policy:
        assert policy.act(conversations())[0].text == "I cannot"
        assert (policy.usage.unreported, policy.usage.prompt_tokens) == (1, 0)


def test_specs() -> None:
    assert parse_endpoint("openai:org/model:7b@http://h:1/v1/") == ("org/model:7b", "http://h:1/v1")
    assert parse_endpoint("openai:a@b@https://h/v1") == ("a@b", "https://h/v1")
    for wrong in ("openai:model", "model@http://h", "openai:@http://h", "openai:m@httpx://h", "openai:m@http://"):
        with pytest.raises(ConfigError, match="openai:MODEL@"):
            parse_endpoint(wrong)
    with pytest.raises(ConfigError, match="no name or password") as caught:
        parse_endpoint("openai:m@http://user:hunter2@h/v1")
    assert "hunter2" not in str(caught.value)
