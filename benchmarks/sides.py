"""Starts the processes that are compared, and asks them for one run at a time."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import peers
from benchmarks.peers import ROOT, Peer, PeerMissing

LOGS = ROOT / "build" / "benchmarks"


class Measured(NamedTuple):
    """One run of one side."""

    seconds: float
    tokens: int
    peak_bytes: int
    learn_seconds: float | None = None
    """Of a training step: without sampling."""
    read_tokens: int | None = None
    """Tokens of the sequences that were learnt from; a beginning that all share counts once."""


class Side:
    """A process that keeps its model loaded. Close it when it is done: it holds memory."""

    def __init__(self, module: str, peer: Peer | None, *, model: str, threads: int, quick: bool) -> None:
        """Start `python -m benchmarks.<module>` in the peer's environment, or in foretaste's own.

        Raises: PeerMissing if it cannot be installed or does not get as far as its first request.
        """
        self.name = peer.name if peer else "foretaste"
        LOGS.mkdir(parents=True, exist_ok=True)
        self._log = LOGS / f"{module}.log"
        found = peers.python(peer or peers.GENERATE, log=LOGS / f"{self.name}-install.log")
        self.versions = peers.versions(peer, found) if peer else {}
        environment = os.environ | _preloaded(found) if peer is peers.VLLM else dict(os.environ)
        environment |= {
            "BENCH_MODEL": model,
            "BENCH_THREADS": str(threads),
            "BENCH_QUICK": str(int(quick)),
            "OMP_NUM_THREADS": str(threads),
            # What OpenMP does by default. foretaste lets threads wait passively if the machine is busy when it is
            # imported, and here it is: with the side that was measured before.
            "GOMP_SPINCOUNT": "300000",
            "TOKENIZERS_PARALLELISM": "false",
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [found, "-m", f"benchmarks.{module}"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._answer()

    def run(self, name: str, seed: int, *, quick: bool) -> Measured:
        """Do a workload once. Raises: PeerMissing if the process has died."""
        assert self._process.stdin is not None
        try:
            print(json.dumps({"name": name, "seed": seed, "quick": quick}), file=self._process.stdin, flush=True)
        except BrokenPipeError as error:
            raise PeerMissing(f"stopped; see {self._log}") from error
        return Measured(**self._answer())

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise peers.stopped(self.name, self._log)
        return json.loads(line)


def _preloaded(python: Path) -> dict[str, str]:
    """Return what vLLM's documentation advises to preload, as far as it is there: OpenMP of Intel, tcmalloc."""
    libraries = [*python.parents[1].glob("lib/libiomp5.so"), *Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4")]
    return {"LD_PRELOAD": ":".join(map(str, libraries))} if libraries else {}
