"""`foretaste think`: value-guided inference with a trained checkpoint, beside its baselines, at what it costs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from foretaste.commands.arguments import parse
from foretaste.config import EnvConfig, SamplingConfig
from foretaste.errors import ConfigError

EXAMPLES = """\
  foretaste think runs/maze-1122-0143-7f3a/checkpoint --env maze
  foretaste think CHECKPOINT --env maze --methods beam restart --n 4 --items 100
  foretaste think CHECKPOINT --env reasoning/gcd --json"""


@dataclass(frozen=True)
class ThinkArguments:
    """Try held-out items with several ways of thinking longer, and print accuracy against tokens.

    one: a single attempt. vote, likelihood: n attempts; the most frequent answer, the most likely attempt.
    best: n attempts, the one that V rates highest. beam: each turn is sampled n times, V picks.
    restart: an attempt is given up where V falls low, and kept where V is sure.
    """

    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """Folder written by `foretaste train`."""
    env: EnvConfig = field(default_factory=EnvConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    methods: tuple[str, ...] = ("one", "vote", "likelihood", "best", "beam", "restart")
    """Which ways, of the six above."""
    n: int = 8
    """Attempts at an item, or candidates of a turn."""
    give_up: float = 0.5
    """restart: an attempt ends where V falls below this share of V at its start."""
    sure: float = 0.9
    """restart: an attempt with at least this V at its end is kept."""
    items: int = 50
    """Held-out items, the same for every method."""
    seed: int = 0
    """Seed of which items and of the attempts."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    json: bool = False
    """Print the figures as JSON, one object a method."""


def run(arguments: list[str]) -> None:
    """Print one row a method."""
    expanded = [("--env.id" + a[len("--env") :]) if a.split("=")[0] == "--env" else a for a in arguments]
    given = parse(ThinkArguments, expanded, command="think", examples=EXAMPLES)
    if given.items < 1:
        raise ConfigError(f"--items {given.items} cannot be used; accepted: 1 or more")
    from rich.console import Console
    from rich.table import Table

    from foretaste.models.checkpoint import load
    from foretaste.rl.think import Budget, check_method, think

    actor_critic = load(given.checkpoint, device=given.device)
    table = Table(box=None, pad_edge=False)
    for heading in ("method", "solved", "interval", "tokens an item", "attempts an item"):
        table.add_column(heading)
    budget = Budget(given.n, given.give_up, given.sure)
    for method in given.methods:  # before the first is played
        check_method(actor_critic, method, budget)
    for method in given.methods:
        found = think(
            actor_critic,
            given.env,
            given.sampling,
            method=method,  # type: ignore[arg-type]
            items=given.items,
            budget=budget,
            seed=given.seed,
        )
        if given.json:
            print(json.dumps(found.to_json()))
            continue
        interval = found.interval
        solved = ("not measured", "") if interval is None else _figures(interval.mean, interval.low, interval.high)
        attempts = sum(thought.attempts for thought in found.thoughts) / len(found.thoughts)
        table.add_row(method, *solved, f"{found.tokens_per_item:,.0f}", f"{attempts:.1f}")
    if not given.json:
        Console(markup=False).print(table)


def _figures(mean: float, low: float, high: float) -> tuple[str, str]:
    return f"{mean:.3f}", f"[{low:.3f}, {high:.3f}]"
