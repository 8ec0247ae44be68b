"""The store: what is judged by what, keys at rest, retention, export, and the same on a real PostgreSQL server."""

from __future__ import annotations

import json
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from foretaste.deploy import audit, store
from foretaste.deploy import reading as readings
from foretaste.deploy.database import open_engine, reading, writing
from foretaste.deploy.figures import of_store
from foretaste.deploy.judging import exact, same_json
from foretaste.deploy.offline import Offline
from foretaste.deploy.operations.retention import retain
from foretaste.deploy.records import Answer, Exchange, Feedback, LateAnswer, LearnerAnswer
from foretaste.deploy.tables import (
    MIGRATIONS,
    answers,
    checkpoints,
    digests,
    head,
    judgements,
    meta,
    metadata,
    migrate,
    requests,
)
from foretaste.deploy.tables import state as states
from foretaste.deploy.writer import Writer
from foretaste.errors import ConfigError


def learner_says(text: str, *, served: bool = False, **more: Any) -> Answer:
    return Answer("learner", served, 0.1, learner=LearnerAnswer(text, "c", 0.5, 0.6, 3, 2), **more)


def exchange(identity: str, *found: Answer, key: str = "k") -> Exchange:
    made = Exchange(identity, key, b'{"messages": [{"role": "user", "content": "hi"}]}', "shadow", False)
    made.route, made.status, made.answers = "incumbent", 200, list(found)
    return made


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty store on each of the two databases."""
    url = request.getfixturevalue("postgres").url if request.param == "postgresql" else tmp_path
    opened = open_engine(url)
    yield opened
    with writing(opened) as connection:
        metadata.drop_all(connection)
    opened.dispose()


@pytest.fixture
def writer(engine: sa.Engine) -> Iterator[Writer]:
    opened = Writer(engine, queue=1000, flush_seconds=0.01, compare=exact, judging=True)
    yield opened
    opened.close()


def scores(engine: sa.Engine, writer: Writer) -> dict[tuple[str, str], Any]:
    writer.submit(lambda _: None).result(10)
    with reading(engine) as connection:
        rows = connection.execute(sa.select(answers).order_by(answers.c.number))
        return {(row.request, row.role): (row.score, row.judge) for row in rows}


def test_the_learner_is_judged_by_the_incumbent_in_any_order(engine: sa.Engine, writer: Writer) -> None:
    right = Answer("incumbent", True, 0.1, text="Yes ")
    writer.put(exchange("together", right, learner_says(" yes")))
    writer.put(LateAnswer("early", learner_says("no")))
    writer.put(exchange("early", Answer("incumbent", True, 0.1, text="yes")))
    writer.put(exchange("late", Answer("incumbent", True, 0.1, text="yes")))
    writer.put(LateAnswer("late", learner_says("YES")))
    writer.put(exchange("verified", Answer("incumbent", True, 0.1, text="yes"), learner_says("no", verdict=0.7)))
    found = scores(engine, writer)
    assert found["together", "learner"] == (1.0, "comparator")
    assert found["early", "learner"] == (0.0, "comparator")
    assert found["late", "learner"] == (1.0, "comparator")
    assert found["verified", "learner"] == (0.7, "verifier")
    with reading(engine) as connection:
        judged = sorted(connection.scalars(sa.select(answers.c.judged).where(answers.c.judged.is_not(None))))
    assert judged == [1, 2, 3, 4]


def test_feedback_judges_the_answer_that_was_given_and_what_follows_for_the_other(
    engine: sa.Engine, writer: Writer
) -> None:
    def give(response: str, kind: str, score: float | None, text: str | None = None) -> store.Accepted:
        given = Feedback(response, "k", kind, score, text)
        return writer.submit(lambda c: store.write_feedback(c, given, exact, correct_from=0.5)).result(10)

    for identity in ("agrees", "differs", "good", "corrected"):
        says = "yes" if identity == "agrees" else "no"
        writer.put(exchange(identity, Answer("incumbent", True, 0.1, text="yes"), learner_says(says)))
    writer.put(exchange("served", learner_says("yes", served=True)))
    assert give("agrees", "score", 0.0) == ("agrees", "incumbent")
    give("differs", "thumbs", 0.0)
    give("good", "thumbs", 1.0)
    give("corrected", "correction", None, "No")
    assert give("served", "score", 0.25).judged == "learner"
    found = scores(engine, writer)
    assert found["agrees", "learner"] == (0.0, "user")  # the same answer, and it was wrong
    assert found["differs", "learner"] == (None, None)  # the incumbent was wrong; the learner may have been right
    assert found["good", "learner"] == (0.0, "comparator")
    assert found["corrected", "learner"] == (1.0, "user")
    assert found["corrected", "incumbent"] == (0.0, "user")
    assert found["served", "learner"] == (0.25, "user")
    with pytest.raises(store.FeedbackRefused, match="counts once"):
        give("served", "score", 0.25)
    give("served", "score", 0.5)
    with pytest.raises(store.FeedbackRefused, match="no response"):
        give("nobody's", "score", 0.5)
    assert writer.healthy


def test_feedback_before_a_silent_answer_judges_it_as_feedback_after_it(engine: sa.Engine, writer: Writer) -> None:
    given = {
        "agrees": [("thumbs", 0.0, None)],
        "differs": [("thumbs", 0.0, None)],
        "good": [("thumbs", 1.0, None)],
        "doubted": [("score", 0.7, None)],
        "corrected": [("correction", None, "No")],
        "first": [("correction", None, "maybe"), ("correction", None, "no")],
    }
    for order in ("before", "after"):
        for name, feedbacks in given.items():
            identity = f"{name} {order}"
            silent = LateAnswer(identity, learner_says("yes" if name in ("agrees", "doubted") else "no"))
            writer.put(exchange(identity, Answer("incumbent", True, 0.1, text="yes")))
            if order == "after":
                writer.put(silent)
            for kind, score, text in feedbacks:
                said = Feedback(identity, "k", kind, score, text)
                writer.submit(lambda c, said=said: store.write_feedback(c, said, exact, correct_from=0.5)).result(10)
            if order == "before":
                writer.put(silent)
    found = scores(engine, writer)
    before, after = ({name: found[f"{name} {order}", "learner"] for name in given} for order in ("before", "after"))
    assert before == {
        "agrees": (0.0, "user"),
        "differs": (None, None),
        "good": (0.0, "comparator"),
        "doubted": (0.7, "user"),
        "corrected": (1.0, "user"),
        "first": (1.0, "user"),
    }
    assert after == before


def test_text_that_a_database_cannot_hold_is_kept_as_far_as_it_can_be(engine: sa.Engine, writer: Writer) -> None:
    writer.put(exchange("odd", Answer("incumbent", True, 0.1, text="nul \x00 lone \ud800 end")))
    scores(engine, writer)
    with reading(engine) as connection:
        assert connection.scalar(sa.select(answers.c.text)) == "nul \ufffd lone ? end"
    assert (writer.dropped, writer.written) == (0, 2)


def test_a_record_that_the_database_refuses_does_not_hold_the_others_up(engine: sa.Engine, writer: Writer) -> None:
    writer.put(exchange("one"))
    scores(engine, writer)
    for identity in ("two", "one", "three"):
        writer.put(exchange(identity))
    end = time.monotonic() + 10
    while writer.dropped == 0 and time.monotonic() < end:
        time.sleep(0.01)
    scores(engine, writer)
    with reading(engine) as connection:
        assert sorted(connection.scalars(sa.select(requests.c.id))) == ["one", "three", "two"]
    assert (writer.dropped, writer.healthy) == (1, True)


def test_feedback_that_nobody_waits_for_any_more_leaves_the_writer_alive(engine: sa.Engine, writer: Writer) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []

    def blocked(_: sa.Connection) -> str:
        begun.set()
        assert go_on.wait(10)
        return "late"

    running = writer.submit(blocked)
    assert begun.wait(10)
    waiting = writer.submit(lambda _: done.append("a feedback that was given up"))
    assert (waiting.cancel(), running.cancel()) == (True, False)  # what is being written stays
    go_on.set()
    assert running.result(10) == "late"
    writer.put(exchange("after"))
    scores(engine, writer)
    with reading(engine) as connection:
        assert list(connection.scalars(sa.select(requests.c.id))) == ["after"]
    assert (done, writer.healthy) == ([], True)


def test_a_fault_of_the_writer_itself_is_told_and_does_not_end_it(
    engine: sa.Engine, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(writer, "_commit", lambda batch: 1 / 0)
        writer.put(exchange("lost"))
        end = time.monotonic() + 10
        while writer.healthy and time.monotonic() < end:
            time.sleep(0.01)
        assert not writer.healthy
    writer.put(exchange("after"))
    scores(engine, writer)
    assert writer.healthy


def test_an_existing_store_is_brought_up_to_date(engine: sa.Engine, writer: Writer) -> None:
    writer.put(exchange("one", Answer("incumbent", True, 0.1, text="yes"), learner_says("yes")))
    writer.put(exchange("two", Answer("incumbent", True, 0.1, text="yes"), learner_says("yes")))
    scores(engine, writer)
    for since, expected in ((0, 2), (7, 7)):  # 7: by what the state remembers, requests have been deleted
        with writing(engine) as connection:
            connection.execute(meta.delete().where(meta.c.name != "version"))
            connection.execute(meta.update().values(value="1"))
            connection.execute(sa.text("DROP INDEX deploy_answers_by_time"))
            connection.execute(states.delete())
            connection.execute(states.insert().values(name="since", value=str(since), event=1))
            assert migrate(connection) == (1, len(MIGRATIONS) + 1)
            assert (store.requests_seen(connection), store.judgements_made(connection)) == (expected, 2)
    assert "deploy_answers_by_time" in {one["name"] for one in sa.inspect(engine).get_indexes("deploy_answers")}


def test_a_store_of_version_3_keeps_what_its_judges_said(engine: sa.Engine, writer: Writer) -> None:
    writer.put(exchange("compared", Answer("incumbent", True, 0.1, text="yes"), learner_says("no")))
    writer.put(exchange("verified", learner_says("yes", served=True, verdict=0.75)))
    writer.put(exchange("volunteered", learner_says("yes", served=True)))
    scores(engine, writer)
    with writing(engine) as connection:
        given = Feedback("volunteered", "k", "thumbs", 1.0)
        store.write_feedback(connection, given, exact, correct_from=0.5)
        for table in (judgements, digests):
            table.drop(connection)
        for column in ("check_share", "second"):
            connection.execute(sa.text(f"ALTER TABLE deploy_requests DROP COLUMN {column}"))
        connection.execute(meta.update().where(meta.c.name == "version").values(value="3"))
        assert migrate(connection) == (3, len(MIGRATIONS) + 1)
        said = sa.select(answers.c.request, judgements.c.judge, judgements.c.score).join(
            judgements, judgements.c.answer == answers.c.number
        )
        found = {row.request: (row.judge, row.score) for row in connection.execute(said)}
        kept = connection.execute(sa.select(requests.c.check_share, requests.c.second)).all()
    assert found == {"compared": ("comparator", 0.0), "verified": ("verifier", 0.75)}  # no word of a user
    assert kept == [(None, None)] * 3
    writer.put(exchange("after", Answer("incumbent", True, 0.1, text="yes"), learner_says("yes")))
    assert scores(engine, writer)["after", "learner"] == (1.0, "comparator")


def test_numbers_go_on_when_all_that_had_one_was_deleted(engine: sa.Engine, writer: Writer) -> None:
    def numbers() -> tuple[list[int], list[int]]:
        scores(engine, writer)
        with reading(engine) as connection:
            judged = sa.select(answers.c.judged).where(answers.c.judged.is_not(None)).order_by(answers.c.judged)
            return list(connection.scalars(sa.select(requests.c.number))), list(connection.scalars(judged))

    right = Answer("incumbent", True, 0.1, text="yes")
    for identity in ("one", "two"):
        writer.put(exchange(identity, right, learner_says("yes")))
    assert numbers() == ([1, 2], [1, 2])
    retain(engine, b"key", time.time() + 10)
    with writing(engine) as connection:
        assert store.requests_seen(connection) == 2
    writer.put(exchange("three", right, learner_says("yes")))
    assert numbers() == ([3], [3])
    feedback = Feedback("three", "k", "thumbs", 0.0)
    with writing(engine) as connection:  # the incumbent was wrong: the learner's judgement is taken back
        connection.execute(answers.update().where(answers.c.role == "learner").values(score=0.0))
        store.write_feedback(connection, feedback, exact, correct_from=0.5)
    writer.put(exchange("four", learner_says("yes", verdict=1.0)))
    assert numbers() == ([3, 4], [4, 5])


def test_a_record_that_cannot_be_judged_holds_nothing_up(engine: sa.Engine) -> None:
    def compare(one: str, other: str) -> float:
        return float(json.loads(one) == json.loads(other))  # unlike `same_json` it fails where the nesting is too deep

    writer = Writer(engine, queue=1000, flush_seconds=60.0, compare=compare, judging=True)
    for identity, text in (("one", "1"), ("deep", "[" * 100_000), ("two", "1")):
        writer.put(exchange(identity, Answer("incumbent", True, 0.1, text=text), learner_says("1")))
    assert writer.submit(lambda _: "feedback").result(10) == "feedback"  # of the same batch
    found = scores(engine, writer)
    assert sorted(identity for identity, role in found if role == "learner") == ["one", "two"]
    assert (writer.dropped, writer.healthy, writer.waiting) == (1, True, 0)
    writer.close()


def test_old_records_go_and_the_audit_log_stays(engine: sa.Engine, writer: Writer) -> None:
    old, new = exchange("old", learner_says("x")), exchange("new", learner_says("x"))
    old.created -= 1000
    writer.put(old)
    writer.put(new)
    scores(engine, writer)
    with writing(engine) as connection:
        audit.append(connection, b"key", "x", "x", {})
    assert retain(engine, b"key", time.time() - 500) == 1
    with reading(engine) as connection:
        assert list(connection.scalars(sa.select(requests.c.id))) == ["new"]
        assert list(connection.scalars(sa.select(answers.c.request))) == ["new"]
        assert [one.kind for one in audit.entries(connection, newest=9)] == ["x", "retention"]
        assert connection.scalar(sa.select(head.c.id)) == 1
        assert connection.scalar(sa.select(meta.c.value).where(meta.c.name == "version")) == str(len(MIGRATIONS) + 1)
        assert list(connection.execute(sa.select(checkpoints))) == []


def test_figures_are_counted_over_the_newest_requests(engine: sa.Engine, writer: Writer) -> None:
    for place in range(120):
        served = place >= 60
        mine = learner_says("yes" if place % 4 else "no", served=served)
        made = exchange(f"r{place}", *([mine] if served else [Answer("incumbent", True, 0.1, text="yes"), mine]))
        made.route, made.reason = ("learner", "") if served else ("incumbent", "shadow")
        writer.put(made)
    scores(engine, writer)
    with reading(engine) as connection:
        found = of_store(connection, 0.5)
    assert (found["requests"], found["window"], found["served_share"]) == (120, 120, 0.5)
    assert (found["routes"], found["reasons"]) == ({"incumbent": 60, "learner": 60}, {"shadow": 60})
    assert found["incumbent_tokens_saved"] == 120
    assert (found["silent"]["n"], found["silent"]["mean"], found["served"]) == (60, 0.75, None)
    assert [(one["n"], one["mean_value"], one["mean_outcome"]) for one in found["calibration"]] == [(60, 0.5, 0.75)]
    assert [point["served_share"] for point in found["curve"]] == [0.0] * 20 + [1.0] * 20
    assert found["curve"][0]["request"] == 3


def test_too_many_waiting_records_are_left_out_and_counted(tmp_path: Path) -> None:
    opened = open_engine(tmp_path)
    writer = Writer(opened, queue=3, flush_seconds=5.0, compare=exact, judging=True)
    taken = [writer.put(exchange(str(place))) for place in range(5)]
    assert (taken, writer.dropped) == ([True] * 3 + [False] * 2, 2)
    writer.close()
    assert writer.written == 3
    opened.dispose()


def test_export_holds_everything_and_is_the_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "deploy.toml").write_text("", encoding="utf-8")
    with Offline.open(tmp_path / "deploy.toml") as offline:
        _, secret = offline.create_key("ada", "user")
        writer = Writer(offline.engine, queue=100, flush_seconds=0.01, compare=exact, judging=True)
        writer.put(exchange("one", Answer("incumbent", True, 0.1, text="yes"), learner_says("no")))
        writer.submit(
            lambda c: store.write_feedback(c, Feedback("one", "k", "score", 1.0), exact, correct_from=0.5)
        ).result(10)
        writer.close()
        assert offline.export(tmp_path / "out.jsonl") == 1
        line = json.loads((tmp_path / "out.jsonl").read_text())
        assert [answer["text"] for answer in line["answers"]] == ["yes", "no"]
        assert line["feedback"][0]["score"] == 1.0
        for file in ("out.jsonl", "deployment/audit.key"):
            assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600
    for file in (tmp_path / "deployment").iterdir():
        assert secret.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"choices": []}', b'{"choices": [5]}', b"[" * 100_000, b"\xff", b'{"choices": {}}']
)
def test_nothing_an_endpoint_sends_can_break_the_reading(body: bytes) -> None:
    for kind in ("application/json", "text/event-stream"):
        assert readings.read(body, kind).text is None
        assert readings.read(b"data: " + body + b"\n\n", kind).text in (None, "")
        assert readings.read(body, kind, "gzip") == readings.NOTHING


def test_comparators() -> None:
    assert (exact(" A  b", "a B"), exact("a", "b")) == (1.0, 0.0)
    assert same_json('{"a": 1, "b": 2}', '```json\n{"b": 2, "a": 1}\n```') == 1.0
    assert (same_json("no", "{}"), same_json("{}", "no")) == (0.0, None)
    deep = "[" * 100_000 + "]" * 100_000
    assert (same_json(deep, "{}"), same_json("{}", deep)) == (0.0, None)
    from foretaste.deploy.judging import comparator

    with pytest.raises(ConfigError, match="Did you mean 'exact'"):
        comparator("exakt")
    with pytest.raises(ConfigError, match="cannot be found"):
        comparator("no_such_module:f")
    failing = comparator("operator:truediv")
    assert failing is not None
    assert failing("a", "b") is None
