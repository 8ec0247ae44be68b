"""`make bench`: speed side by side with peers, in one run; prints a table and writes results.json.

    make bench                                 everything: about half an hour on 2 cores
    make bench ROWS="short help"               some rows
    make bench QUICK=1                         a quarter of the work, 2 rounds: a look, not a figure to quote

Sides are processes that keep their models loaded (`sides.py`); in each round ours and the peers do the same work
(`workloads.py`) one after the other, so that a machine whose speed drifts treats both alike. `rows.py` says what is
compared, `limits.py` what the machine allows at most, `growth.py` measures how cost grows.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import limits, machine, peers, workloads
from benchmarks.machine import Machine
from benchmarks.peers import PeerMissing
from benchmarks.rows import FEWEST, NAMES, ROUNDS, SAMPLING, STEP, STEP_MINUTES, SamplingRow, help_row, nano_row
from benchmarks.sides import LOGS, Measured, Side
from benchmarks.table import Row, compare, show, write

RESULTS = Path(__file__).with_name("results.json")
LOOK = LOGS / "quick.json"
"""What `--quick` writes, so that no look replaces a figure."""
SETTLE_SECONDS = 0.5
"""Rest before each run: a side's threads may wait for work, awake, for a while after theirs (vLLM's .2 s, one core)."""
CRITIC_LAYERS = 4


class Bench:
    """One run: sides are started when a row needs them, and ended with it."""

    def __init__(self, *, rounds: int | None, quick: bool, console: Console) -> None:
        self.rounds, self.quick, self.console = rounds, quick, console
        self.threads = machine.threads()
        self.versions: dict[str, dict[str, str]] = {}
        self.model, self.size, self.critic = _model()
        self.limits: Machine = machine.measure(self.threads)

    def side(self, module: str, peer: peers.Peer | None) -> Side:
        """Start a side."""
        side = Side(module, peer, model=self.model, threads=self.threads, quick=self.quick)
        if peer:
            self.versions[peer.name] = side.versions
        return side

    def sampling(self, row: SamplingRow) -> list[Row]:
        """Measure one workload beside each of its peers."""
        ours, theirs, notes = self._rounds(
            row.workload, [(peer, module) for peer, module, _ in row.reaches], row.minutes
        )
        shares = [self._least_seconds(row.workload, number) / one.seconds for number, one in enumerate(ours, 1)]
        return [
            compare(
                row.name,
                peer.name,
                "tokens/s",
                [one.tokens / one.seconds for one in ours],
                [one.tokens / one.seconds for one in theirs[peer.name]],
                reach=reach,
                more_is_better=True,
                limit=statistics.median(shares),
                note=notes.get(peer.name, ""),
            )
            for peer, _, reach in row.reaches
        ]

    def step(self) -> list[Row]:
        """Measure a whole training step and its memory; "of limit" is the model FLOP utilisation of learning."""
        ours, theirs, notes = self._rounds("step", [(peers.TRL, "side_trl")], STEP_MINUTES)
        other = theirs[peers.TRL.name]
        figures = {
            "s": ([one.seconds for one in ours], [one.seconds for one in other]),
            "GB": ([one.peak_bytes / 1e9 for one in ours], [one.peak_bytes / 1e9 for one in other]),
        }
        note = notes.get("trl", "")
        rows = [
            compare(name, "trl", unit, *figures[unit], reach=reach, more_is_better=False, note=note)
            for name, unit, reach in STEP
        ]
        learning = [one.learn_seconds for one in ours if one.learn_seconds]
        shares = [self._least_learning(one) / one.learn_seconds for one in ours if one.learn_seconds]
        more = f"learning takes {statistics.median(learning):.2f} s of ours" if learning else ""
        limit = statistics.median(shares) if shares else None
        return [dataclasses.replace(rows[0], limit=limit, note="; ".join(filter(None, (note, more)))), *rows[1:]]

    def _least_learning(self, one: Measured) -> float:
        policy = self.size._replace(layers=self.size.layers - self.critic.layers)
        read = one.read_tokens or 0
        return limits.training_seconds(read, one.tokens, policy, self.critic, self.limits.bf16_gflops)

    def _least_seconds(self, workload: str, seed: int) -> float:
        talks = workloads.talks(workload, seed, quick=self.quick)
        return limits.sampling_seconds(talks, self.size, self.limits.bf16_gflops, self.limits.read_gbytes)

    def _rounds(
        self, name: str, others: list[tuple[peers.Peer, str]], minutes: float
    ) -> tuple[list[Measured], dict[str, list[Measured]], dict[str, str]]:
        """Return our runs, each peer's, and why a peer could not run.

        In each round all sides do the same work in turn; a small round before them warms all up. When the minutes are
        over, no further round begins.
        """
        rounds = self.rounds or (2 if self.quick else ROUNDS)
        self.limits = machine.better(self.limits, machine.measure(self.threads))
        sides, notes = {"foretaste": self.side("side_ours", None)}, {}
        found: dict[str, list[Measured]] = {"foretaste": [], **{peer.name: [] for peer, _ in others}}
        try:
            for peer, module in others:
                try:
                    sides[peer.name] = self.side(module, peer)
                except PeerMissing as error:
                    notes[peer.name] = f"not measured: {error}"
            began = time.perf_counter()
            for number in range(rounds + 1):
                if not self.rounds and number > FEWEST and time.perf_counter() - began > 60 * minutes:
                    break
                for label, side in sides.items():
                    time.sleep(SETTLE_SECONDS)
                    done = side.run(name, number, quick=self.quick or number == 0)
                    if number:
                        found[label].append(done)
                if number:
                    told = ", ".join(f"{label} {runs[-1].seconds:.2f} s" for label, runs in found.items() if runs)
                    self.console.print(f"{name}, round {number} of {rounds}: {told}")
        finally:
            for side in sides.values():
                side.close()
        return found.pop("foretaste"), found, notes

    def about(self) -> dict[str, Any]:
        """Return what a reader needs to place the figures."""
        names = ("foretaste", "torch", "transformers")
        return {
            "model": "smollm2-135m",
            "machine": self.limits._asdict() | {"python": platform.python_version()},
            "versions": {"foretaste": {name: importlib.metadata.version(name) for name in names}, **self.versions},
        }


def _model() -> tuple[str, limits.Size, limits.Size]:
    """Return the folder of the model, its size with the critic, and the critic's alone."""
    from transformers import AutoConfig

    from foretaste.models.sources import resolve

    folder = str(resolve("smollm2-135m"))
    config = AutoConfig.from_pretrained(folder)
    whole, alone = limits.size_of(config, CRITIC_LAYERS), limits.size_of(config, 0)
    return folder, whole, whole._replace(layers=whole.layers - alone.layers)


def main(arguments: list[str] | None = None) -> None:
    """Measure the chosen rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed side by side with peers.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"any of {', '.join(NAMES)} (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="a quarter of the work, 2 rounds; writes build/benchmarks/quick.json"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=None,
        help="rounds of each row (default: 5, or 3 and more in its minutes)",
    )
    parser.add_argument(
        "--output", type=Path, help="the file to write (default: results.json beside this; see --quick)"
    )
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.rows) - set(NAMES))
    if unknown:
        parser.error(f"unknown rows: {', '.join(unknown)}; accepted: {', '.join(NAMES)}")
    rows = chosen.rows or NAMES
    console = Console(width=170)
    bench = Bench(rounds=chosen.rounds, quick=chosen.quick, console=console)
    found = bench.limits
    console.print(
        f"{found.processor}, {found.threads} threads: bf16 products {found.bf16_gflops:,.0f} GFLOP/s, "
        f"reading {found.read_gbytes:.1f} GB/s, copying {found.copy_gbytes:.1f} GB/s"
    )
    work: dict[str, Callable[[], list[Row]]] = {row.workload: partial(bench.sampling, row) for row in SAMPLING}
    work |= {"step": bench.step, "nano": lambda: [nano_row(3)], "help": lambda: [help_row(9)]}
    output = chosen.output or (LOOK if chosen.quick else RESULTS)
    everything: list[Row] = []
    for name in NAMES:
        if name in rows:
            everything = write(output, work[name](), bench.about())
    show(console, everything, f"foretaste beside its peers, smollm2-135m in bfloat16 ({output})")


if __name__ == "__main__":
    main()
