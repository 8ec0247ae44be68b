"""`make bench`: speed side by side with peers, in one run; prints a table and writes results.json.

    make bench                                 everything: about half an hour on 2 cores
    make bench ROWS="short help"               some rows
    make bench QUICK=1                         a quarter of the work, 2 pairs: a look, not a figure to quote

Sides are processes that keep their models loaded (`sides.py`); for each pair ours and the peer do the same work
(`workloads.py`) one after the other, so that a machine whose speed drifts treats both alike. `rows.py` says what is
compared, `limits.py` what the machine allows at most, `growth.py` measures how cost grows.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import limits, machine, peers, workloads
from benchmarks.machine import Machine
from benchmarks.peers import PeerMissing
from benchmarks.rows import NAMES, SAMPLING, STEP_NAMES, STEP_REACHES, SamplingRow, help_row, nano_row
from benchmarks.sides import Measured, Side
from benchmarks.table import Row, compare, show, write

RESULTS = Path(__file__).with_name("results.json")
CRITIC_LAYERS = 4
STEP_PAIRS = 3
"""Pairs of the training step, of which the peer's takes most of a minute."""


class Bench:
    """One run: sides are started when a row needs them, and ended with it."""

    def __init__(self, *, pairs: int, quick: bool, console: Console) -> None:
        self.pairs, self.quick, self.console = pairs, quick, console
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
        made = []
        for peer, module, reach in row.reaches:
            ours, theirs, note = self._pairs(row.workload, module, peer, self.pairs)
            rates = [one.tokens / one.seconds for one in ours]
            least = [
                limits.sampling_seconds(
                    workloads.talks(row.workload, seed + 1, quick=self.quick),
                    self.size,
                    self.limits.bf16_gflops,
                    self.limits.read_gbytes,
                )
                / one.seconds
                for seed, one in enumerate(ours)
            ]
            made.append(
                compare(
                    row.name,
                    peer.name,
                    "tokens/s",
                    rates,
                    [one.tokens / one.seconds for one in theirs],
                    reach=reach,
                    more_is_better=True,
                    limit=sorted(least)[len(least) // 2],
                    note=note,
                )
            )
        return made

    def step(self) -> list[Row]:
        """Measure a whole training step and its memory."""
        ours, theirs, note = self._pairs("step", "side_trl", peers.TRL, min(self.pairs, STEP_PAIRS))
        made = []
        for name, reach, unit, of in zip(
            STEP_NAMES,
            STEP_REACHES,
            ("s", "GB"),
            (lambda one: one.seconds, lambda one: one.peak_bytes / 1e9),
            strict=True,
        ):
            mine, other = [of(one) for one in ours], [of(one) for one in theirs]
            made.append(compare(name, "trl", unit, mine, other, reach=reach, more_is_better=False, note=note))
        return made

    def _pairs(
        self, name: str, module: str, peer: peers.Peer, pairs: int
    ) -> tuple[list[Measured], list[Measured], str]:
        """Return paired measurements, one run of each before them; the peer's are empty, with a note, if it cannot."""
        ours, theirs, note, other = [], [], "", None
        side = self.side("side_ours", None)
        try:
            try:
                other = self.side(module, peer)
            except PeerMissing as error:
                note = f"{peer.name} not measured: {error}"
            for seed in range(pairs + 1):
                mine = side.run(name, seed)
                done = other.run(name, seed) if other else None
                if seed:
                    ours.append(mine)
                    theirs += [done] if done else []
                    self.console.print(
                        f"{name} {seed}/{pairs}: ours {mine.seconds:.2f} s, "
                        f"{peer.name} {f'{done.seconds:.2f} s' if done else 'not measured'}"
                    )
        finally:
            for one in (side, other):
                if one:
                    one.close()
        return ours, theirs, note

    def about(self) -> dict[str, Any]:
        """Return what a reader needs to place the figures."""
        names = ("foretaste", "torch", "transformers")
        return {
            "model": "smollm2-135m",
            "quick": self.quick,
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
    parser.add_argument("--quick", action="store_true", help="a quarter of the work, 2 pairs")
    parser.add_argument("--pairs", type=int, default=None, help="pairs of each sampling row (default 5)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the file to write")
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.rows) - set(NAMES))
    if unknown:
        parser.error(f"unknown rows: {', '.join(unknown)}; accepted: {', '.join(NAMES)}")
    rows = chosen.rows or NAMES
    console = Console(width=170)
    bench = Bench(pairs=chosen.pairs or (2 if chosen.quick else 5), quick=chosen.quick, console=console)
    found = bench.limits
    console.print(
        f"{found.processor}, {found.threads} threads: bf16 products {found.bf16_gflops:,.0f} GFLOP/s, "
        f"reading {found.read_gbytes:.1f} GB/s, copying {found.copy_gbytes:.1f} GB/s"
    )
    made: list[Row] = []
    for row in SAMPLING:
        if row.workload in rows:
            made += bench.sampling(row)
    if "step" in rows:
        made += bench.step()
    if "nano" in rows:
        made.append(nano_row(3))
    if "help" in rows:
        made.append(help_row(9))
    everything = write(chosen.output, made, bench.about())
    show(console, everything, f"foretaste beside its peers, smollm2-135m in bfloat16 ({chosen.output})")


if __name__ == "__main__":
    main()
