"""`foretaste deploy simulate`: watch a real learner take over a simulated world's requests, and see it caught."""

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
  foretaste deploy simulate --alpha 0.02 --seed 3"""


@dataclass(frozen=True)
class SimulateArguments:
    """Simulate a deployment from shadow to live, with a tiny model that starts useless and learns on the job.

    The incumbent is scripted and right 95% of the time; the model, its learning, thresholds and stages are real.
    """

    requests: int = 4000
    """Requests that arrive."""
    change: Literal["none", "policy", "register"] = "none"
    """What happens midway: messages of one queue belong to another, or all are reworded."""
    alpha: float = 0.05
    """Largest share of wrong answers among those that the learner serves."""
    seed: int = 0
    """Of traffic, model and learning."""
    folder: str = "runs/simulated-deployment"
    """Where checkpoints and page.html are written."""


def run(arguments: list[str]) -> None:
    """Simulate, print the figures and the page's path."""
    given = parse(SimulateArguments, arguments, command="deploy simulate", examples=EXAMPLES)
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
