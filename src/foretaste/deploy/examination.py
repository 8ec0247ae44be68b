"""The sealed exam of a deployment: a checkpoint that would leave the shadow sits it first, in a process of its own.

It is `foretaste exam` as a person would call it, so looks are counted, items are fresh, and the page can be opened.
A verdict is kept beside the store: each checkpoint sits once, however often the server is started again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from foretaste.deploy.analysis import Finding, Verdict
from foretaste.deploy.files import read_json, write_json
from foretaste.deploy.settings import ExamConfig
from foretaste.deploy.stages import Decision, Stage
from foretaste.exams.paper import load_paper

FOLDER = "exams"
"""Beside the store: the ledger of looks, sittings and their pages."""
VERDICTS = {0: Verdict.SUCCESS, 1: Verdict.FAILURE, 2: Verdict.INCONCLUSIVE}
"""By the exit code of `foretaste exam`."""
FORETASTE = (sys.executable, "-m", "foretaste")
NAME = "exam"
PRINTED, SAID = "last.json", "last.log"
"""What the last sitting wrote, beside the verdicts."""


class Examination:
    """Called from the supervisor's thread; `close` from anywhere."""

    def __init__(self, paper: str, folder: Path, *, threads: int = 1) -> None:
        """`folder` is where looks are counted and pages written."""
        self.paper, self.folder = paper, folder
        self._threads = threads
        self._file = self.folder / "verdicts.json"
        self._known: dict[str, dict[str, Any]] = read_json(self._file)
        self._unsat: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._sits = ""
        self._closed = False

    @classmethod
    def of(cls, config: ExamConfig, folder: Path, files: Path) -> Examination | None:
        """Return the configured exam, or None; a paper's path is relative to `folder`, that of the settings.

        Raises: ConfigError for a paper that cannot be read.
        """
        if config.paper is None:
            return None
        own = folder / config.paper
        paper = str(own.resolve()) if own.is_file() else config.paper
        load_paper(paper)
        return cls(paper, files / FOLDER, threads=config.threads)

    def held_against(self, decided: Decision, stage: Stage, path: str) -> Decision:
        """Return the decision, or a pause in its place: a promotion out of the shadow waits for the exam's PASS."""
        if decided.kind != "promote" or stage.name != "shadow":
            return decided
        found = self.finding(stage.checkpoint, path)
        findings = (*decided.findings, found)
        if found.verdict is Verdict.SUCCESS:
            return replace(decided, reason=f"{decided.reason}; {NAME}: {found.reason}", findings=findings)
        return Decision("inconclusive", f"{NAME}: {found.reason}", stage, findings)

    def finding(self, checkpoint: str, path: str) -> Finding:
        """Return what the exam says of a checkpoint; the first call lets it sit, which takes its time."""
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if checkpoint in self._known:
            known = self._known[checkpoint]
            return Finding(NAME, Verdict(known["verdict"]), known["reason"])
        if checkpoint in self._unsat:
            return Finding(NAME, Verdict.INCONCLUSIVE, self._unsat[checkpoint])
        if self._process is None and not self._closed:
            self._start(checkpoint, path)
        return Finding(NAME, Verdict.INCONCLUSIVE, f"{Path(self.paper).stem} is being sat")

    @property
    def sitting(self) -> bool:
        """Whether a checkpoint sits the exam now."""
        return self._process is not None

    def stop(self) -> None:
        """End a sitting: its look is spent, nothing is held against the checkpoint, and it may sit again."""
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait(10)

    def close(self) -> None:
        """End a sitting, and let nobody sit any more."""
        self._closed = True
        self.stop()

    def _start(self, checkpoint: str, path: str) -> None:
        command = [*FORETASTE, "exam", self.paper, "--policy", path, "--json"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._threads)}
        self._sits = checkpoint
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / PRINTED).open("wb") as printed, (self.folder / SAID).open("wb") as said:
            self._process = subprocess.Popen(
                [*command, "--runs-folder", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=said,
                env=environment,
            )

    def _end(self) -> None:
        """Take the verdict; an exam that could not be sat is no verdict about the checkpoint, and says why."""
        assert self._process is not None
        code, self._process = self._process.returncode, None
        if code == -signal.SIGKILL:  # stopped by `stop`, or for want of memory
            return
        printed, said = ((self.folder / name).read_text(encoding="utf-8", errors="replace") for name in (PRINTED, SAID))
        reason = _reason(code, printed, said)
        if code in VERDICTS:
            self._known[self._sits] = {"verdict": str(VERDICTS[code]), "reason": reason}
            write_json(self._file, self._known)
        else:
            self._unsat[self._sits] = reason


def _reason(code: int, printed: str, said: str) -> str:
    try:
        found = json.loads(printed)
        return f"{found['sentence']} Page: {found['report']}"
    except (ValueError, KeyError, TypeError):
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        error = next((line for line in lines if line.startswith("Error:")), lines[-1] if lines else "no message")
        return f"it could not be sat (exit code {code}): {error}"
