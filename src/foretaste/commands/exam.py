"""`foretaste exam`: let a policy sit a sealed paper; its subcommands are in `exam_more.py` and `exam_records.py`.

Exit codes: 0 PASS, 1 FAIL, 2 INCONCLUSIVE, 3 an error that the user can repair, 130 interrupted.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from foretaste.commands.arguments import parse
from foretaste.config import TrainConfig
from foretaste.errors import ConfigError, ForetasteError, interrupted
from foretaste.exams.settings import SitConfig

if TYPE_CHECKING:
    from foretaste.exams.exam import Sitting

EXAMPLES = """\
  foretaste exam papers
  foretaste exam new questions.jsonl
  foretaste exam quick --policy oracle
  foretaste exam quick --policy smollm2-135m
  foretaste exam extract --policy runs/extract-1122-0143-7f3a/checkpoint --samples 4
  foretaste exam my_paper.toml --policy openai:qwen3@http://localhost:8000/v1 --stop-early
  foretaste exam --resume latest
  foretaste exam compare SITTING_A SITTING_B"""

USAGE = 3
"""Errors; 1 and 2 are verdicts here."""

SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "papers": ("exam_more:papers", "the ready-made papers"),
    "new": ("exam_records:new", "make a sealed exam of a file of your own questions"),
    "list": ("exam_records:sittings", "all sittings with their scores"),
    "answers": ("exam_records:answers", "every answer of a sitting beside the right one; as CSV or JSON lines too"),
    "looks": ("exam_more:looks", "what was looked at, and what is left"),
    "compare": ("exam_more:compare", "is B better than A? reads logs of Inspect and lm-evaluation-harness too"),
    "reveal": ("exam_more:reveal", "show a paper's secret and prove that a sitting's items followed from it"),
    "export": ("exam_more:export", "write the items for another harness, with the same grader"),
}
"""Name -> (module and function in `foretaste.commands`, what it does)."""


@dataclass(frozen=True)
class ExamArguments:
    """Let a policy sit a paper: fresh items in many wordings, a verdict, and a page that says how far it reaches.

    Exit codes: 0 PASS, 1 FAIL, 2 INCONCLUSIVE or no verdict (--items-of), 3 an error that you can repair,
    130 interrupted with Ctrl-C.
    A sealed paper spends one of its looks per sitting; the key of an endpoint is read from OPENAI_API_KEY.
    Further subcommands: foretaste exam papers | new | list | answers | looks | compare | reveal | export.
    """

    paper: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[PAPER]")] = None
    """A ready-made paper, or the path of a TOML file."""
    resume: Annotated[str | None, tyro.conf.arg(metavar="SITTING")] = None
    """Go on with an interrupted sitting (an id, the unique beginning of one, or `latest`); spends no look."""
    runs_folder: str = TrainConfig().runs_folder
    """Where ledger, secrets and pages are."""
    json: bool = False
    """Print verdict and figures as JSON, progress on stderr."""
    config: Annotated[SitConfig, tyro.conf.arg(name="")] = field(default_factory=SitConfig)


def run(arguments: list[str]) -> int:
    """Sit, or run a subcommand; return the exit code. Errors carry exit code 3."""
    try:
        if arguments and arguments[0] in SUBCOMMANDS:
            module, _, function = SUBCOMMANDS[arguments[0]][0].partition(":")
            return getattr(importlib.import_module(f"foretaste.commands.{module}"), function)(arguments[1:]) or 0
        return _sit(parse(ExamArguments, arguments, command="exam", examples=EXAMPLES))
    except ForetasteError as error:
        error.exit_code = USAGE
        raise
    except SystemExit as error:  # a value of the wrong type, explained by tyro
        raise SystemExit(USAGE if error.code == 2 else error.code) from None


def _sit(given: ExamArguments) -> int:
    if given.paper is not None and given.resume is not None:
        raise ConfigError(f"--resume goes on with the sitting's own paper; leave out {given.paper!r}")
    if given.resume is not None and given.config != SitConfig():
        raise ConfigError("--resume goes on with the sitting's own settings; leave out the other flags")
    if given.paper is None and given.resume is None:
        raise ConfigError("Name a paper (foretaste exam papers lists them) or a sitting to --resume")
    if "://" in given.runs_folder:
        raise ConfigError("--runs-folder must be a folder: the secrets of sealed papers are kept there")
    from rich.console import Console

    from foretaste.api import write_results
    from foretaste.exams.exam import sit
    from foretaste.ledger import Ledger
    from foretaste.progress import RichProgress

    console = Console(stderr=given.json, markup=False)
    with Ledger.open(given.runs_folder) as ledger:
        try:
            with RichProgress(console=console) as progress:
                folder = Path(given.runs_folder)
                sitting = sit(
                    given.paper, given.config, ledger, runs_folder=folder, resume=given.resume, progress=progress
                )
        except (KeyboardInterrupt, ForetasteError) as error:
            notes = getattr(error, "__notes__", [])
            if notes:
                where = "" if given.runs_folder == TrainConfig().runs_folder else f" --runs-folder {given.runs_folder}"
                goes_on = f"Go on with: foretaste exam --resume {notes[0]}{where}"
                if isinstance(error, KeyboardInterrupt):
                    raise interrupted(error, goes_on) from None
                raise type(error)(f"{error} What was answered is kept. {goes_on}") from error
            raise
        page = write_results(ledger, sitting.run, folder / sitting.run)
    if given.json:
        json.dump(as_json(sitting, page), sys.stdout, indent=2)
        print()
    else:
        show(sitting, page, console)
    return sitting.verdict.outcome.exit_code


def as_json(sitting: Sitting, page: Path) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "run": sitting.run,
        "verdict": sitting.verdict.to_json(),
        "sentence": sitting.verdict.sentence(),
        "results": sitting.results,
        "usage": sitting.usage,
        "report": str(page),
    }


def show(sitting: Sitting, page: Path, console: Any) -> None:
    """Print the verdict first, then the figures that qualify it."""
    from rich.table import Table

    found, verdict = sitting.results, sitting.verdict
    console.print(f"\n{verdict.sentence()}", style="bold", markup=False)
    table = Table(show_header=False, title_justify="left")
    for name, text in rows(sitting):
        table.add_row(name, text)
    console.print(table)
    for error, count in list(found["errors"].items())[:3]:
        console.print(f"Error ({count}): {error}", markup=False, soft_wrap=True)
    if found["without_reference"]:
        console.print(f"Without reference answers: {', '.join(found['without_reference'])}", markup=False)
    console.print(f"Sitting: {sitting.run}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report:  {page}", markup=False, highlight=False, soft_wrap=True)


def rows(sitting: Sitting) -> list[tuple[str, str]]:
    """Return the name and text of each figure of the final table; what is missing says so."""
    found, verdict, usage = sitting.results, sitting.verdict, sitting.usage

    def interval(estimate: dict[str, Any] | None, sign: str = "") -> str:
        if estimate is None or estimate["low"] is None or estimate["high"] is None:
            return "not measured"
        return f"{estimate['mean']:{sign}.3f}  [{estimate['low']:{sign}.3f}, {estimate['high']:{sign}.3f}]"

    mean = "not measured" if verdict.mean is None else f"{verdict.mean:.3f}"
    brain = found["split_brain"]
    failures = ", ".join(f"{name} {count}" for name, count in found["failures"].items() if count)
    tokens = f"{usage.get('prompt_tokens', 0):,} read, {usage.get('completion_tokens', 0):,} sampled"
    listed = [
        ("metric", f"{verdict.metric.replace('_', ' ')} {mean}, threshold {verdict.threshold:g}"),
        (
            "bounds",
            f"[{verdict.low:.3f}, {verdict.high:.3f}], wrong with chance {verdict.alpha:.2g} at most, at any time",
        ),
        ("success", f"{interval(found['accuracy'])}  (95%, clustered by item)"),
        ("measured on", f"{found['base_items']} items, {found['answers']} wordings of them"),
        ("public - sealed", interval(found["gap"], "+")),
    ]
    if brain:
        share = "not measured" if brain["all_right"] is None else f"{brain['all_right']:.3f}"
        listed.append(
            ("right in every wording", f"{share}, worst wording {brain['worst_register']} {brain['worst']:.3f}")
        )
    listed += [("answers", failures), ("tokens", tokens)]
    if usage.get("unreported"):
        listed.append(("without counts", f"{usage['unreported']} answers; the totals lack them"))
    if "cost" in usage:
        listed.append(("cost", f"{usage['cost']:.4f}"))
    for row in found["scarce"]:
        score = "nothing more is told" if row["score"] is None else f"{row['score']:.3f}"
        listed.append((f"{row['env']} ({row['mechanism']})", f"{score}{'' if row['news'] else ', nothing new'}"))
    if found["stopped_early"]:
        listed.append(
            ("stopped early", f"after {verdict.n} of {found['planned_items']} items: the verdict was certain")
        )
    return listed
