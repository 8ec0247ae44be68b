"""`foretaste train`: merge recipe and flags, run, show the final table and the report's path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from foretaste.checks import check, value_at
from foretaste.commands.arguments import flag_names, parse
from foretaste.config import TrainConfig, from_dict, load_recipe
from foretaste.errors import ConfigError, interrupted

if TYPE_CHECKING:
    from foretaste.records import RunSummary

EXAMPLES = """\
  foretaste train
  foretaste train recipes/maze.toml
  foretaste train recipes/extract.toml --steps 30 --seed 1
  foretaste train --env maze --model nano --steps 20
  foretaste train --env my_module:MyEnv --algorithm grpo --algorithm.group-size 8
  foretaste train --model nano --curriculum.sources maze@1 maze@2 --curriculum.order learning_progress
  foretaste train --env dataset:questions.jsonl --env.examples 3
  foretaste train --practice practice --curriculum.order learning_progress
  foretaste train --resume latest"""

SHORTHANDS = {"--env": "--env.id", "--model": "--model.name", "--algorithm": "--algorithm.name"}


@dataclass(frozen=True)
class TrainArguments:
    """Train a model on an environment.

    Settings come from the defaults, then the recipe, then the flags.
    `--env`, `--model` and `--algorithm` are short for `--env.id`, `--model.name` and `--algorithm.name`.
    """

    recipe: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RECIPE]")] = None
    """TOML file with the settings that differ from the defaults."""
    resume: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """Go on with this run (an id, the unique beginning of one, or `latest`) with its own settings."""
    practice: Annotated[str | None, tyro.conf.arg(metavar="PAPER")] = None
    """Draw items of the kinds that this public exam paper asks: they become `curriculum.sources`."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


def run(arguments: list[str]) -> None:
    """Train as the arguments say.

    Raises: KeyboardInterrupt on Ctrl-C or a signal to end, its message naming the command that goes on with the run.
    """
    config, resume = read_arguments(arguments)
    from rich.console import Console

    from foretaste.progress import RichProgress

    console = Console()
    before = _newest_run(config.runs_folder)
    try:
        from foretaste.api import train

        with RichProgress(steps=config.steps, console=console) as progress:
            checkpoint = train(config, resume=resume, progress=progress)
    except KeyboardInterrupt as error:
        newest = resume or _newest_run(config.runs_folder)
        if newest is None or newest == before:
            raise interrupted(error, "Nothing had been trained yet.") from None
        folder = "" if config.runs_folder == TrainConfig().runs_folder else f" --runs-folder {config.runs_folder}"
        raise interrupted(error, f"Go on with: foretaste train --resume {newest}{folder}") from None
    from foretaste.api import summary_of
    from foretaste.ledger import Ledger

    with Ledger.open(config.runs_folder) as ledger:
        if checkpoint.run is not None:
            show_summary(summary_of(ledger, checkpoint.run), console)


def read_arguments(arguments: Sequence[str]) -> tuple[TrainConfig, str | None]:
    """Return the checked config that recipe, resumed run and flags make, and the id of the run to resume."""
    given = expand_shorthands(arguments)
    first = _parse(given, TrainArguments())
    if first.practice is not None and first.resume is not None:
        raise ConfigError(f"--resume goes on with the run's own items; leave out --practice {first.practice}")
    if first.recipe is not None and first.resume is not None:
        raise ConfigError(f"--resume goes on with the run's own settings; leave out the recipe {first.recipe!r}")
    if first.resume is not None:
        return _resumed(given, first.resume, first.config.runs_folder)
    if first.recipe is not None:
        recipe = load_recipe(first.recipe)
        first = _parse(given, TrainArguments(recipe=first.recipe, config=recipe))
    return check(_practising(first.config, first.practice)), None


def _practising(config: TrainConfig, paper: str | None) -> TrainConfig:
    if paper is None:
        return config
    if config.curriculum.sources:
        raise ConfigError(
            f"--practice {paper} and curriculum.sources = {list(config.curriculum.sources)} both say what to draw; "
            "accepted: one of them"
        )
    from foretaste.exams.practice import sources_of

    return replace(config, curriculum=replace(config.curriculum, sources=sources_of(paper)))


def expand_shorthands(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `--env X` as `--env.id X`, and so on."""
    expanded = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        expanded.append(SHORTHANDS.get(flag, flag) + equals + value)
    return expanded


def _parse(given: Sequence[str], default: TrainArguments) -> TrainArguments:
    return parse(TrainArguments, given, command="train", examples=EXAMPLES, default=default)


def _resumed(given: Sequence[str], wanted: str, runs_folder: str) -> tuple[TrainConfig, str]:
    """Return the config saved with the run `wanted`, and its full id; a flag that says otherwise is refused."""
    from foretaste.ledger import Ledger

    with Ledger.open(runs_folder) as ledger:
        info = ledger.run(wanted, kind="train")
    saved = replace(from_dict(TrainConfig, info.config, where=info.id), runs_folder=runs_folder)
    config = _parse(given, TrainArguments(config=saved)).config
    for flag in flag_names(TrainConfig):
        path = flag.removeprefix("--").replace("-", "_")
        if value_at(config, path) != value_at(saved, path):
            raise ConfigError(
                f"{flag} {value_at(config, path)!r} differs from the {value_at(saved, path)!r} of {info.id}: "
                f"a resumed run keeps its settings. Leave the flag out, or start a new run without --resume"
            )
    return check(config), info.id


def _newest_run(folder: str) -> str | None:
    """Return the id of the newest training run in a folder, without creating a ledger there."""
    from foretaste.ledger import Ledger

    if "://" not in folder and not (Path(folder) / "ledger.sqlite").is_file():
        return None
    with Ledger.open(folder) as ledger:
        return max(ledger.runs("train"), key=lambda info: info.created).id if ledger.runs("train") else None


def show_summary(summary: RunSummary, console: Any) -> None:
    """Print the final table and where the results lie."""
    from rich.table import Table
    from rich.text import Text

    from foretaste.progress import duration

    title = Text(f"{summary.env} learned by {summary.model}")  # as text: a path may hold what looks like markup
    table = Table(title=title, title_justify="left", show_header=False)
    for name, text in summary_rows(summary):
        table.add_row(name, text)
    table.add_row("wall time", duration(summary.wall_seconds))
    console.print(table)
    for note in summary.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    console.print(f"Checkpoint: {summary.checkpoint_path}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report:     {summary.report}", markup=False, highlight=False, soft_wrap=True)


def summary_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """Return the name and text of each figure of the final table; what is missing says so."""

    def success(mean: float, interval: tuple[float, float]) -> str:
        return f"{mean:.3f}  [{interval[0]:.3f}, {interval[1]:.3f}]"

    def measured(value: float | None) -> str:
        return "not measured" if value is None else f"{value:.3f}"

    low, high = summary.gain_interval
    least = summary.value_calibration_floor
    floor = "" if least is None else f"  (a perfect V on these items: {least:.3f})"
    return [
        ("success before", success(summary.success_before, summary.success_before_interval)),
        ("success after", success(summary.success_after, summary.success_after_interval)),
        ("gain", f"{summary.gain:+.3f}  [{low:+.3f}, {high:+.3f}]"),
        ("measured on", f"{summary.n_items} fresh held-out items; 95% intervals"),
        ("intervals", "exact; that of the gain is a score interval"),
        ("episodes", f"{summary.episodes:,}"),
        ("sampled tokens", f"{summary.sampled_tokens:,}"),
        ("value calibration error", measured(summary.value_calibration_error) + floor),
        ("value AUC halfway", measured(summary.value_auc)),
    ]
