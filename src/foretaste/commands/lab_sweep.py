"""`foretaste lab sweep`: try settings of a recipe at the same token budget, and confirm the best on fresh seeds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from foretaste.commands.arguments import parse
from foretaste.config import TrainConfig, load_recipe
from foretaste.errors import ConfigError

EXAMPLES = """\
  foretaste lab sweep recipes/quick.toml algorithm.learning_rate=1e-4,3e-4,1e-3 --token-budget 20000
  foretaste lab sweep recipes/quick.toml algorithm.learning_rate=1e-5..1e-3 algorithm.turn_lambda=0.5..1 \\
      --method random --trials 12 --token-budget 20000"""


@dataclass(frozen=True)
class SweepArguments:
    """Try settings, each with the same token budget; the best is a winner only if fresh seeds confirm it."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """TOML recipe whose settings are varied; unchanged it is tried too."""
    settings: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SETTING=VALUES")]
    """setting=value,value,... or setting=low..high (with random and optuna)."""
    token_budget: int
    """Tokens that each training run may sample."""
    method: Literal["grid", "random", "optuna"] = "grid"
    """All combinations, random ones, or those that Optuna's TPE proposes."""
    trials: int = 16
    """Tries of random and optuna."""
    seeds: tuple[int, ...] = (1, 2)
    """Seeds of each try."""
    fresh_seeds: tuple[int, ...] = (101, 102, 103, 104, 105)
    """Seeds of the confirmation."""
    metric: str = "area"
    """Figure to make large: area (mean held-out success over the budget), success_after, gain ..."""
    workers: int | None = None
    """Jobs that run side by side; without it, as many as there are cores."""
    json: bool = False
    """Print the figures as JSON."""
    output: str = "results"
    """Folder for sweep-<recipe>.json and .svg."""
    runs_folder: str | None = None
    """Where runs and the ledger are; without it, the recipe's."""


def run(arguments: list[str]) -> None:
    """Run the sweep and print its table and result."""
    given = parse(SweepArguments, arguments, command="lab sweep", examples=EXAMPLES)
    if given.workers is not None and given.workers < 1:
        raise ConfigError(f"--workers = {given.workers} cannot be used; accepted: 1 or more")
    base = load_recipe(given.recipe, TrainConfig)
    from foretaste.lab.display import JobDisplay
    from foretaste.lab.spans import parse_span
    from foretaste.lab.sweep import Sweep, run_sweep
    from foretaste.lab.tables import markdown_table

    name = Path(given.recipe).stem
    sweep = Sweep(
        name=name,
        base=base,
        space=tuple(parse_span(setting, base) for setting in given.settings),
        token_budget=given.token_budget,
        method=given.method,
        trials=given.trials,
        seeds=given.seeds,
        fresh_seeds=given.fresh_seeds,
        metric=given.metric,
    )
    with JobDisplay(f"sweep {name}", sweep.jobs_expected) as display:
        found = run_sweep(sweep, Path(given.runs_folder or base.runs_folder), workers=given.workers, watcher=display)
    folder = Path(given.output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"sweep-{name}.json").write_text(json.dumps(found.to_json(), indent=1) + "\n", encoding="utf-8")
    (folder / f"sweep-{name}.svg").write_text(found.svg, encoding="utf-8")
    if given.json:
        print(json.dumps(found.to_json(), indent=1))
        return
    print(markdown_table(found.rows))
    print(found.text)
    print(folder / f"sweep-{name}.json")
