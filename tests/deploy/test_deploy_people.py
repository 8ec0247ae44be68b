"""People as a judge, over HTTP: which checks they are shown, what their words do, and what they cannot see."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from foretaste.deploy import evidence
from foretaste.deploy.database import reading
from foretaste.deploy.learner import ScriptedLearner
from foretaste.deploy.promise.statement import promise_of
from foretaste.deploy.settings import TakeoverConfig
from foretaste.deploy.store import UNDECIDED
from foretaste.deploy.tables import answers, judgements, requests


def half_right(messages: list[dict[str, Any]]) -> tuple[str, float]:
    """Right about even numbers; sure of small ones."""
    number = int(messages[-1]["content"])
    return str(number + 1 + number % 2), 0.9 if number < 10 else 0.1


def rows(running: Any, query: Any) -> list[Any]:
    running.flush()
    with reading(running.deployment.engine) as connection:
        return list(connection.execute(query))


def ask(running: Any, kit: Any, count: int) -> None:
    """Ask so many questions, and wait until the learner's answers to all of them are on disk."""
    kit.wait_for(lambda: running.deployment.state.checkpoint)
    for number in range(count):
        assert running.ask(number).status_code == 200
    learners = sa.select(answers.c.number).where(answers.c.role == "learner")
    kit.wait_for(lambda: len(rows(running, learners)) == count)


def configured(kit: Any, incumbent: Any, **takeover: Any) -> Any:
    return kit.config_for(incumbent.url, takeover=TakeoverConfig(every_seconds=0.05, **takeover))


def test_people_judge_a_random_part_of_the_checks(kit: Any, incumbent: Any, tmp_path: Any) -> None:
    config = configured(kit, incumbent, second_judge="person", second_share=0.5)
    with kit.serve(config, tmp_path, ScriptedLearner(half_right)) as running, running.client("person") as person:
        ask(running, kit, 24)
        drawn = [row.id for row in rows(running, sa.select(requests).order_by(requests.c.number)) if row.second]
        of_request = dict(
            map(tuple, rows(running, sa.select(answers.c.request, answers.c.number).where(answers.c.role == "learner")))
        )
        found = person.get("/people/checks").json()
        assert 3 <= len(found) < 24
        assert [one["answer"] for one in found] == [of_request[identity] for identity in drawn]  # oldest first
        assert {tuple(sorted(one)) for one in found} == {("answer", "messages", "text")}  # no V, no route, no judge
        for one, verdict in zip(found[:3], ("right", "wrong", "cannot_tell"), strict=True):
            given = {"answer": one["answer"], "verdict": verdict}
            assert person.post("/people/judgements", json=given).json() == {"done": "judged"}
            again = person.post("/people/judgements", json=given | {"verdict": "right"})
            assert (again.status_code, again.json()["error"]["code"]) == (404, "not_waiting")
        assert person.get("/people/checks").json() == found[3:]
        said = sa.select(judgements.c.answer, judgements.c.judge, judgements.c.score)
        by_people = rows(running, said.where(judgements.c.judge.in_(("person", UNDECIDED))))
        first, second, third = (one["answer"] for one in found[:3])
        assert sorted(map(tuple, by_people)) == [
            (first, "person", 1.0),
            (second, "person", 0.0),
            (third, UNDECIDED, 0.5),
        ]

        promise, state = promise_of(config), running.deployment.state
        with reading(running.deployment.engine) as connection:
            mature = evidence.Mature.of(connection, promise, running.deployment.now())
            kept = evidence.judged_answers(
                connection,
                state.checkpoint,
                promise,
                mature,
                fresh_from=0,
                newest=100,
                value="request",
                correct_from=0.5,
            )
        assert [one.second for one in kept if one.asked] == [True, False, *[None] * (len(found) - 2)]

        not_drawn = next(number for identity, number in of_request.items() if identity not in drawn)
        assert person.post("/people/judgements", json={"answer": not_drawn, "verdict": "wrong"}).status_code == 404
        with running.client("user") as user:
            assert user.get("/people/checks").status_code == 403
            given = {"answer": found[3]["answer"], "verdict": "wrong"}
            assert user.post("/people/judgements", json=given).status_code == 403


def test_people_as_the_only_judge_see_every_check_and_nothing_else(kit: Any, incumbent: Any, tmp_path: Any) -> None:
    config = configured(kit, incumbent, judge="person", comparator="none", check_share=0.4)
    with kit.serve(config, tmp_path, ScriptedLearner(half_right)) as running, running.client("person") as person:
        kit.wait_for(lambda: running.deployment.state.checkpoint)
        live = {"stage": "live", "share": 1.0, "tau": 0.5, "held": True, "looked": 10**9}
        running.deployment.change("test", "person:test", live, "for a test")
        ask(running, kit, 20)
        checked = {row.id for row in rows(running, sa.select(requests)) if row.sampled}
        found = person.get("/people/checks").json()
        shown = sa.select(answers.c.request).where(answers.c.number.in_([one["answer"] for one in found]))
        assert {row.request for row in rows(running, shown)} == checked
        assert 0 < len(checked) < 20
        running.deployment.change("test", "person:test", {"fresh_from": 10**6}, "for a test")
        assert person.get("/people/checks").json() == []  # from before a breach: it decides nothing


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"answer": 1, "verdict": "perhaps"}, "no_verdict"),
        ({"answer": True, "verdict": "right"}, "no_answer"),
        ({"answer": 2**63, "verdict": "right"}, "no_answer"),
        ({"verdict": "right"}, "no_answer"),
        ({"answer": 1, "verdict": ["right"]}, "no_verdict"),
    ],
)
def test_what_is_no_judgement_is_refused(plain: Any, given: dict[str, Any], code: str) -> None:
    with plain.client("person") as person:
        answer = person.post("/people/judgements", json=given)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_where_no_person_judges_no_check_is_shown(plain: Any, kit: Any) -> None:
    ask(plain, kit, 2)
    with plain.client("person") as person:
        assert person.get("/people/checks").json() == []
        number = rows(plain, sa.select(answers.c.number).where(answers.c.role == "learner"))[0].number
        answer = person.post("/people/judgements", json={"answer": number, "verdict": "right"})
    assert answer.json()["error"]["code"] == "not_waiting"


@pytest.fixture(scope="module")
def plain(incumbent: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from deploy_helpers import config_for, serve

    with serve(config_for(incumbent.url), tmp_path_factory.mktemp("plain"), ScriptedLearner(half_right)) as found:
        yield found
