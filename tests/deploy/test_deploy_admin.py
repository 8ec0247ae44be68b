"""The admin's page and the people's page in a real Chromium, and what their buttons do."""

from __future__ import annotations

import importlib.util
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from foretaste.deploy import audit
from foretaste.deploy.database import reading
from foretaste.deploy.learner import ScriptedLearner
from foretaste.deploy.records import Answer, Exchange, LateAnswer, LearnerAnswer
from foretaste.deploy.settings import IncumbentConfig, TakeoverConfig
from foretaste.deploy.tables import judgements

HOSTILE = "<script>window.hostile = 1</script><img src=x onerror='window.hostile = 2'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The browser of the report's tests, for pages with an address."""
    place = Path(__file__).parents[1] / "report" / "conftest.py"
    spec = importlib.util.spec_from_file_location("report_browser", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    opened = module.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def go(browser: Any, url: str, *, width: int = 1280, dark: bool = False) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.call("Emulation.setEmulatedMedia", features=[scheme])
    browser.events.clear()
    browser.call("Page.navigate", url=url)
    while not any(event.get("method") == "Page.loadEventFired" for event in browser.events):
        browser.events.append(browser._read())


def sign_in(browser: Any, secret: str) -> None:
    script = f"document.getElementById('secret').value = {secret!r}; document.querySelector('#form button').click()"
    browser.run(script)


def complaints(browser: Any, url: str) -> list[str]:
    """Return what the page complained of, and requests to other places than the server."""
    return [one for one in browser.problems() if not one.startswith(f"request: {url}/")]


def fill(running: Any, count: int = 400) -> None:
    """Write requests as a learner that became better would have left them."""
    rng = random.Random(3)
    for place in range(count):
        skill = 0.3 + 0.6 * place / count
        value = min(0.98, max(0.02, rng.gauss(skill, 0.2)))
        right = rng.random() < value
        served = place > count / 2 and value > 0.7
        text = "right" if right else HOSTILE
        trace = {"prompt": [1], "tokens": [1] * 12, "logprobs": [], "values": [value + 0.02 * i for i in range(12)]}
        learner = LearnerAnswer(text, "c" * 64, value, value, 10, 12, False, 0.05, trace)
        question = f"question {place} {HOSTILE}"
        body = json.dumps({"messages": [{"role": "user", "content": question}]}).encode()
        exchange = Exchange(f"r{place}", "k", body, "canary" if served else "shadow", False, drawn=served, sampled=True)
        exchange.route, exchange.status, exchange.seconds = "learner" if served else "incumbent", 200, 0.05
        exchange.reason = "" if served else "not_drawn"
        mine = Answer("learner", served, 0.05, learner=learner)
        exchange.answers = [mine] if served else [Answer("incumbent", True, 0.2, text="right"), mine]
        running.deployment.writer.put(exchange)
        if served:
            running.deployment.writer.put(LateAnswer(f"r{place}", Answer("incumbent", False, 0.2, text="right")))
    running.flush()


@pytest.fixture(scope="module")
def running(incumbent: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from deploy_helpers import config_for, echo, serve, wait_for

    with serve(config_for(incumbent.url), tmp_path_factory.mktemp("admin"), ScriptedLearner(echo)) as found:
        wait_for(lambda: found.deployment.state.checkpoint)
        fill(found)
        yield found


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_admins_page_shows_the_deployment(
    browser: Any, running: Any, kit: Any, tmp_path: Path, width: int, dark: bool
) -> None:
    browser.run("sessionStorage.clear()") if running.url in browser.run("location.href") else None
    go(browser, f"{running.url}/admin", width=width, dark=dark)
    assert browser.run("document.getElementById('all').hidden")
    sign_in(browser, running.secrets["admin"])
    kit.wait_for(lambda: browser.run("document.querySelectorAll('#tiles dd').length") == 16)
    text = browser.run("document.body.innerText")
    for words in ("shadow", "Served by the learner", "Right where served", "Deferred", "Saved", "Audit log"):
        assert words in text
    assert browser.run("document.querySelectorAll('#curve path').length") == 3
    assert browser.run("document.querySelectorAll('#calibration circle').length") >= 5
    browser.run("document.querySelectorAll('#episodes details').forEach(one => one.open = true)")
    assert browser.run("document.querySelectorAll('.trace i').length") >= 12
    assert "<script>" in browser.run("document.getElementById('episodes').innerText")
    assert browser.run("typeof window.hostile") == "undefined"
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert complaints(browser, running.url) == []
    browser.run("document.querySelectorAll('#episodes details').forEach((one, i) => one.open = i === 0)")
    browser.screenshot(tmp_path / "admin.png")
    assert (tmp_path / "admin.png").stat().st_size > 40_000


def test_the_buttons_change_the_state_and_leave_a_trace(browser: Any, running: Any, kit: Any) -> None:
    go(browser, f"{running.url}/admin")
    sign_in(browser, running.secrets["admin"])
    deployment = running.deployment
    kit.wait_for(lambda: browser.run("!!document.getElementById('do-hold')"))
    browser.point("#do-hold", click=True)
    kit.wait_for(lambda: deployment.state.held)
    kit.wait_for(lambda: browser.run("!!document.getElementById('do-release')"))
    browser.point("#do-promote", click=True)
    assert deployment.state.stage == "shadow"  # pressed once: nothing yet
    browser.point("#do-promote", click=True)
    kit.wait_for(lambda: deployment.state.stage == "canary")
    kit.wait_for(lambda: browser.run("document.getElementById('stage').textContent") == "canary")
    for _ in range(2):
        browser.point("#do-rollback", click=True)
    kit.wait_for(lambda: deployment.state.stage == "shadow")
    for _ in range(2):
        browser.point("#do-kill", click=True)
    kit.wait_for(lambda: deployment.killed and deployment.learner.killed)
    kit.wait_for(lambda: browser.run("document.getElementById('stage').textContent") == "killed")
    kit.wait_for(lambda: deployment.state.killed)
    with reading(deployment.engine) as connection:
        log = [(one.kind, one.actor.split(":")[0]) for one in audit.entries(connection, newest=20)]
        audit.verify(connection, deployment.audit_key)
    for kind in ("hold", "promote", "rollback"):
        assert (kind, "key") in log


def test_a_wrong_key_shows_nothing(browser: Any, running: Any, kit: Any) -> None:
    go(browser, f"{running.url}/admin")
    browser.run("sessionStorage.clear()")
    go(browser, f"{running.url}/admin")
    sign_in(browser, running.secrets["user"])
    kit.wait_for(lambda: "scope 'user' may not" in browser.run("document.getElementById('notes').innerText"))
    assert browser.run("document.getElementById('all').hidden")


def test_people_answer_where_they_are_the_incumbent(browser: Any, kit: Any, tmp_path: Path, incumbent: Any) -> None:
    config = replace(
        kit.config_for(incumbent.url), incumbent=IncumbentConfig(kind="person", person_timeout_seconds=8.0)
    )
    with kit.serve(config, tmp_path) as running:
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(running.ask(41)))
        asking.start()
        go(browser, f"{running.url}/people")
        sign_in(browser, running.secrets["person"])
        kit.wait_for(lambda: browser.run("document.querySelectorAll('textarea').length") == 1)
        assert "41" in browser.run("document.getElementById('questions').innerText")
        browser.run(
            "document.querySelector('textarea').value = 'forty-two'; document.querySelector('main button').click()"
        )
        asking.join(10)
        assert answers[0].json()["choices"][0]["message"]["content"] == "forty-two"
        assert answers[0].json()["model"] == "person"
        with running.client("person") as client:
            gone = client.post("/people/answers", json={"id": answers[0].json()["id"], "text": "late"})
        assert gone.status_code == 404
        assert complaints(browser, running.url) == []


def test_people_judge_checks_on_the_same_page(browser: Any, kit: Any, tmp_path: Path, incumbent: Any) -> None:
    takeover = TakeoverConfig(every_seconds=0.05, second_judge="person", second_share=1.0)
    config = kit.config_for(incumbent.url, takeover=takeover)
    with kit.serve(config, tmp_path, ScriptedLearner(kit.echo)) as running:
        kit.wait_for(lambda: running.deployment.state.checkpoint)
        for number in (41, 42, 43):
            running.ask(number)
        kit.wait_for(lambda: len(_checks(running)) == 3)
        go(browser, f"{running.url}/people")
        sign_in(browser, running.secrets["person"])
        kit.wait_for(lambda: browser.run("document.querySelectorAll('#checks section').length") == 3)
        shown = browser.run("document.querySelector('#checks section').innerText")
        assert "41" in shown
        assert "42" in shown
        assert browser.run("document.getElementById('questions-part').hidden")  # people answer nothing here
        browser.screenshot(tmp_path / "people.png")
        browser.run("document.querySelectorAll('#checks section button')[1].click()")
        kit.wait_for(lambda: len(_checks(running)) == 2)
        kit.wait_for(lambda: browser.run("document.querySelectorAll('#checks section').length") == 2)
        with reading(running.deployment.engine) as connection:
            said = sa.select(judgements.c.score).where(judgements.c.judge == "person")
            assert list(connection.scalars(said)) == [0.0]
        assert complaints(browser, running.url) == []


def _checks(running: Any) -> Any:
    with running.client("person") as client:
        return client.get("/people/checks").json()
