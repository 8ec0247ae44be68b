"""The ledger: what was acknowledged stays, what was changed is found, and processes do not mix."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretaste import ledger_database
from foretaste.errors import LedgerError
from foretaste.ledger import Ledger, Record


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger.open(tmp_path / "runs") as opened:
        yield opened


def raw(tmp_path: Path) -> sqlite3.Connection:
    """The ledger's file with its guards taken off, as a forger would open it."""
    connection = sqlite3.connect(tmp_path / "runs" / "ledger.sqlite", isolation_level=None)
    connection.execute("DROP TRIGGER IF EXISTS foretaste_no_update")
    connection.execute("DROP TRIGGER IF EXISTS foretaste_no_delete")
    return connection


def change(tmp_path: Path, *statements: str) -> None:
    connection = raw(tmp_path)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def steps_of(records: list[Record]) -> list[int | None]:
    return [record.step for record in records]


# Writing and reading ------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was_written(ledger: Ledger) -> None:
    run = ledger.start_run("train", "maze", {"steps": 3})
    ledger.append(run, "metrics", {"train/success": np.float32(0.25), "seeds": np.arange(3)}, step=np.int64(1))  # type: ignore[arg-type]
    first, second = ledger.records(run)
    assert (first.seq, first.kind, first.step) == (1, "run", None)
    assert (second.seq, second.run, second.step, second.kind) == (2, run, 1, "metrics")
    assert second.payload == {"train/success": 0.25, "seeds": [0, 1, 2]}
    written = datetime.datetime.fromisoformat(second.created)
    assert written.utcoffset() == datetime.timedelta(0)
    assert abs((datetime.datetime.now(datetime.UTC) - written).total_seconds()) < 60


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.dictionaries(st.text(), json_values, max_size=4))
def test_any_json_comes_back_and_verifies(ledger: Ledger, payload: dict) -> None:
    run = ledger.start_run("train", "any", {})
    ledger.append(run, "metrics", payload)
    assert ledger.records(run, "metrics")[0].payload == payload
    ledger.verify()


def test_infinities_are_kept_because_they_are_evidence(ledger: Ledger) -> None:
    run = ledger.start_run("train", "any", {})
    ledger.append(run, "metrics", {"policy/ratio_max": float("inf"), "value/loss": float("nan")})
    payload = ledger.records(run, "metrics")[0].payload
    assert payload["policy/ratio_max"] == float("inf")
    assert np.isnan(payload["value/loss"])


@pytest.mark.parametrize("payload", [{"bad": object()}, {"bad": {1, 2}}, {("a", "b"): 1}, ["no", "dict"]])
def test_a_payload_that_is_no_json_is_refused_and_nothing_is_written(ledger: Ledger, payload) -> None:
    run = ledger.start_run("train", "any", {})
    with pytest.raises(LedgerError, match="payload of a 'metrics' record"):
        ledger.append_many(run, [("metrics", {"fine": 1}, 1), ("metrics", payload, 2)])
    assert len(ledger.records(run)) == 1
    ledger.verify()


def test_a_thousand_rows_take_well_below_a_second(ledger: Ledger) -> None:
    run = ledger.start_run("train", "many", {})
    begun = time.perf_counter()
    ledger.append_many(run, [("metrics", {"train/success": i / 1000}, i) for i in range(1000)])
    assert time.perf_counter() - begun < 1.0
    assert steps_of(ledger.records(run, "metrics")) == list(range(1000))


def test_a_reopened_ledger_continues_the_chain(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as first:
        run = first.start_run("train", "maze", {})
        head = first.head()
    with Ledger.open(str(tmp_path), create=False) as second:
        assert second.head() == head
        second.append(run, "metrics", {}, step=1)
        second.verify()
        assert [record.seq for record in second.records(run)] == [1, 2]


def test_open_takes_a_file_and_a_url(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as first:
        run = first.start_run("train", "maze", {})
    for name in (tmp_path / "ledger.sqlite", f"sqlite:///{tmp_path}/ledger.sqlite"):
        with Ledger.open(name) as again:
            assert again.run("latest").id == run


# Runs ---------------------------------------------------------------------------------------------


def test_runs_know_their_config_and_last_status(ledger: Ledger) -> None:
    first = ledger.start_run("train", "maze", {"steps": 3})
    ledger.append(first, "status", {"status": "started"})
    ledger.append(first, "status", {"status": "finished"})
    second = ledger.start_run("exam", "desk level 2", {})
    assert [info.id for info in ledger.runs()] == [first, second]
    assert [info.id for info in ledger.runs("exam")] == [second]
    info = ledger.run(first)
    assert (info.kind, info.name, info.status, info.config) == ("train", "maze", "finished", {"steps": 3})
    assert ledger.run(second).status == "started"
    assert second.startswith("desk-level-2-")


def test_a_run_is_found_by_prefix_and_latest(ledger: Ledger) -> None:
    maze, desk = ledger.start_run("train", "maze", {}), ledger.start_run("train", "desk", {})
    assert ledger.run("ma").id == maze
    assert ledger.run("latest").id == desk
    assert ledger.records("maz")[0].run == maze


def test_an_unknown_run_is_named_with_the_nearest(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="no run yet"):
        ledger.run("latest")
    run = ledger.start_run("train", "maze", {})
    with pytest.raises(LedgerError, match=f"Unknown run.*Did you mean '{run}'"):
        ledger.run(run.replace("maze", "maez"))
    with pytest.raises(LedgerError, match="Unknown run ''"):
        ledger.run("")
    with pytest.raises(LedgerError, match="Unknown run"):
        ledger.append("nothing", "metrics", {})
    ledger.start_run("train", "maze", {})
    with pytest.raises(LedgerError, match="ambiguous: 2 runs"):
        ledger.run("maze")


def test_a_run_id_that_is_taken_is_drawn_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["7f3a", "7f3a", "7f3a", "81b2"])
    monkeypatch.setattr("foretaste.ledger.secrets.token_hex", lambda _: next(drawn))
    moment = datetime.datetime(2025, 11, 22, 1, 43, tzinfo=datetime.UTC)

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return moment

    monkeypatch.setattr("foretaste.ledger.datetime.datetime", Clock)
    assert ledger.start_run("train", "Extract!", {}) == "extract-1122-0143-7f3a"
    assert ledger.start_run("train", "extract", {}) == "extract-1122-0143-81b2"


def test_resuming_hides_the_abandoned_attempt(ledger: Ledger) -> None:
    run = ledger.start_run("train", "maze", {})
    ledger.append_many(run, [("metrics", {"attempt": 1}, step) for step in (1, 2, 3, 4)])
    ledger.append(run, "warning", {"text": "kept: belongs to no step"})
    ledger.append(run, "resume", {"from_step": 2})
    ledger.append_many(run, [("metrics", {"attempt": 2}, step) for step in (3, 4, 5)])
    live = [(record.step, record.payload["attempt"]) for record in ledger.records(run, "metrics")]
    assert live == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]
    ledger.append(run, "resume", {"from_step": 0})
    assert ledger.records(run, "metrics") == []
    kinds = [record.kind for record in ledger.records(run)]
    assert kinds == ["run", "warning", "resume", "resume"]
    ledger.verify()


def test_resuming_one_run_leaves_others_alone(ledger: Ledger) -> None:
    first, second = ledger.start_run("train", "a", {}), ledger.start_run("train", "b", {})
    for run in (first, second):
        ledger.append(run, "metrics", {}, step=5)
    ledger.append(first, "resume", {"from_step": 0})
    assert ledger.records(first, "metrics") == []
    assert steps_of(ledger.records(second, "metrics")) == [5]


# Tampering ----------------------------------------------------------------------------------------


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    with Ledger.open(tmp_path / "runs") as ledger:
        run = ledger.start_run("train", "maze", {})
        ledger.append_many(run, [("metrics", {"train/success": step / 10}, step) for step in range(1, 10)])
        ledger.verify()
    return tmp_path


def verified(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "runs") as ledger:
        ledger.verify()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("""UPDATE foretaste_records SET payload = '{"train/success":1.0}' WHERE seq = 4""", r"record 4 \(metrics"),
        ("UPDATE foretaste_records SET step = 7 WHERE seq = 4", "record 4"),
        ("UPDATE foretaste_records SET run = 'other' WHERE seq = 4", "record 4"),
        ("UPDATE foretaste_records SET kind = 'status' WHERE seq = 4", "record 4"),
        ("UPDATE foretaste_records SET created = '2020-01-01' WHERE seq = 4", "record 4"),
        ("UPDATE foretaste_records SET hash = 'f' WHERE seq = 4", "record 4"),
        ("DELETE FROM foretaste_records WHERE seq = 4", "record 4 is missing"),
        ("DELETE FROM foretaste_records WHERE seq = 10", "ends at record 9, its head says 10"),
        (
            "INSERT INTO foretaste_records SELECT 11, run, step, kind, payload, created, hash "
            "FROM foretaste_records WHERE seq = 10",
            "record 11 was put in",
        ),
        ("UPDATE foretaste_head SET hash = 'f'", "head was changed"),
    ],
)
def test_verify_names_the_first_tampered_record(filled: Path, statement: str, message: str) -> None:
    verified(filled)
    change(filled, statement)
    with pytest.raises(LedgerError, match=message):
        verified(filled)


def test_swapped_records_are_found(filled: Path) -> None:
    change(
        filled,
        "UPDATE foretaste_records SET seq = 100 WHERE seq = 4",
        "UPDATE foretaste_records SET seq = 4 WHERE seq = 5",
        "UPDATE foretaste_records SET seq = 5 WHERE seq = 100",
    )
    with pytest.raises(LedgerError, match="record 4"):
        verified(filled)


@pytest.mark.parametrize("statement", ["UPDATE foretaste_records SET step = 1", "DELETE FROM foretaste_records"])
def test_the_database_itself_refuses_changes(ledger: Ledger, statement: str) -> None:
    ledger.start_run("train", "maze", {})
    with (
        pytest.raises(LedgerError, match=r"append-only.*append a new one"),
        ledger_database.writing(ledger._engine) as connection,
    ):
        connection.execute(sa.text(statement))


def test_a_damaged_payload_is_named(filled: Path) -> None:
    change(filled, "UPDATE foretaste_records SET payload = '{' WHERE seq = 4")
    with Ledger.open(filled / "runs") as ledger, pytest.raises(LedgerError, match=r"Record 4 .* is damaged"):
        ledger.records("latest")


# Several processes, and killed ones ---------------------------------------------------------------


def append_numbers(url: str, run: str, writer: int, count: int) -> None:
    with Ledger.open(url) as ledger:
        for i in range(count):
            ledger.append(run, "metrics", {"writer": writer, "i": i}, step=i)


def start_writer(*arguments: Any) -> Any:
    writer = multiprocessing.get_context("fork").Process(target=append_numbers, args=arguments)
    writer.start()
    return writer


def ended(writer: Any) -> int | None:
    writer.join(60)
    return writer.exitcode


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_processes_append_at_once_into_one_chain(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        run = ledger.start_run("train", "shared", {})
        writers = [start_writer(str(tmp_path), run, w, 40) for w in range(2)]
        for i in range(40):
            ledger.append(run, "metrics", {"writer": 2, "i": i}, step=i)
        assert [ended(writer) for writer in writers] == [0, 0]
        found = ledger.records(run, "metrics")
        assert [record.seq for record in found] == list(range(2, 2 + 3 * 40))
        for w in range(3):
            assert [record.payload["i"] for record in found if record.payload["writer"] == w] == list(range(40))
        ledger.verify()


def open_and_start(folder: str) -> None:
    with Ledger.open(folder) as ledger:
        ledger.start_run("train", "race", {})


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_processes_may_create_the_same_ledger_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    openers = [context.Process(target=open_and_start, args=(str(tmp_path / "new"),)) for _ in range(6)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join(60)
    assert [opener.exitcode for opener in openers] == [0] * 6
    with Ledger.open(tmp_path / "new") as ledger:
        assert len(ledger.runs()) == 6
        ledger.verify()


def append_with_new_connection(ledger: Ledger, run: str) -> None:
    made: list[object] = []
    sa.event.listen(ledger._engine, "connect", lambda connection, _: made.append(connection))
    ledger.append(run, "metrics", {"child": True})
    sys.exit(0 if made else 3)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_uses_connections_of_its_own(ledger: Ledger) -> None:
    run = ledger.start_run("train", "fork", {})
    child = multiprocessing.get_context("fork").Process(target=append_with_new_connection, args=(ledger, run))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    ledger.append(run, "metrics", {"child": False})
    assert [record.payload["child"] for record in ledger.records(run, "metrics")] == [True, False]
    ledger.verify()


APPENDER = """
import sys
from foretaste.ledger import Ledger
ledger = Ledger.open(sys.argv[1])
run = ledger.start_run("train", "killed", {})
i = 0
while True:
    i += 1
    ledger.append_many(run, [("metrics", {"i": i, "padding": "x" * 3000}, i), ("episode", {"i": i}, i)])
    print(i, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 25])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, acknowledged: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = 0
    while seen < acknowledged:
        seen = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    seen = max([seen, *map(int, process.stdout.read().split())])  # acknowledged between our last look and the kill
    process.stdout.close()
    assert process.wait(10) == -signal.SIGKILL
    with Ledger.open(tmp_path) as ledger:
        ledger.verify()
        metrics = [record.payload["i"] for record in ledger.records("latest", "metrics")]
        assert metrics == [record.payload["i"] for record in ledger.records("latest", "episode")]  # all or nothing
        assert metrics == list(range(1, len(metrics) + 1))
        assert len(metrics) >= seen
        ledger.append(ledger.run("latest").id, "resume", {"from_step": seen})
        ledger.verify()


# What can go wrong with the database --------------------------------------------------------------


def test_a_full_disk_loses_only_the_record_that_did_not_fit(ledger: Ledger) -> None:
    run = ledger.start_run("train", "maze", {})
    ledger.append(run, "metrics", {"train/success": 0.5}, step=1)
    with ledger_database.reading(ledger._engine) as connection:  # SQLite's own limit stands for a full disk
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(LedgerError, match=r"full.*everything before it is safe. Free disk space"):
        ledger.append(run, "episode", {"text": "x" * 100_000}, step=1)
    assert [record.kind for record in ledger.records(run)] == ["run", "metrics"]
    with ledger_database.reading(ledger._engine) as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    ledger.append(run, "episode", {"text": "x" * 100_000}, step=1)
    ledger.verify()


def test_a_locked_ledger_says_so(tmp_path: Path) -> None:
    with Ledger.open(tmp_path, wait_seconds=0.05) as ledger:
        run = ledger.start_run("train", "maze", {})
        other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match=r"locked. Another process is writing"):
            ledger.append(run, "metrics", {}, step=1)
        assert len(ledger.records(run)) == 1  # readers are not kept out
        other.execute("ROLLBACK")
        other.close()
        ledger.append(run, "metrics", {}, step=1)
        ledger.verify()


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "notes.sqlite"
    file.write_text("these are my notes\n" * 200)
    with pytest.raises(LedgerError, match=r"not a database. The file is not a ledger"):
        Ledger.open(file)
    assert file.read_text() == "these are my notes\n" * 200


def test_another_programs_database_is_refused_and_kept(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute("CREATE TABLE customers (id INTEGER)")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError, match=r"not a foretaste ledger .its tables: customers"):
        Ledger.open(tmp_path)
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("customers",)]
    connection.close()


@pytest.mark.parametrize(("version", "message"), [("2", "ledger schema 2.*Upgrade"), ("x", "no readable schema")])
def test_a_newer_or_damaged_schema_version_is_refused(filled: Path, version: str, message: str) -> None:
    change(filled, f"UPDATE foretaste_meta SET value = '{version}'")
    with pytest.raises(LedgerError, match=message):
        Ledger.open(filled / "runs")


def test_reading_commands_do_not_create_a_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="No ledger at"):
        Ledger.open(tmp_path / "nowhere", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LedgerError, match="Cannot make the folder"):
        Ledger.open(tmp_path / "file" / "runs")
    (tmp_path / "dir.sqlite").mkdir()
    with pytest.raises(LedgerError, match="is a folder where"):
        Ledger.open(f"sqlite:///{tmp_path}/dir.sqlite")


@pytest.mark.parametrize("url", ["nosuchdatabase://host/x", "postgresql+nodriver://user:secret@host/x", "://"])
def test_a_url_without_a_driver_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(LedgerError, match=r"No database driver|cannot be read") as caught:
        Ledger.open(url)
    assert "secret" not in str(caught.value)


# PostgreSQL ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_postgresql_holds_one_chain_for_several_processes(postgres: Any) -> None:
    url = postgres.url
    context = multiprocessing.get_context("fork")
    openers = [context.Process(target=open_and_start, args=(url,)) for _ in range(3)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join(60)
    assert [opener.exitcode for opener in openers] == [0, 0, 0]
    with Ledger.open(url) as ledger:
        run = ledger.start_run("train", "shared", {"text": "nul \x00, emoji \U0001f600, lone surrogate \ud800"})
        writers = [start_writer(url, run, w, 25) for w in range(2)]
        for i in range(25):
            ledger.append(run, "metrics", {"writer": 2, "i": i}, step=i)
        assert [ended(writer) for writer in writers] == [0, 0]
        found = ledger.records(run, "metrics")
        for w in range(3):
            assert [record.payload["i"] for record in found if record.payload["writer"] == w] == list(range(25))
        assert ledger.run(run).config["text"].startswith("nul \x00")
        ledger.verify()
        for statement in ("DELETE FROM foretaste_records", "TRUNCATE foretaste_records"):
            with pytest.raises(LedgerError, match="append-only"), ledger_database.writing(ledger._engine) as connection:
                connection.execute(sa.text(statement))
        with ledger_database.writing(ledger._engine) as connection:
            connection.execute(sa.text("ALTER TABLE foretaste_records DISABLE TRIGGER ALL"))
            forged = json.dumps({"writer": 9})
            connection.execute(
                sa.text("UPDATE foretaste_records SET payload = :forged WHERE seq = :seq"),
                {"forged": forged, "seq": found[3].seq},
            )
            connection.execute(sa.text("ALTER TABLE foretaste_records ENABLE TRIGGER ALL"))
        with pytest.raises(LedgerError, match=f"record {found[3].seq} "):
            ledger.verify()
