"""Feedback that nobody asked for, from the store to the decision: it starts nothing and takes nothing back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from foretaste.deploy import evidence, stages, store
from foretaste.deploy.database import open_engine, reading, writing
from foretaste.deploy.judging import exact
from foretaste.deploy.promise.statement import Promise, promise_of
from foretaste.deploy.promotion import stage_of
from foretaste.deploy.records import Answer, Exchange, Feedback, LearnerAnswer
from foretaste.deploy.settings import DeployConfig
from foretaste.deploy.state import State

COUNT = 160
DEFAULTS = DeployConfig()
NOBODY = promise_of(replace(DEFAULTS, takeover=replace(DEFAULTS.takeover, comparator="none")))
COMPARED = promise_of(DEFAULTS)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    opened = open_engine(tmp_path)
    yield opened
    opened.dispose()


def fill(engine: sa.Engine, *, thumbs: float, incumbent: str | None = None) -> None:
    """Serve the learner's answers, all of them checked, and have every user say the same."""
    with writing(engine) as connection:
        made: list[Exchange] = []
        for place in range(COUNT):
            one = Exchange(f"r{place}", "ada", b'{"messages": []}', "live", True, drawn=True, sampled=True)
            one.route, one.status = "learner", 200
            one.answers = [Answer("learner", True, 0.1, learner=LearnerAnswer("yes", "c", 0.9, 0.9, 3, 2))]
            if incumbent is not None:
                one.answers.append(Answer("incumbent", False, 0.1, text=incumbent))
            made.append(one)
        store.write_exchanges(connection, made)
        store.judge(connection, [one.id for one in made], None if incumbent is None else exact, correct_from=0.5)
        for one in made:
            store.write_feedback(connection, Feedback(one.id, "ada", "thumbs", thumbs), exact, correct_from=0.5)


def known(engine: sa.Engine, promise: Promise) -> list[bool | None]:
    """Return what a calibration is given: right, wrong or unknown."""
    with reading(engine) as connection:
        mature = evidence.Mature.of(connection, promise, 1e12)
        found = evidence.judged_answers(
            connection, "c", promise, mature, fresh_from=0, newest=1000, value="request", correct_from=0.5
        )
        count = evidence.judged_count(connection, "c", promise, mature, fresh_from=0, after=0)
    assert count.kept == len(found)
    return [one.correct for one in found]


def decided(engine: sa.Engine, promise: Promise) -> stages.Decision:
    """Return what the stages decide about a live learner."""
    state = State(checkpoint="c", stage="live", share=1.0, tau=0.5, trial=1)
    with reading(engine) as connection:
        mature = evidence.Mature.of(connection, promise, 1e12)
        found = evidence.gather(connection, state, promise, mature, correct_from=0.5, threshold=None, old_tasks=None)
    return stages.decide(stage_of(state), found, DEFAULTS.stages)


def test_praise_calibrates_nothing_where_nobody_judges(engine: sa.Engine) -> None:
    fill(engine, thumbs=1.0)
    assert known(engine, NOBODY) == []  # no look is ever due
    assert known(engine, COMPARED) == [None] * COUNT  # the incumbent has not answered: unknown, which counts as wrong


def test_praise_does_not_turn_what_the_judge_calls_wrong(engine: sa.Engine) -> None:
    fill(engine, thumbs=1.0, incumbent="no")
    assert known(engine, COMPARED) == [False] * COUNT
    assert decided(engine, COMPARED).kind == "rollback"


def test_complaints_alone_never_step_back(engine: sa.Engine) -> None:
    fill(engine, thumbs=0.0)
    for promise in (NOBODY, COMPARED):
        assert decided(engine, promise).kind == "hold"


def test_complaints_do_not_turn_what_the_judge_calls_right(engine: sa.Engine) -> None:
    fill(engine, thumbs=0.0, incumbent="yes")
    assert known(engine, COMPARED) == [True] * COUNT
    assert decided(engine, COMPARED).kind == "hold"
