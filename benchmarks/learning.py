"""Learning side by side with TRL: the same task, warm start, budget of sampled tokens and held-out exam.

Runs that are finished are kept under build/learning and used again, so the command may be interrupted and repeated.
What is compared and why it is fair: docs/learning.md. `learning_plan.py` holds what the arms share,
`learning_task.py` the task, `side_learning.py` and `side_learning_trl.py` the two sides.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine, peers
from benchmarks.learning_jobs import Jobs
from benchmarks.learning_plan import (
    ARMS,
    RATE_SEED,
    UPDATES,
    Plan,
    Result,
    Setting,
    Unfair,
    best_settings,
    check_fair,
    mean,
)
from benchmarks.peers import PeerMissing
from benchmarks.table import NOT_MEASURED
from foretaste.deploy.files import write_json
from foretaste.lab.sequences import exactly, t_interval
from foretaste.statistics import exact_interval

RESULTS = Path(__file__).with_name("learning.json")
FOLDER = peers.ROOT / "build" / "learning"
EXAMPLES = """examples:
  python -m benchmarks.learning                                  # everything: 5 arms, 3 seeds, 6 settings each
  python -m benchmarks.learning --rates 1e-4 --updates 1         # without looking for settings
  python -m benchmarks.learning --arms auto trl --seeds 0        # two runs (after those that choose settings)
  python -m benchmarks.learning --tokens 2000 --items 16 --rates 1e-4 --updates 1 --seeds 0 --output /tmp/look.json

A run that is finished is not repeated. To measure anew: remove its file from build/learning/results.
"""


class Told:
    """One line that says what is going on: rewritten on a terminal, at most once a minute elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console, self.what, self.budget = console, "", 0
        self.started = self.shown = 0.0

    def begin(self, what: str, budget: int) -> None:
        """Name the run that begins."""
        self.what, self.budget = what, budget
        self.started, self.shown = time.monotonic(), 0.0

    def __call__(self, said: dict[str, Any]) -> None:
        """Show what a process says."""
        if "note" in said:
            self.console.print(f"{self.what}: {said['note']}", highlight=False)
        if "tokens" not in said:
            return
        now = time.monotonic()
        rate = "" if said.get("success") is None else f", training success {said['success']:.2f}"
        line = (
            f"{self.what}: {said['tokens']:,} of {self.budget:,} tokens, {said['episodes']} episodes, "
            f"{(now - self.started) / 60:.1f} min{rate}"
        )
        if self.console.is_terminal:
            self.console.print(line.ljust(100), end="\r", highlight=False)
        elif now - self.shown >= 60:
            self.shown = now
            self.console.print(line, highlight=False)


def tries_of(jobs: Jobs, plan: Plan, arms: Sequence[str], settings: Sequence[Setting], told: Told) -> list[Result]:
    """Let each arm try each setting once, on rules of its own and half the budget; nothing to choose: no try."""
    tries = []
    for arm in arms if len(settings) > 1 else ():
        for rate, updates in settings:
            told.begin(f"{arm} tries learning rate {rate:g}, {updates} times its updates", plan.tokens)
            tries.append(jobs.result(plan, arm, RATE_SEED, rate, updates))
    check_fair(tries, plan)
    return tries


def about(plan: Plan, chosen: dict[str, Setting], threads: int) -> dict[str, Any]:
    """Return what a reader needs beside the results."""
    names = ("foretaste", "torch", "transformers")
    versions = {"foretaste": {name: importlib.metadata.version(name) for name in names}}
    if "trl" in chosen:
        versions["trl"] = dict(text.split("==") for text in peers.TRL.packages)
    found = {"processor": machine.processor(), "threads": threads, "python": platform.python_version()}
    return {
        "model": "smollm2-135m",
        "plan": dataclasses.asdict(plan),
        "learning_rates": {arm: one.rate for arm, one in chosen.items()},
        "updates": {arm: one.updates for arm, one in chosen.items()},
        "machine": found,
        "versions": versions,
    }


def share(outcomes: Sequence[float | None]) -> str:
    """Return success with its exact 95% interval."""
    judged = [outcome for outcome in outcomes if outcome is not None]
    if not judged:
        return NOT_MEASURED
    found = exact_interval(sum(outcome >= 1.0 for outcome in judged), len(judged))
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def setting_text(one: Result) -> str:
    """Return the learning rate, and the multiple of the arm's own updates where it is another than 1."""
    return f"{one.rate:g}" if one.updates == 1 else f"{one.rate:g}, x{one.updates}"


def show(console: Console, results: Sequence[Result], title: str) -> None:
    """Print a row a run, and a row an arm with the mean over its seeds."""
    table = Table(title=title, title_justify="left")
    for name in ("arm", "rate, updates", "seed", "before", "after", "tokens", "episodes", "minutes", "peak GB"):
        table.add_column(name, justify="left" if name == "arm" else "right")
    for arm in dict.fromkeys(one.arm for one in results):
        of_arm = [one for one in results if one.arm == arm]
        for one in of_arm:
            figures = (f"{one.tokens:,}", str(one.episodes), f"{one.seconds / 60:.1f}", f"{one.peak_bytes / 1e9:.2f}")
            table.add_row(arm, setting_text(one), str(one.seed), share(one.before), share(one.after), *figures)
        if len(of_arm) > 1:
            minutes = sum(one.seconds for one in of_arm) / 60 / len(of_arm)
            means = [mean([mean(getattr(one, name)) for one in of_arm]) for name in ("before", "after")]
            ends = [NOT_MEASURED if one is None else f"{one:.3f}" for one in means]
            table.add_row(arm, "", "mean", *ends, "", "", f"{minutes:.1f}", "", style="bold", end_section=True)
    console.print(table)


def differences(results: Sequence[Result]) -> list[str]:
    """Return by how much the first arm ended above each other one, a line each: over the seeds that both have.

    The mean of the paired differences with its t interval, so two seeds at least.
    """
    arms = list(dict.fromkeys(one.arm for one in results))
    ends = {arm: {one.seed: mean(one.after) for one in results if one.arm == arm} for arm in arms}
    lines = []
    for other in arms[1:]:
        pairs = [(end, ends[other].get(seed)) for seed, end in ends[arms[0]].items()]
        found = [exactly(ours - theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
        if len(found) >= 2:
            estimate, low, high = t_interval(found)
            lines.append(f"{arms[0]} less {other}: {estimate:+.3f} [{low:+.3f}, {high:+.3f}], {len(found)} seeds")
    return lines


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning",
        description="What foretaste's arms and TRL's GRPOTrainer learn from the same number of sampled tokens.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    parser.add_argument("--tokens", type=int, default=12_000, help="sampled action tokens of a run (default: 12000)")
    parser.add_argument("--items", type=int, default=200, help="held-out items of the exam (default: 200)")
    parser.add_argument(
        "--rates",
        nargs="+",
        type=float,
        default=[3e-5, 1e-4, 3e-4],
        metavar="RATE",
        help="rates, each tried once by every arm with half the tokens (default: 3e-5 1e-4 3e-4)",
    )
    parser.add_argument(
        "--updates",
        nargs="+",
        type=int,
        choices=sorted({one for known in UPDATES.values() for one in known}),
        default=[1, 4],
        metavar="TIMES",
        help="optimiser steps on a round's episodes, times an arm's own, each tried with every rate: 1, 4, 8 "
        "(default: 1 4)",
    )
    parser.add_argument("--threads", type=int, default=None, help="processors to use (default: all)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where runs are kept (default: build/learning)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the file to write")
    chosen = parser.parse_args(arguments)
    if chosen.tokens < 1 or chosen.items < 1:
        parser.error("--tokens and --items must be at least 1")
    if RATE_SEED in chosen.seeds:
        parser.error(f"seed {RATE_SEED} is the one that learning rates are chosen on, and updates with them")
    return chosen


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing, write the file, print the table."""
    chosen = parse(arguments)
    console = Console(width=150)
    told = Told(console)
    threads = chosen.threads or machine.threads()
    jobs = Jobs(chosen.folder, threads=threads, tell=told)
    told.begin("warm start", 0)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        plan = Plan(tokens=chosen.tokens, items=chosen.items, warm=jobs.warm()["id"])
        halved = dataclasses.replace(plan, tokens=-(-plan.tokens // 2))
        grid = [Setting(rate, updates) for rate in chosen.rates for updates in chosen.updates]
        tries = tries_of(jobs, halved, chosen.arms, grid, told)
        best = best_settings(tries) if tries else dict.fromkeys(chosen.arms, grid[0])
        results: list[Result] = []
        for seed in chosen.seeds:  # all arms of a seed in turn: what is interrupted is whole for the seeds before
            for arm in chosen.arms:
                told.begin(f"{arm}, seed {seed}", plan.tokens)
                results.append(jobs.result(plan, arm, seed, *best[arm]))
                check_fair(results, plan)
                rows = [dataclasses.asdict(one) for one in results]
                tried = [dataclasses.asdict(one) for one in tries]
                write_json(chosen.output, {**about(plan, best, threads), "results": rows, "tries": tried})
    except (PeerMissing, Unfair) as error:
        sys.exit(f"{error}\nWhat was finished is kept; the same command goes on.")
    results.sort(key=lambda one: (ARMS.index(one.arm), one.seed))
    if tries:
        show(console, tries, f"Settings, tried by every arm on other rules with {halved.tokens:,} tokens")
    show(
        console,
        results,
        f"Success on {plan.items} held-out items, smollm2-135m, {plan.tokens:,} tokens ({chosen.output})",
    )
    for line in differences(results):
        console.print(line, highlight=False)


if __name__ == "__main__":
    main()
