"""What the learner may answer, and what passes through: settings, models, paths and headers of requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.deploy.database import writing
from foretaste.deploy.keys import create, revoke
from foretaste.deploy.learner import ScriptedLearner
from foretaste.deploy.network.addresses import plain_http_warning
from foretaste.deploy.network.paths import Target, may_pass, merged
from foretaste.deploy.network.request_settings import KNOWN, MESSAGE, MOST_NAMES, Names, unsupported_setting
from foretaste.deploy.settings import DeployConfig, IncumbentConfig, LearnerConfig, ServerConfig, TakeoverConfig, check
from foretaste.errors import ConfigError

LIVE = {"stage": "live", "share": 1.0, "tau": 0.5, "held": True, "looked": 10**9}
HELLO = [{"role": "user", "content": "1"}]


class Mirror:
    """An incumbent that answers any path with what it was sent."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.status = 200
        self.models: list[dict[str, Any]] = [{"id": "big"}, {"id": "other-listed"}]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        path = scope["raw_path"].decode()
        found = {
            "method": scope["method"],
            "path": path,
            "query": scope["query_string"].decode(),
            "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
            "body": body,
        }
        if path == "/v1/models":
            answer = json.dumps({"data": self.models}).encode()
        else:
            self.seen.append(found)
            choice = {"index": 0, "message": {"role": "assistant", "content": "2"}, "finish_reason": "stop"}
            answer = json.dumps({"id": "up-1", "model": "big", "choices": [choice]}).encode()
        start = {"type": "http.response.start", "status": self.status}
        await send(start | {"headers": [(b"content-type", b"application/json"), *self.headers]})
        await send({"type": "http.response.body", "body": answer})


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mirror, Any]]:
    """A mirror, and before it a server whose learner answers all that it may."""
    import deploy_helpers as kit
    import uvicorn

    mirror, port = Mirror(), kit.free_port()
    settings = uvicorn.Config(mirror, port=port, log_level="critical", lifespan="off")
    config = kit.config_for(
        f"http://127.0.0.1:{port}/v1",
        server=ServerConfig(port=kit.free_port(), requests_per_minute=1_000_000),
        takeover=TakeoverConfig(every_seconds=0.05, check_share=0.0),
    )
    learner = ScriptedLearner(lambda _: ("2", 0.9))
    with (
        kit.running(uvicorn.Server(settings)),
        kit.serve(config, tmp_path_factory.mktemp("passing"), learner) as running,
    ):
        kit.wait_for(lambda: running.deployment.state.checkpoint)
        running.deployment.change("test", "person:test", LIVE, "for a test")
        with running.client() as running.client_kept:
            yield mirror, running


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest) -> None:
    if "behind" in request.fixturenames:
        mirror, _ = request.getfixturevalue("behind")
        mirror.seen.clear()
        mirror.headers, mirror.status = [], 200


def who(running: Any, **body: Any) -> str:
    answer = running.client_kept.post("/v1/chat/completions", json={"model": "big", "messages": HELLO} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()["model"]


UNKNOWN = [
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "grammar",
    "json_schema",
    "echo",
    "best_of",
    "prompt_logprobs",
    "documents",
    "previous_response_id",
    "continue_final_message",
    "add_generation_prompt",
    "chat_template",
    "chat_template_kwargs",
    "web_search_options",
    "plugins",
    "top_k",
    "min_p",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "bad_words",
    "thinking",
    "reasoning",
    "transforms",
    "models",
    "provider",
    "route",
    "extra_body",
    "a setting that nobody has heard of",
]
NOT_HONOURED: list[dict[str, Any]] = [
    *({name: value} for name in UNKNOWN for value in (True,)),
    {"guided_json": None},
    {"top_logprobs": 3},
    {"top_logprobs": 0},
    {"stop": "\n"},
    {"stop": [""]},
    {"n": True},
    {"n": 0},
    {"stream": "true"},
    {"stream": 1},
    {"stream_options": {"include_usage": True}},
    {"stream": True, "stream_options": {"continuous_usage_stats": True}},
    {"temperature": "hot"},
    {"temperature": 3},
    {"seed": 1.5},
    {"store": True},
    {"service_tier": "flex"},
    {"reasoning_effort": "high"},
    {"response_format": {"type": "json_schema"}},
    {"tool_choice": "required"},
    {"logprobs": 0},
    {"modalities": ["text", "audio"]},
    *({"messages": [{**HELLO[0], name: value}]} for name, value in (("name", "ann"), ("prefix", True), ("x", None))),
    {"messages": [*HELLO, {"role": "assistant", "content": "2", "reasoning_content": "x"}, *HELLO]},
    {"messages": [*HELLO, {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}, *HELLO]},
    {"messages": [*HELLO, {"role": "tool", "content": "2", "tool_call_id": "a"}, *HELLO]},
    {"messages": [*HELLO, {"role": "assistant", "content": "The answer is"}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "1", "image_url": {"url": "x"}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "1", "cache_control": {}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "input_text", "text": "1"}]}]},
]
HONOURED: list[dict[str, Any]] = [
    {},
    {"temperature": 0.2, "top_p": 0.9, "seed": 1, "presence_penalty": 0, "frequency_penalty": -1.0, "user": "ann"},
    {"max_tokens": 5, "n": 1, "stream": False, "metadata": {"a": "b"}, "prompt_cache_key": "k"},
    {"tools": [], "stop": None, "logprobs": False, "response_format": {"type": "text"}, "tool_choice": None},
    {"store": False, "service_tier": "auto", "top_logprobs": None, "modalities": ["text"], "logit_bias": {}},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "1"}]}]},
    {"messages": [*HELLO, {"role": "assistant", "content": "2", "refusal": None, "annotations": []}, *HELLO]},
    {"messages": [{"role": "developer", "content": "Count."}, *HELLO]},
]


@pytest.mark.parametrize("body", NOT_HONOURED, ids=str)
def test_a_setting_that_the_learner_does_not_honour_is_the_incumbents(behind: Any, body: dict[str, Any]) -> None:
    mirror, running = behind
    assert who(running, **body) == "big"
    assert json.loads(mirror.seen[0]["body"]) == {"model": "big", "messages": HELLO} | body


@pytest.mark.parametrize("body", HONOURED, ids=str)
def test_what_it_honours_or_may_ignore_is_the_learners(behind: Any, body: dict[str, Any]) -> None:
    mirror, running = behind
    assert who(running, **body) == "scripted"
    assert mirror.seen == []


@given(st.text(min_size=1, max_size=30).filter(lambda name: name not in KNOWN), st.none() | st.booleans() | st.text())
def test_no_unknown_setting_is_taken_for_a_known_one(name: str, value: Any) -> None:
    assert unsupported_setting({"messages": HELLO, "model": "m"}) == ""
    assert unsupported_setting({"messages": HELLO, "model": "m", name: value}) == name
    if name not in MESSAGE:
        assert unsupported_setting({"messages": [{**HELLO[0], name: value}]}) == f"messages.{name}"


def test_settings_are_counted_by_name_and_the_names_are_few(behind: Any) -> None:
    _, running = behind
    who(running, guided_grammar="x", messages=HELLO)
    who(running, **{"my secret: 0123": 1})
    page = running.client_kept.get("/metrics").text
    assert 'foretaste_unsupported_total{setting="guided_grammar"}' in page
    assert 'foretaste_unsupported_total{setting="other"}' in page
    assert "secret" not in page
    names = Names()
    labels = {names.label(f"setting_{place}") for place in range(1000)} | {names.label("tools")}
    assert len(labels) == MOST_NAMES + 2


def test_the_table_in_the_docs_names_every_setting() -> None:
    text = (Path(__file__).parents[2] / "docs/deploy.md").read_text(encoding="utf-8")
    table = text[text.index("| setting of a request |") :].partition("\n\n")[0]
    assert all(f"`{name}`" in table for name in KNOWN)


# Models ----------------------------------------------------------------------------------------------------------


def test_the_learner_stands_in_for_the_models_of_the_incumbent_alone(behind: Any) -> None:
    _, running = behind
    assert who(running, model="other-listed") == "scripted"
    assert who(running, model="unlisted") == "big"
    assert who(running, model=None) == "big"
    assert who(running, model=5) == "big"
    nameless = running.client_kept.post("/v1/chat/completions", json={"messages": HELLO})
    assert nameless.json()["model"] == "big"
    assert 'foretaste_kept_back_total{reason="other_model"}' in running.client_kept.get("/metrics").text


@pytest.mark.parametrize(
    ("settings", "learners"),
    [({"models": ("mine",)}, ["mine"]), ({"model": "big"}, ["mine", "big", None]), ({"kind": "person"}, None)],
)
def test_the_models_are_a_setting(
    kit: Any, behind: Any, tmp_path: Path, settings: dict[str, Any], learners: list[Any] | None
) -> None:
    _, other = behind
    config = kit.config_for(other.deployment.config.incumbent.url, takeover=TakeoverConfig(every_seconds=0.05))
    config = replace(config, incumbent=replace(config.incumbent, person_timeout_seconds=0.2, **settings))
    with kit.serve(config, tmp_path, ScriptedLearner(lambda _: ("2", 0.9))) as running:
        kit.wait_for(lambda: running.deployment.state.checkpoint)
        running.deployment.change("test", "person:test", LIVE, "for a test")
        with running.client() as running.client_kept:
            names = ["mine", "big", None]
            if learners is None:
                assert [who(running, model=name) for name in names] == ["scripted"] * 3
                return
            assert [name for name in names if who(running, model=name) == "scripted"] == learners


# Paths -----------------------------------------------------------------------------------------------------------

PATHS = [
    ("POST", "/v1/responses", "responses"),
    ("GET", "/v1/responses/resp_1?include[]=a%20b", "responses"),
    ("DELETE", "/v1/responses/resp_1", "responses"),
    ("POST", "/v1/completions", "completions"),
    ("POST", "/v1/embeddings", "embeddings"),
    ("GET", "/v1/models/big", "models"),
    ("GET", "/v1/models/org%2Fbig", "models"),
    ("POST", "/openai/deployments/big/chat/completions?api-version=2024-10-21", "chat"),
    ("POST", "/chat/completions", "chat"),
    ("POST", "/embeddings", "embeddings"),
    ("POST", "/v1/chat/completions/", "chat"),
    ("GET", "/v1/chat/completions/id/messages", "chat"),
    ("PATCH", "/v1/something-new", "other"),
]


@pytest.mark.parametrize(("method", "path", "family"), PATHS)
def test_every_other_path_passes_unchanged(behind: Any, method: str, path: str, family: str) -> None:
    mirror, running = behind
    body = b'{ "model":"big","stream" : false}' if method in ("POST", "PATCH") else b""
    answer = running.client_kept.request(method, path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    (seen,) = mirror.seen
    given, _, query = path.partition("?")
    assert (seen["method"], seen["path"], seen["query"], seen["body"]) == (method, given, query, body)
    assert "authorization" not in seen["headers"]
    assert f'foretaste_passed_on_total{{path="{family}"' in running.client_kept.get("/metrics").text


def test_what_is_passed_on_takes_a_key_and_has_its_limits(behind: Any) -> None:
    mirror, running = behind
    assert httpx.post(f"{running.url}/v1/responses").status_code == 401
    with running.client("admin") as client:
        assert client.post("/v1/responses").status_code == 403
    large = running.client_kept.post("/v1/embeddings", content=b"x" * 5_000_000)
    assert large.status_code == 413
    azure = httpx.post(f"{running.url}/v1/embeddings", headers={"api-key": running.secrets["user"]})
    assert azure.status_code == 200
    assert "api-key" not in mirror.seen[0]["headers"]


def test_a_query_of_the_incumbents_url_goes_with_every_request(kit: Any, behind: Any, tmp_path: Path) -> None:
    mirror, other = behind
    root = other.deployment.config.incumbent.url.removesuffix("/v1")
    config = kit.config_for(f"{root}/openai/deployments/big?api-version=2024-10-21")
    with kit.serve(config, tmp_path) as running:
        assert running.ask(1).status_code == 200
        with running.client() as client:
            client.post("/v1/embeddings?a=1")
            client.post("/openai/deployments/big/embeddings?api-version=new")
    seen = [(one["path"], one["query"]) for one in mirror.seen]
    assert seen == [
        ("/openai/deployments/big/chat/completions", "api-version=2024-10-21"),
        ("/openai/deployments/big/embeddings", "a=1&api-version=2024-10-21"),
        ("/openai/deployments/big/embeddings", "api-version=new"),
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../admin",
        "/v1/%2e%2e/x",
        "/v1/%252e%252e/x",
        "//x",
        "/v1//x",
        "/v1/..;/x",
        "/v1/a%5cb",
        "/v1/%00",
        "/",
        "x",
    ],
)
def test_no_path_leads_out_of_the_incumbents(path: str) -> None:
    assert not may_pass(path.encode())


@given(st.text(alphabet="abc./%2e5;", max_size=20))
def test_what_may_pass_stays_below_the_root(tail: str) -> None:
    path = f"/v1/{tail}"
    if may_pass(path.encode()):
        url = Target.of("http://host/v1").of_request(path, "")
        assert url == f"http://host{path}"
        assert not {"..", "."} & set(httpx.URL(url).path.split("/"))


def test_queries_are_merged() -> None:
    assert merged("", "v=1") == "v=1"
    assert merged("a=%20", "v=1&a=2") == "a=%20&v=1"


# Headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_headers_pass_that_both_sides_need_and_no_others(behind: Any, path: str) -> None:
    mirror, running = behind
    theirs = {
        "x-request-id": "req_1",
        "x-ratelimit-remaining-requests": "7",
        "retry-after": "3",
        "retry-after-ms": "3100",
        "x-should-retry": "false",
        "openai-processing-ms": "12",
    }
    hidden = {"set-cookie": "a=b", "server": "x", "x-internal": "y", "keep-alive": "timeout=5", "location": "http://x"}
    mirror.status = 429
    mirror.headers = [(name.encode(), value.encode()) for name, value in (theirs | hidden).items()]
    ours = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "openai-beta": "assistants=v2",
        "idempotency-key": "k1",
        "x-client-request-id": "c1",
    }
    stopped = {
        "cookie": "a=b",
        "x-forwarded-for": "1.2.3.4",
        "te": "trailers",
        "openai-organization": "org",
        "x-any": "1",
    }
    answer = running.client_kept.post(path, json={"messages": HELLO}, headers=ours | stopped)
    assert answer.status_code == 429
    assert {name: answer.headers.get(name) for name in theirs} == theirs
    assert not set(hidden) & set(answer.headers)
    sent = mirror.seen[0]["headers"]
    assert {name: sent.get(name) for name in ours} == ours
    assert not {*stopped, "authorization"} & set(sent)


# Loops and addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:8088/v1", "own address"),
        ("http://localhost:8088", "own address"),
        ("http://0.0.0.0:8088/v1?a=b", "own address"),
        ("https://me:secret@host/v1", "accepted: https://host/v1"),
        ("http://host/v1#x", "accepted: http://host/v1"),
        ("http://host/v1/chat/completions?api-version=1", r"accepted: http://host/v1\?api-version=1"),
        ("http://:80/v1", "accepted: http://"),
        ("http://host:port/v1", "accepted: http://"),
    ],
)
def test_an_address_that_cannot_be_the_incumbents_is_refused_at_the_start(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as found:
        check(DeployConfig(incumbent=IncumbentConfig(url=url)))
    assert "secret" not in str(found.value)
    check(DeployConfig(incumbent=IncumbentConfig(url="http://127.0.0.1:8089/v1?api-version=1")))


def test_a_circle_of_deployments_is_broken(kit: Any, tmp_path: Path) -> None:
    ports = [kit.free_port(), kit.free_port()]
    configs = [
        replace(kit.config_for(f"http://127.0.0.1:{ports[1 - place]}/v1"), server=ServerConfig(port=ports[place]))
        for place in (0, 1)
    ]
    with kit.serve(configs[0], tmp_path / "a") as one, kit.serve(configs[1], tmp_path / "b") as two:
        for running, other in ((one, two), (two, one)):  # each has the other's key
            running.deployment.upstream._session.headers["authorization"] = other.auth()["authorization"]
        found = one.ask(1)
        assert (found.status_code, found.json()["error"]["code"]) == (508, "loop")


def test_a_server_that_others_reach_without_tls_is_warned_about() -> None:
    assert plain_http_warning("127.0.0.1", None) is None
    assert plain_http_warning("localhost", None) is None
    assert "without TLS" in (plain_http_warning("0.0.0.0", None) or "")
    assert plain_http_warning("0.0.0.0", "cert.pem") is None
    with pytest.raises(ConfigError, match=r"server\.keyfile"):
        check(DeployConfig(server=ServerConfig(certfile="cert.pem")))


# A learner that stops answering; whose answers are whose -------------------------------------------------------------


def test_a_learner_that_missed_a_deadline_is_out_until_it_answers_again(kit: Any, behind: Any, tmp_path: Path) -> None:
    _, other = behind
    config = kit.config_for(
        other.deployment.config.incumbent.url, learner=LearnerConfig(deadline_seconds=0.3, shadow_deadline_seconds=0.3)
    )
    learner = ScriptedLearner(lambda _: ("2", 0.9))
    with kit.serve(config, tmp_path, learner) as running, running.client() as running.client_kept:
        kit.wait_for(lambda: running.deployment.state.checkpoint)
        running.deployment.change("test", "person:test", LIVE, "for a test")
        assert who(running) == "scripted"
        learner.seconds = 60.0
        assert [who(running) for _ in range(10)] == ["big"] * 10
        kit.wait_for(lambda: running.deployment.attendance._task is not None)
        assert running.deployment.attendance.missed == 1  # nine users did not wait
        assert running.client_kept.get("/healthz").json()["learner"] == "not answering"
        learner.seconds = 0.0
        kit.wait_for(lambda: not running.deployment.attendance.out)
        assert who(running) == "scripted"
        assert running.client_kept.get("/healthz").json()["learner"] == "ready"


def test_the_owner_of_a_new_key_may_speak_of_older_answers_and_nobody_else(behind: Any, kit: Any) -> None:
    _, running = behind
    deployment = running.deployment

    def made(name: str) -> tuple[str, dict[str, str]]:
        with writing(deployment.engine) as connection:
            key, secret = create(connection, deployment.audit_key, name, "user", actor="person:test")
        kit.wait_for(lambda: any(one.id == key.id for one in deployment.gatekeeper.keys.values()))
        return key.id, {"authorization": f"Bearer {secret}"}

    (old, first), (_, second), (_, stranger) = made("ann"), made("ann"), made("bob")
    asked = httpx.post(f"{running.url}/v1/chat/completions", json={"model": "big", "messages": HELLO}, headers=first)
    identity = asked.headers["x-foretaste-id"]
    with writing(deployment.engine) as connection:
        revoke(connection, deployment.audit_key, old, actor="person:test")
    kit.wait_for(lambda: all(one.id != old for one in deployment.gatekeeper.keys.values()))
    running.flush()

    def say(headers: dict[str, str], **what: Any) -> int:
        body = {"response_id": identity, **what}
        return httpx.post(f"{running.url}/v1/feedback", json=body, headers=headers).status_code

    assert [say(headers, thumbs="up") for headers in (first, stranger, second)] == [401, 404, 200]
    assert [say(second, correction=text) for text in ("", "  \n")] == [400, 400]
