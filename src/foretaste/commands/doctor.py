"""`foretaste doctor`: a bug, or an idea that does not help? And which way of learning suits an environment?"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from foretaste.checks import check
from foretaste.commands.arguments import parse
from foretaste.commands.train import expand_shorthands
from foretaste.config import ModelConfig, TrainConfig, load_recipe
from foretaste.errors import ConfigError

EXAMPLES = """\
  foretaste doctor
  foretaste doctor recipes/maze.toml
  foretaste doctor --env my_module:MyEnv --model nano
  foretaste doctor recipes/maze.toml --advise
  foretaste doctor --run latest --against maze-1122-0143"""

SOUND, FAULTY = 0, 1


@dataclass(frozen=True)
class DoctorArguments:
    """Run small probes that each isolate one fault, with your model and settings; say what is likely wrong.

    Exact checks compare what the trainer computes with the same figures worked out by hand; learning probes are
    tiny tasks that a sound trainer must learn, with your settings or else with settings known to learn them, so that
    a learning rate is not taken for a bug. Exit code 0: the machinery is sound; 1: it is not.
    With `--advise` it measures your environment instead and says which way of learning suits it.
    """

    recipe: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RECIPE]")] = None
    """TOML file with the settings that differ from the defaults; the model is nano unless one is named."""
    advise: bool = False
    """Measure success, observability and signal on the environment, and advise a way of learning."""
    run: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """Also judge what this run gained on held-out items, with its own settings."""
    against: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """Compare `--run` with this run on the same items, instead of with itself before training."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainConfig(model=ModelConfig("nano"))
    )


def run(arguments: list[str]) -> int:
    """Print findings as they come and the verdict; return the exit code."""
    given = read_arguments(arguments)
    return _advise(given.config) if given.advise else _examine(given)


def read_arguments(arguments: list[str]) -> DoctorArguments:
    """Return the arguments, the recipe's or the run's settings in place of the defaults, flags over both."""
    expanded = expand_shorthands(arguments)
    first = parse(DoctorArguments, expanded, command="doctor", examples=EXAMPLES)
    if first.against is not None and first.run is None:
        raise ConfigError("--against names what --run is compared with; give --run too")
    if first.recipe is None and first.run is None:
        return dataclasses.replace(first, config=check(first.config))
    if first.recipe is not None:
        base = load_recipe(first.recipe)
    else:
        from foretaste.config import from_dict
        from foretaste.ledger import Ledger

        with Ledger.open(first.config.runs_folder, create=False) as ledger:
            base = from_dict(TrainConfig, ledger.run(first.run or "latest", kind="train").config)
    default = DoctorArguments(recipe=first.recipe, config=base)
    final = parse(DoctorArguments, expanded, command="doctor", examples=EXAMPLES, default=default)
    return dataclasses.replace(final, config=check(final.config))


def _examine(given: DoctorArguments) -> int:
    from rich.console import Console

    from foretaste.rl.doctor import diagnosis, examine

    console = Console(highlight=False)
    outcome = _outcome(given) if given.run else None
    console.print(f"model {given.config.model.name}, env {given.config.env.id}", markup=False)
    findings = []
    for finding in examine(given.config):
        findings.append(finding)
        mark = {True: "sound", False: "WRONG", None: "-"}[finding.sound]
        console.print(f"{mark:<6} {finding.probe:<30} {finding.text}", markup=False, soft_wrap=True)
    text, sound = diagnosis(findings, outcome)
    console.print(f"\n{text}", markup=False, soft_wrap=True)
    return SOUND if sound else FAULTY


def _outcome(given: DoctorArguments) -> Any:
    """Return what a run gained on its held-out items."""
    from foretaste.ledger import Ledger
    from foretaste.rl.doctor import outcome_of

    def measured(ledger: Ledger, run: str, label: str) -> Any:
        found = [r.payload for r in ledger.records(run, "held_out") if r.payload["label"] == label]
        if not found:
            raise ConfigError(f"Run {run} has no held-out measurement {label!r}: it has not finished")
        return found[-1]

    with Ledger.open(given.config.runs_folder, create=False) as ledger:
        run = ledger.run(given.run or "latest", kind="train").id
        after = measured(ledger, run, "after")
        other = ledger.run(given.against, kind="train").id if given.against else run
        before = measured(ledger, other, "after" if given.against else "before")
        if after["seeds"] != before["seeds"] or _items(ledger, run) != _items(ledger, other):
            raise ConfigError(f"{run} and {other} were measured on different items; compare runs of one environment")
    try:
        return outcome_of(after["success"], before["success"], other if given.against else "itself before training")
    except ValueError as error:
        raise ConfigError(f"{run} cannot be compared with {other}: {error}") from error


def _items(ledger: Any, run: str) -> Any:
    return {name: ledger.run(run).config["env"].get(name) for name in ("id", "level", "registers")}


def _advise(config: TrainConfig) -> int:
    from rich.console import Console

    from foretaste.rl.advise import meet, words

    console = Console(highlight=False)
    console.print(f"model {config.model.name} meets {config.env.id} ...", markup=False)
    for line in words(meet(config)):
        console.print(line, markup=False, soft_wrap=True)
    return SOUND
