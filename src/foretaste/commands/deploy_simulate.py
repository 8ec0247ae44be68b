"""`foretaste deploy simulate`: a deployment in a simulated world, with a real learner, or many with a drawn one."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foretaste.commands.arguments import parse
from foretaste.errors import ConfigError

EXAMPLES = """\
  foretaste deploy simulate                               minutes; ends with figures and the path of a page
  foretaste deploy simulate --requests 6400 --change policy
  foretaste deploy simulate --alpha 0.02 --seed 3
  foretaste deploy simulate --world drift --runs 100      no model: does the promise hold where the error rises?
  foretaste deploy simulate --world all --processes 2     every world, 500 deployments of each case"""

WorldName = Literal["late", "complaints", "shared", "drift", "liars", "still", "all"]


@dataclass(frozen=True)
class SimulateArguments:
    """Simulate a deployment from shadow to live, with a tiny model that starts useless and learns on the job.

    The incumbent is scripted and right 95% of the time; the model, its learning, thresholds and stages are real.

    With --world there is no model: many deployments are drawn in worlds made to break the promise, and decided by the
    same thresholds, stages and watch as a server's. A table says what was promised and what came.
    """

    requests: int = 4000
    """Requests that arrive (without --world)."""
    change: Literal["none", "policy", "register"] = "none"
    """What happens midway: messages of one queue belong to another, or all are reworded."""
    alpha: float = 0.05
    """Largest share of wrong answers among those that the learner serves."""
    seed: int = 0
    """Of traffic, model and learning."""
    folder: str = "runs/simulated-deployment"
    """Where checkpoints and page.html are written. With --world: worlds.html, and outcomes/, so that it can go on."""
    world: WorldName | None = None
    """late: judgements come late. complaints: users who volunteer feedback. shared: errors that the judge shares.
    drift: the error rises. liars: users praise wrong answers. still: nothing happens."""
    runs: int = 500
    """Deployments of each case of the world."""
    delta: float = 0.05
    """Chance that the promise fails, and chance of a false step back (with --world)."""
    check_share: float = 0.1
    """Share of a live learner's answers that are checked on average (with --world)."""
    processes: int = 1
    """Processor cores to use (with --world); the figures are the same."""


def run(arguments: list[str]) -> None:
    """Simulate, print the figures and the page's path."""
    given = parse(SimulateArguments, arguments, command="deploy simulate", examples=EXAMPLES)
    if given.world is not None:
        return _worlds(given)
    if given.requests < 64:
        raise ConfigError(
            f"--requests = {given.requests} cannot be used; accepted: 64 or more, a few thousand to learn"
        )
    from dataclasses import replace

    from foretaste.deploy.simulate import simulate
    from foretaste.deploy.simulation_page import figures, write_page
    from foretaste.deploy.simulation_result import SimulationConfig

    base = SimulationConfig()
    config = replace(
        base,
        requests=given.requests,
        change=given.change,
        seed=given.seed,
        folder=given.folder,
        stage=replace(base.stage, alpha=given.alpha),
    )
    result = simulate(
        config, lambda event: print(f"{event.request:>6,}  {event.kind:<9} {event.text}", file=sys.stderr)
    )
    for name, figure in figures(result):
        print(f"{name + ':':<56}{figure}")
    print(write_page(result, Path(given.folder) / "page.html"))
    return None


def _worlds(given: SimulateArguments) -> None:
    """Run every case of the world, with a bar; print the table and the page's path."""
    for name in ("runs", "processes"):
        if getattr(given, name) < 1:
            raise ConfigError(f"--{name} = {getattr(given, name)} cannot be used; accepted: 1 or more")
    if not 0 <= given.check_share <= 1:
        raise ConfigError(f"--check-share = {given.check_share} cannot be used; accepted: 0 to 1")
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from foretaste.deploy.simulation.kept import Kept
    from foretaste.deploy.simulation.run import Outcome, many
    from foretaste.deploy.simulation.table import Row, as_text, row_of, write_page
    from foretaste.deploy.simulation.worlds import cases
    from foretaste.deploy.stage_config import StageConfig

    folder, config = Path(given.folder), StageConfig(alpha=given.alpha, delta=given.delta)
    found: list[Row] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        for world in cases(given.world or "all"):
            kept = Kept(folder / "outcomes", world, config, check_share=given.check_share, seed=given.seed)
            done = kept.outcomes()[: given.runs]
            task = bars.add_task(f"{world.name}: {world.case}", total=given.runs, completed=len(done))

            def keep(outcome: Outcome, kept: Kept = kept, task: TaskID = task) -> None:
                kept.add(outcome)
                bars.advance(task)

            outcomes = many(
                world,
                runs=given.runs,
                seed=given.seed,
                config=config,
                check_share=given.check_share,
                processes=given.processes,
                done=done,
                keep=keep,
            )
            found.append(row_of(world, outcomes))
    print(as_text(found))
    print(
        write_page(
            found,
            folder / "worlds.html",
            config=config,
            check_share=given.check_share,
            runs=given.runs,
            seed=given.seed,
        )
    )
