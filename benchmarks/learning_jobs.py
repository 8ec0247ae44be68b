"""The work of the comparison of learning: one process a job, and results that are kept and used again.

    warm start (once) -> exam before (once a seed) -> run of an arm -> exam after

Everything is under build/learning; a result that is there is not measured again. `learning.py` says what to measure.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.learning_plan import Plan, Result
from foretaste.deploy.files import write_json
from foretaste.lab.jobs import alone

Tell = Callable[[dict[str, Any]], None]


class Jobs:
    """Does what was not done yet. `tell` receives what a process says while it runs."""

    def __init__(self, folder: Path, *, threads: int, tell: Tell) -> None:
        self.folder, self.threads, self.tell = folder.absolute(), threads, tell
        self.warm_folder = self.folder / "warm" / "model"

    def warm(self) -> dict[str, Any]:
        """Return the card of the warm start, made if there is none."""
        card = self.warm_folder.parent / "card.json"
        return _kept(card, lambda: self.run({"work": "warm", "folder": str(self.warm_folder)}))

    def before(self, plan: Plan, seed: int) -> dict[str, Any]:
        """Return the exam of the warm start, sat once a seed."""
        file = self.folder / "before" / plan.key("warm", seed, 0.0)
        return _kept(file, lambda: self.exam(self.warm_folder, plan, seed))

    def result(self, plan: Plan, arm: str, seed: int, rate: float, updates: int = 1) -> Result:
        """Return the result of a run, the kept one if there is one. Raises: PeerMissing if a process fails."""
        file = self.folder / "results" / plan.key(arm, seed, rate, updates)
        scratch = self.folder / "runs" / file.stem

        def measured() -> dict[str, Any]:
            before = self.before(plan, seed)
            shutil.rmtree(scratch, ignore_errors=True)
            job = {"work": "learn", "arm": arm, "seed": seed, "rate": rate, "tokens": plan.tokens}
            job |= {"updates": updates}
            job |= {"model": str(self.warm_folder), "folder": str(scratch), "python": sys.executable}
            done = self.run(job | {"episode_tokens": before["tokens"] / len(before["success"])})
            after = self.exam(Path(done.pop("model")), plan, seed)
            told = {"plan": dataclasses.asdict(plan), "before": before["success"], "after": after["success"]}
            return dataclasses.asdict(Result(arm, seed, rate, **told, **done, updates=updates))

        found = _kept(file, measured)
        shutil.rmtree(scratch, ignore_errors=True)  # weights and moments: gigabytes
        return Result(**found)

    def exam(self, model: Path, plan: Plan, seed: int) -> dict[str, Any]:
        """Let foretaste play the held-out items with the policy of a folder, whoever trained it."""
        return self.run({"work": "exam", "model": str(model), "seed": seed, "items": plan.items})

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Do a job in a process of its own and return its answer. Raises: PeerMissing if it does not answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        module, peer = "side_learning", peers.GENERATE
        if job.get("arm") == "trl" and job["work"] == "learn":
            module, peer = "side_learning_trl", peers.TRL
        python = peers.python(peer, log=self.folder / f"{peer.name}-install.log")
        log = self.folder / f"{module}.log"
        threads = {"OMP_NUM_THREADS": str(self.threads), "TOKENIZERS_PARALLELISM": "false"}
        answer = None
        with (
            log.open("w") as errors,
            subprocess.Popen(
                [python, "-m", f"benchmarks.{module}"],
                cwd=peers.ROOT,
                env=os.environ | threads,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps(job | {"threads": self.threads}), file=process.stdin, flush=True)
            for line in process.stdout:
                said = json.loads(line)
                answer = said.get("done", answer)
                self.tell(said)
        if answer is None:
            raise peers.stopped(f"{job['work']} of {module}", log)
        return answer


def _kept(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is in a file, made and written if there is none; by one command at a time, others wait for it."""
    if not file.is_file():
        with alone(file.with_suffix(".lock")):
            if not file.is_file():
                write_json(file, make())
    return json.loads(file.read_text(encoding="utf-8"))
