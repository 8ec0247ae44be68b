"""One server a store, whatever stands at KILL, a queue that is bounded in bytes, settings without effect."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from foretaste.cli import main
from foretaste.deploy.database import open_engine
from foretaste.deploy.kill import KillSwitch, stands, take_away
from foretaste.deploy.operations.lock import ServerLock, held
from foretaste.deploy.records import Exchange
from foretaste.deploy.writer import Writer
from foretaste.errors import DeployError


def test_a_second_server_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    first = ServerLock(tmp_path)
    assert held(tmp_path) is True
    with pytest.raises(DeployError, match=f"process {os.getpid()}.*End it first"):
        ServerLock(tmp_path)
    first.release()
    assert held(tmp_path) is False
    ServerLock(tmp_path).release()


@pytest.mark.parametrize("kind", ["file", "closed file", "link to nowhere", "folder", "full folder"])
def test_whatever_stands_at_the_name_kills_and_can_be_lifted(tmp_path: Path, kind: str) -> None:
    file, done = tmp_path / "KILL", threading.Event()
    failing = iter([OSError("once")])

    def on_kill(_: str) -> None:
        for error in failing:
            raise error
        done.set()

    switch = KillSwitch(file, on_kill, with_signal=False)
    assert not switch.killed
    if "file" in kind:
        file.touch(mode=0 if "closed" in kind else 0o600)
    elif "link" in kind:
        file.symlink_to(tmp_path / "nowhere" / "at all")
    else:
        file.mkdir()
        if "full" in kind:
            (file / "notes").touch()
    assert done.wait(10)  # the first attempt failed, and neither ended the thread nor was it the last
    assert switch.killed
    assert switch.fault == ""
    assert not switch.lift()
    assert take_away(file)
    assert not stands(file)
    assert switch.lift()
    switch.close()


def test_what_waits_is_bounded_in_bytes_while_the_store_is_locked(tmp_path: Path) -> None:
    engine = open_engine(tmp_path, wait_seconds=0.2)
    other = sqlite3.connect(tmp_path / "deploy.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = Writer(engine, queue=1000, queue_bytes=1_000_000, flush_seconds=0.01, compare=None, judging=False)
    taken = [writer.put(Exchange(str(one), "k", b"x" * 99_000, "shadow", False)) for one in range(30)]
    assert taken == [True] * 10 + [False] * 20
    assert (writer.waiting, writer.waiting_bytes, writer.dropped) == (10, 1_000_000, 20)
    other.execute("ROLLBACK")
    other.close()
    writer.close(20)
    assert (writer.written, writer.waiting, writer.waiting_bytes) == (10, 0, 0)
    engine.dispose()


@pytest.mark.parametrize(("listed", "told"), [("[]", True), ('[{"id": "big"}]', False)])
def test_an_incumbent_that_lists_no_models_is_told_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], listed: str, told: bool
) -> None:
    sent: dict[str, str] = {}

    def lists(_: str, *, headers: dict[str, str], **__: Any) -> httpx.Response:
        sent.update(headers)
        return httpx.Response(200, text=f'{{"data": {listed}}}')

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INCUMBENT_KEY", "secret")
    monkeypatch.setattr(httpx, "get", lists)
    text = (
        '[incumbent]\napi_key_env = "INCUMBENT_KEY"\napi_key_header = "api-key"\n[learner]\nscripted = "json:loads"\n'
    )
    (tmp_path / "deploy.toml").write_text(text, encoding="utf-8")
    main(["deploy", "check"])
    assert ("incumbent.models: the incumbent lists no models" in capsys.readouterr().out) is told
    assert sent == {"api-key": "secret"}  # as the server sends it


def test_settings_without_effect_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "deploy.toml"
    file.write_text("", encoding="utf-8")
    assert main(["deploy", "cap", "share_ceiling", "0.2"]) == 0
    file.write_text(
        '[server]\nhost = "0.0.0.0"\n[incumbent]\nurl = "http://127.0.0.1:9/v1"\n[learner]\ncheckpoint = "gone"\n'
        "[stages]\nshare_ceiling = 0.9\n[exam]\nthreads = 3\n",
        encoding="utf-8",
    )
    assert main(["deploy", "check"]) == 1
    told = capsys.readouterr().out
    for words in (
        "server.host: 0.0.0.0 is reached",
        "cannot be reached",
        "there is no folder",
        "foretaste deploy cap share_ceiling 0.9",
        "exam.threads: it has no effect",
    ):
        assert words in told
