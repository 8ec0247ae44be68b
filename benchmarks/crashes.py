"""Kill -9 at random moments under load: is anything acknowledged lost, and is the learner back each time?

    python benchmarks/crashes.py                     100 moments over server, learner, trainer and PostgreSQL
    python benchmarks/crashes.py --moments 8         fewer

Users ask and give feedback all the while. What was answered with 200 to feedback must be in the store at the end, the
audit log must verify, and after every kill the learner must answer again. A trainer that died is started again after a
second here (after half a minute in use), so that it can be killed often. Without PostgreSQL its part is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from benchmarks.proxy import ROOT, endpoint, free_port
from foretaste.deploy import tables

SERVE = """
import foretaste.deploy.processes as processes
import foretaste.deploy.training_client as training
from foretaste.cli import main

training.PAUSE_SECONDS = 1.0
start = processes.start

def noted(target, arguments, name):
    made = start(target, arguments, name)
    with open("processes.log", "a", encoding="utf-8") as log:
        log.write(f"{name} {made.pid}\\n")
    return made

processes.start = noted
raise SystemExit(main(["serve"]))
"""
"""The server, which also writes down what it starts: seen from outside, learner and trainer look alike."""
NAMES = {"foretaste-learner": "learner", "foretaste-training": "trainer"}
BACK_SECONDS = 180.0
"""Longest wait until everything works again: loading takes a minute where the machine is busy."""
FORETASTE = [sys.executable, "-m", "foretaste.cli"]
SETTINGS = """
[server]
port = {port}
[incumbent]
url = "http://127.0.0.1:{endpoint}/v1"
[learner]
checkpoint = "{checkpoint}"
max_new_tokens = 4
device = "cpu"
[store]
url = "{store}"
[takeover]
every_seconds = 0.5
[training]
enabled = true
every = 8
"""


@dataclass
class Users:
    """What users have been told so far."""

    acknowledged: list[str] = field(default_factory=list)
    asked: int = 0
    failed: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, url: str, key: str, pause: float) -> None:
        """Ask and give feedback until `stop`; what fails is counted, what is acknowledged is remembered."""
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=20) as client:
            while not self.stop.wait(pause):
                self.asked += 1
                try:
                    question = {"model": "m", "messages": [{"role": "user", "content": f"Question {self.asked}?"}]}
                    answer = client.post("/v1/chat/completions", json=question)
                    identity = answer.headers.get("x-foretaste-id", "")
                    time.sleep(pause)
                    told = client.post("/v1/feedback", json={"response_id": identity, "score": self.asked % 2})
                    if told.status_code == 200:
                        self.acknowledged.append(identity)
                    else:
                        self.failed += 1
                except httpx.HTTPError:
                    self.failed += 1


@dataclass
class World:
    """One deployment under load."""

    folder: Path
    url: str
    key: str
    server: subprocess.Popen[bytes]

    def start_server(self) -> None:
        """Start the server anew."""
        self.server = _serve(self.folder)

    def health(self) -> dict[str, Any]:
        """Return what /healthz says; nothing while nobody answers."""
        with contextlib.suppress(httpx.HTTPError, ValueError):
            return httpx.get(f"{self.url}/healthz", timeout=5).json()
        return {}

    def learner_back(self) -> bool:
        """Return whether everything works again."""
        found = self.health()
        return found.get("learner") == "ready" and found.get("store") == "ok"

    def started(self, kind: str) -> list[int]:
        """Return the process ids of all learners, or trainers, that the server has started, oldest first."""
        with contextlib.suppress(OSError):
            lines = (self.folder / "processes.log").read_text(encoding="utf-8").splitlines()
            return [int(pid) for name, pid in map(str.split, lines) if NAMES[name] == kind]
        return []


def main() -> None:
    """Run both worlds and print a row for each kind of kill."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--moments", type=int, default=100, help="kills over all kinds (default: 100)")
    parser.add_argument("--users", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two calls of a user")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    draw = random.Random(chosen.seed)
    each = max(1, chosen.moments // 4)
    print(
        f"{'killed':<10} {'times':>5} {'acknowledged':>13} {'lost':>5} {'learner back':>13} {'median s':>9} {'max':>6}"
    )
    lost = 0
    with tempfile.TemporaryDirectory(prefix="foretaste-crashes-") as scratch, endpoint(Path(scratch)) as port:
        weights = _weights(Path(scratch))
        for kind in ("server", "learner", "trainer", "database"):
            folder = Path(scratch) / kind
            folder.mkdir()
            with _database(kind) as database:
                if kind == "database" and database is None:
                    print("database: no PostgreSQL here (make database); not measured")
                    continue
                lost += _row(kind, each, folder, port, weights, database, chosen, draw)
    raise SystemExit(1 if lost else 0)


def _row(
    kind: str, times: int, folder: Path, port: int, weights: str, database: Any, chosen: Any, draw: random.Random
) -> int:
    """Kill one kind of process `times` times under load, print the row, and return how much was lost."""
    own = free_port()
    store = "deployment" if database is None else database.url
    settings = SETTINGS.format(port=own, endpoint=port, checkpoint=weights, store=store)
    (folder / "deploy.toml").write_text(settings, encoding="utf-8")
    made = [*FORETASTE, "deploy", "key", "create", "crashes"]
    key = subprocess.run(made, cwd=folder, check=True, capture_output=True, text=True).stdout.split()[-1]
    world = World(folder, f"http://127.0.0.1:{own}", key, _serve(folder))
    users = Users()
    threads = [threading.Thread(target=users.run, args=(world.url, key, chosen.pause)) for _ in range(chosen.users)]
    back: list[float] = []
    try:
        _wait(world.learner_back, 300, f"the learner of the {kind}'s world did not start")
        for thread in threads:
            thread.start()
        for _ in range(times):
            time.sleep(draw.uniform(0.1, 1.5))
            back += _kill(kind, world, database)
    finally:
        users.stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join(60)
        world.server.terminate()
        world.server.wait(60)
    there = _stored(folder, database)
    lost = [one for one in users.acknowledged if one not in there]
    verified = subprocess.run([*FORETASTE, "audit", "verify"], cwd=folder, capture_output=True, text=True)
    seconds = f"{statistics.median(back):>10.2f} {max(back):>6.2f}" if back else f"{'-':>10} {'-':>6}"
    print(
        f"{kind:<10} {times:>5} {len(users.acknowledged):>13} {len(lost):>5} {len(back):>9} of {times:<3}{seconds}"
        f"   {users.asked} asked, {users.failed} not acknowledged; audit verify: {verified.returncode}",
        flush=True,
    )
    if verified.returncode:
        print(verified.stdout + verified.stderr)
    return len(lost) + (len(back) < times) + verified.returncode


def _kill(kind: str, world: World, database: Any) -> list[float]:
    """Kill -9, start again what has to be, and return the seconds until everything works; none if never."""
    began = time.monotonic()
    if kind == "server":
        world.server.kill()
        world.server.wait()
        world.start_server()
    elif kind == "database":
        database.kill()
        database.start()
    else:
        pid = _wait(lambda: next(filter(_lives, world.started(kind)), None), BACK_SECONDS, f"no {kind} runs")
        before = len(world.started(kind))
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        _wait(lambda: len(world.started(kind)) > before, BACK_SECONDS, f"the {kind} was not started again")
    try:
        _wait(world.learner_back, BACK_SECONDS, "")
    except TimeoutError:
        return []
    return [time.monotonic() - began]


def _stored(folder: Path, database: Any) -> set[str]:
    """Return the ids of the requests whose feedback is in the store."""
    url = f"sqlite:///{folder / 'deployment' / 'deploy.sqlite'}" if database is None else database.url
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return set(connection.scalars(sa.select(tables.feedback.c.request)))


def _serve(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-c", SERVE], cwd=folder, stdout=log, stderr=log)


def _weights(scratch: Path) -> str:
    """Write a tiny checkpoint of random weights."""
    from foretaste.config import ModelConfig
    from foretaste.models import checkpoint
    from foretaste.models.actor_critic import ActorCritic

    model = ActorCritic.load(ModelConfig(name="nano", critic_layers=1), seed=1)
    return checkpoint.save(model, scratch / "weights").path


@contextlib.contextmanager
def _database(kind: str) -> Iterator[Any]:
    """Yield a PostgreSQL server of our own for the database's row, where one is installed; else nothing."""
    if kind != "database":
        yield None
        return
    specification = importlib.util.spec_from_file_location("database_server", ROOT / "tests" / "conftest.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    with tempfile.TemporaryDirectory(prefix="foretaste-pg-") as folder:
        try:
            server = module.PostgresServer(Path(folder))
        except BaseException as error:
            if type(error).__name__ != "Failed":  # pytest's word for a program that is not installed
                raise
            yield None
            return
        try:
            yield server
        finally:
            server.close()


def _lives(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait(condition: Callable[[], Any], seconds: float, complaint: str) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError(complaint)


if __name__ == "__main__":
    main()
