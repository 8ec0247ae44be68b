"""The records hold: cut logs, planted keys, edited scores, replaced keys, loose files are found or have no effect."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from foretaste.cli import main
from foretaste.deploy import keys, store, tables
from foretaste.deploy.database import open_engine, reading, writing
from foretaste.deploy.integrity import checks
from foretaste.deploy.judging import exact
from foretaste.deploy.offline import Offline
from foretaste.deploy.operations.retention import retain
from foretaste.deploy.records import Answer, Exchange, Feedback, LearnerAnswer
from foretaste.deploy.writer import Writer
from foretaste.errors import DeployError

Said = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy.toml").write_text("", encoding="utf-8")
    return tmp_path


@pytest.fixture
def said(folder: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command that must end with a code, and return what it said."""

    def run(*arguments: str, code: int = 0) -> str:
        found = main(list(arguments))
        printed = capsys.readouterr()
        assert found == code, printed
        return " ".join((printed.out + printed.err).split())

    return run


@pytest.fixture
def edit(folder: Path) -> Callable[[str], None]:
    """Change the database as its administrator could, past everything of ours."""

    def change(statement: str) -> None:
        with sqlite3.connect(folder / "deployment" / "deploy.sqlite") as direct:
            direct.execute(statement)
        direct.close()

    return change


def exchange(identity: str, key: str = "k", *, text: str = "yes", created: float | None = None) -> Exchange:
    body = b'{"messages": [{"role": "user", "content": "secret words"}]}'
    made = Exchange(identity, key, body, "shadow", False, sampled=True)
    made.created = time.time() if created is None else created
    learner = LearnerAnswer(text, "c", 0.5, 0.6, 3, 2)
    made.answers = [Answer("incumbent", True, 0.1, text="yes"), Answer("learner", False, 0.1, learner=learner)]
    return made


def judged(
    offline: Offline, count: int = 6, key: str = "k", *, created: float | None = None, judging: bool = True
) -> None:
    """Write requests with judged answers and a feedback, and have the log count them."""
    writer = Writer(offline.engine, queue=10_000, flush_seconds=0.01, compare=exact, judging=judging)
    for place in range(count):
        text = "yes" if place % 2 else "no"
        writer.put(exchange(f"{key}{place}", key, text=text, created=created))
    given = Feedback(f"{key}0", key, "thumbs", 1.0)
    writer.submit(lambda c: store.write_feedback(c, given, exact, correct_from=0.5)).result(30)
    writer.close()
    with writing(offline.engine) as connection:
        checks.count(connection, offline.key)


def test_a_cut_tail_with_its_state_set_back_is_found_without_a_key(folder: Path, said: Said) -> None:
    said("deploy", "hold")
    database = folder / "deployment" / "deploy.sqlite"
    shutil.copy(database, folder / "before")
    said("deploy", "kill")
    (folder / "KILL").unlink()
    for file in (folder / "deployment").glob("deploy.sqlite*"):
        file.unlink()
    shutil.copy(folder / "before", database)  # what cutting the tail and setting state and head back comes to
    assert "the head that was kept is entry 3" in said("audit", "verify", code=1)
    assert "foretaste audit repair" in said("deploy", "promote", code=2)
    said("audit", "repair")
    assert "intact" in said("audit", "verify")
    said("deploy", "release")
    assert any((folder / "audit-heads").glob("*.until-*"))  # nothing of it was deleted


def test_heads_that_were_deleted_are_missed(folder: Path, said: Said) -> None:
    said("deploy", "hold")
    assert "holds all" in said("audit", "verify")
    shutil.rmtree(folder / "audit-heads")
    assert "are gone" in said("deploy", "hold", code=2)


def test_keys_are_what_the_log_says(folder: Path, said: Said, edit: Callable[[str], None]) -> None:
    with Offline.open(folder / "deploy.toml") as offline:
        user, secret = offline.create_key("ada", "user")
        old, revoked = offline.create_key("old", "admin")
        offline.revoke_key(old.id)
    planted = keys.hash_of("ft-planted")
    edit(f"INSERT INTO deploy_keys VALUES ('beef', 'eve', 'admin', '{planted}', 1.0, NULL)")
    edit(f"UPDATE deploy_keys SET scope = 'admin' WHERE id = '{user.id}'")
    edit(f"UPDATE deploy_keys SET revoked = NULL WHERE id = '{old.id}'")
    with Offline.open(folder / "deploy.toml") as offline, reading(offline.engine) as connection:
        valid = keys.valid_by_hash(connection, offline.key)
    assert {one.id: one.scope for one in valid.values()} == {user.id: "user"}
    assert keys.hash_of(secret) in valid
    assert keys.hash_of(revoked) not in valid
    found = said("audit", "verify", code=1)
    for words in ("beef (eve) was put in", f"key {user.id} is 'ada' of scope admin", f"{old.id} (old) is valid"):
        assert words in found
    said("audit", "repair")
    assert "intact" in said("audit", "verify")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE deploy_answers SET score = 1.0 WHERE score = 0.0", "was changed after it was judged"),
        ("UPDATE deploy_answers SET value = 0.99 WHERE role = 'learner'", "was changed after it was judged"),
        ("UPDATE deploy_answers SET score = NULL", "lost its judgement"),
        ("INSERT INTO deploy_answers (request, role, served, created, seconds, harm, score) "
         "VALUES ('k1', 'learner', 0, 9e9, 0.1, 0.0, 1.0)",
         "that nobody gave"),
        ("UPDATE deploy_judgements SET score = 1.0 WHERE score = 0.0", "was changed after it was judged"),
        ("UPDATE deploy_judgements SET judge = 'person' WHERE answer = 2", "answer 2 (request k0) was changed"),
        ("UPDATE deploy_judgements SET answer = 3 WHERE answer = 4", "has a score of comparator that nobody gave"),
        ("INSERT INTO deploy_judgements VALUES (2, 'verifier', 1.0, 9e9)", "answer 2 (request k0) was changed"),
        ("DELETE FROM deploy_judgements", "deploy_judgements holds 0 rows, but at least"),
        ("DELETE FROM deploy_answers", "deploy_answers holds 0 rows, but at least"),
        ("DELETE FROM deploy_requests", "deploy_requests holds 0 rows, but at least"),
        ("DELETE FROM deploy_feedback", "deploy_feedback holds 0 rows, but at least"),
        ("DELETE FROM deploy_digests", "judgements were removed"),
        ("UPDATE deploy_digests SET digest = 'x' WHERE number = 2", "judgement 2 was removed or changed"),
        ("DELETE FROM deploy_state WHERE name = 'held'", "'held' is missing"),
        ("UPDATE deploy_state SET value = '\"live\"' WHERE name = 'stage'", "'stage' is \"live\""),
        ("UPDATE deploy_meta SET value = '1' WHERE name = 'requests'", "'requests' was set back"),
        ("INSERT INTO deploy_checkpoints VALUES (1, 'evil', '/tmp/x', NULL, 1.0, '{}')", "evil was put in"),
    ],
)  # fmt: skip
def test_what_calibration_used_cannot_be_edited_unseen(
    folder: Path, said: Said, edit: Callable[[str], None], statement: str, words: str
) -> None:
    with Offline.open(folder / "deploy.toml") as offline:
        judged(offline)
    assert "intact" in said("audit", "verify")
    edit(statement)
    assert words in said("audit", "verify", code=1)


def test_an_edited_state_is_never_used(folder: Path, said: Said, edit: Callable[[str], None]) -> None:
    with Offline.open(folder / "deploy.toml") as offline:
        edit("UPDATE deploy_state SET value = '1e9' WHERE name = 'tokens_per_day'")
        assert offline.act("hold").tokens_per_day == 2_000_000  # while something runs: the log's
    for command in (("deploy", "release"), ("serve",)):
        told = said(*command, code=2)
        assert "'tokens_per_day' is 1e9" in told
        assert "foretaste audit repair" in told


def test_an_audit_key_is_never_replaced_silently(folder: Path, said: Said) -> None:
    said("deploy", "hold")
    file = folder / "deployment" / "audit.key"
    kept = file.read_text()
    file.unlink()
    assert "Put that key back" in said("deploy", "release", code=2)
    assert not file.exists()
    file.write_text("k" * 64)
    assert "written with another key" in said("serve", code=2)
    file.write_text(kept)
    assert "shadow" in said("deploy", "release")


def test_an_older_store_is_copied_migrated_and_taken_into_the_log(folder: Path, said: Said) -> None:
    with Offline.open(folder / "deploy.toml") as offline:
        judged(offline)
        with writing(offline.engine) as connection:  # as the version before left it
            connection.execute(tables.events.delete().where(tables.events.c.kind == "counted"))
            last = connection.execute(sa.select(tables.events).order_by(tables.events.c.seq.desc())).first()
            assert last is not None
            connection.execute(tables.head.update().values(seq=last.seq, hash=last.hash))
            connection.execute(sa.text("DROP TABLE deploy_digests"))
            newest = len(tables.MIGRATIONS) + 1
            connection.execute(
                tables.meta.update().where(tables.meta.c.name == "version").values(value=str(newest - 1))
            )
        offline._checked = False
    shutil.rmtree(folder / "audit-heads")
    said("deploy", "hold")
    copy = folder / "deployment" / f"deploy.sqlite.version-{newest - 1}"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with sqlite3.connect(copy) as old:
        assert old.execute("SELECT count(*) FROM deploy_requests").fetchone() == (6,)
        assert old.execute("SELECT name FROM sqlite_master WHERE name = 'deploy_digests'").fetchone() is None
    old.close()
    assert "intact" in said("audit", "verify")


def test_everything_is_the_owners_alone_whatever_the_umask(folder: Path, said: Said) -> None:
    before = os.umask(0)
    try:
        said("deploy", "hold")
        with Offline.open(folder / "deploy.toml") as offline:
            judged(offline)
            offline.export(folder / "out.jsonl")
            loose = folder / "deployment" / "checkpoints"
            loose.mkdir(mode=0o777)
            (loose / "weights").write_text("x")
            inside = [one for name in ("deployment", "audit-heads") for one in (folder / name).rglob("*")]
        said("deploy", "release")
    finally:
        os.umask(before)
    assert len(inside) > 4
    for path in (folder / "deployment", folder / "audit-heads", folder / "out.jsonl", *inside):
        if path.exists():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_one_user_is_forgotten_and_the_log_stays_whole(folder: Path, said: Said) -> None:
    with Offline.open(folder / "deploy.toml") as offline:
        ada, ben = (offline.create_key(name, "user")[0] for name in ("ada", "ben"))
        for key in (ada, ben):
            judged(offline, 250, key.id)
    told = said("deploy", "forget", "ada")
    assert "250 requests, 500 answers, 1 feedbacks" in told
    assert "intact" in said("audit", "verify")
    with Offline.open(folder / "deploy.toml") as offline, reading(offline.engine) as connection:
        assert set(connection.scalars(sa.select(tables.requests.c.key))) == {ben.id}
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.answers)) == 500
        assert set(connection.scalars(sa.select(tables.feedback.c.key))) == {ben.id}
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.judgements)) == 250
    assert "Unknown key or owner 'eve'" in said("deploy", "forget", "eve", code=2)


def test_retention_works_in_portions_gives_space_back_and_is_no_tampering(folder: Path, said: Said) -> None:
    with Offline.open(folder / "deploy.toml") as offline:
        judged(offline, 1500, "old", created=time.time() - 5000, judging=False)
        judged(offline, 20, "new")
        file = folder / "deployment" / "deploy.sqlite"
        with reading(offline.engine) as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar() or 0
        longest, waits = 0.0, Writer(offline.engine, queue=9, flush_seconds=0.01, compare=None, judging=False)
        work = threading.Thread(target=retain, args=(offline.engine, offline.key, time.time() - 1000))
        work.start()
        while work.is_alive():
            began = time.monotonic()
            waits.submit(lambda _: None).result(30)
            longest = max(longest, time.monotonic() - began)
        work.join()
        waits.close()
        with reading(offline.engine) as connection:
            left = connection.exec_driver_sql("PRAGMA page_count").scalar() or 0
            portions = sa.select(sa.func.count()).select_from(tables.events).where(tables.events.c.kind == "retention")
            assert (connection.scalar(portions) or 0) > 2
            assert connection.scalar(sa.select(sa.func.count()).select_from(tables.requests)) == 20
        assert left < pages / 2
        assert file.stat().st_size < pages * 4096
        assert longest < 2.0
    assert "intact" in said("audit", "verify")


def test_judgements_go_with_their_answers_and_never_pass_to_others(folder: Path, said: Said) -> None:
    def numbers(offline: Offline, column: sa.Column[int]) -> list[int]:
        with reading(offline.engine) as connection:
            return list(connection.scalars(sa.select(column).order_by(column)))

    with Offline.open(folder / "deploy.toml") as offline:
        judged(offline, 6, "old", created=time.time() - 5000)
        retain(offline.engine, offline.key, time.time() - 1000)
        assert numbers(offline, tables.judgements.c.answer) == []
        judged(offline, 3, "new", judging=False)
        assert numbers(offline, tables.answers.c.number)[0] == 1  # SQLite gives a deleted number again
        assert numbers(offline, tables.judgements.c.answer) == []
    assert "intact" in said("audit", "verify")


def test_a_copy_that_cannot_be_written_stops_the_migration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(folder)
    with writing(engine) as connection:
        connection.execute(tables.meta.update().where(tables.meta.c.name == "version").values(value="2"))
    engine.dispose()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("foretaste.deploy.database.copy_file", full)
    with pytest.raises(DeployError, match="was not brought up to date"):
        open_engine(folder)
