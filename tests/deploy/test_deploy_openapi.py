"""The server holds to its own OpenAPI document, and no request that fits it or not is answered with a 500."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from foretaste.deploy.openapi import document
from foretaste.deploy.settings import ServerConfig

CALLS = [(path, method) for path, item in document()["paths"].items() for method in item if method in ("get", "post")]


@pytest.fixture(scope="module")
def running(incumbent: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from deploy_helpers import config_for, free_port, serve

    server = ServerConfig(port=free_port(), requests_per_minute=1_000_000)
    with serve(config_for(incumbent.url, server=server), tmp_path_factory.mktemp("openapi")) as found:
        yield found


@pytest.fixture(scope="module")
def schema(running: Any) -> Any:
    import schemathesis  # here, since it takes a second and every worker imports this file
    from schemathesis.config import SchemathesisConfig

    served = httpx.get(f"{running.url}/openapi.json").json()
    assert served == document()
    return schemathesis.openapi.from_dict(served, config=SchemathesisConfig())


def scope_of(path: str) -> str:
    return "admin" if path.startswith("/admin") else "person" if path.startswith("/people") else "user"


@pytest.mark.parametrize(("path", "method"), CALLS)
def test_no_request_is_answered_with_a_fault(schema: Any, running: Any, incumbent: Any, path: str, method: str) -> None:
    from schemathesis import GenerationMode

    operation = schema[path][method]
    documented = set(document()["paths"][path][method]["responses"])

    @settings(
        max_examples=12, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None
    )
    @given(case=st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)))
    def fuzz(case: Any) -> None:
        answer = case.call(base_url=running.url, headers=running.auth(scope_of(path)))
        if answer.status_code in (404, 405) and "http_" in answer.text:
            return  # the case left this path
        assert answer.status_code < 500 or answer.status_code in (502, 504), (answer.status_code, answer.text)
        assert str(answer.status_code) in documented, (answer.status_code, answer.text)

    if path == "/admin/{action}":
        return  # see below: fuzzing it would pull the kill switch
    fuzz()


@pytest.mark.parametrize("name", ["nothing", "%00", "..", "hold%0d%0a", "KILL"])
def test_unknown_actions_do_nothing(running: Any, name: str) -> None:
    with running.client("admin") as client:
        assert client.post(f"/admin/{name}").status_code in (404, 405)
    assert not running.deployment.killed
