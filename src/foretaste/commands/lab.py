"""`foretaste lab`: studies, sweeps and laws of scale; each subcommand parses, calls one function, prints."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from foretaste.commands.arguments import parse
from foretaste.config import TrainConfig
from foretaste.errors import ConfigError, unknown

if TYPE_CHECKING:
    from foretaste.lab.tuning import Tuning

LIST_EXAMPLES = "  foretaste lab list"
RUN_EXAMPLES = """\
  foretaste lab run smoke
  foretaste lab run smoke --mode full --workers 2
  foretaste lab run my_module:STUDY"""
SHOW_EXAMPLES = """\
  foretaste lab show smoke
  foretaste lab show smoke --mode quick --json"""
REGISTER_EXAMPLES = "  foretaste lab register smoke --mode full"
ALL_EXAMPLES = "  foretaste lab all --mode quick"
TUNE_EXAMPLES = """\
  foretaste lab tune credit-map
  foretaste lab tune credit-map --workers 2 --minutes 30"""
CLAIMS_EXAMPLES = "  foretaste lab claims"

RESULTS = "results"
"""Where verdicts are written by default."""

SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "list": ("foretaste.commands.lab:list_studies", "the studies with their claims and verdicts"),
    "run": ("foretaste.commands.lab:run_one", "run what is missing of a study and judge it"),
    "show": ("foretaste.commands.lab:show", "print a study's verdict and its figures"),
    "all": ("foretaste.commands.lab:run_all", "run every study, then write the claims page"),
    "register": ("foretaste.commands.lab:register_one", "write a study's expectation into the ledger, run nothing"),
    "tune": (
        "foretaste.commands.lab:tune_one",
        "find the settings of a study's arms, all at one budget; score nothing",
    ),
    "claims": ("foretaste.commands.lab:claims", "write the claims page from the verdicts"),
    "fit": ("foretaste.commands.lab_fit:run", "fit a law of scale to runs: what would more compute buy?"),
    "sweep": ("foretaste.commands.lab_sweep:run", "try settings of a recipe at one budget; confirm the best"),
}
"""Each subcommand's function and one line of help."""

Mode = Literal["quick", "full"]
StudyName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]


@dataclass(frozen=True)
class ListArguments:
    """List the studies, what each claims, and what came out."""

    results: str = RESULTS
    """Folder of the verdicts."""


@dataclass(frozen=True)
class RunArguments:
    """Register what is expected, run what is missing, judge, and write the verdict.

    A study that was interrupted goes on where it was; finished runs are reused.
    """

    study: StudyName
    """Name of the study, or module:ATTRIBUTE of your own."""
    mode: Mode = "quick"
    """quick: under five minutes on two cores; full: what the claims page shows."""
    workers: int | None = None
    """Jobs that run side by side, each on one core; without it, as many as there are cores."""
    any_code: bool = False
    """Also reuse results that older code made; the verdict says so."""
    minutes: float | None = None
    """Start no job after so many minutes, and judge what there is; the same command goes on later."""
    results: str = RESULTS
    """Folder to write the verdict to."""
    runs_folder: str = TrainConfig().runs_folder
    """Where runs and the ledger are."""


@dataclass(frozen=True)
class ShowArguments:
    """Print a study's verdict, with its table."""

    study: StudyName
    """Name of the study."""
    mode: Mode | None = None
    """Without it the full verdict, else the quick one."""
    json: bool = False
    """Print the figures as JSON."""
    results: str = RESULTS
    """Folder of the verdicts."""


@dataclass(frozen=True)
class RegisterArguments:
    """Write a study's expectation into the hash-chained ledger before its first run.

    `foretaste lab run` does so too; this command lets you do it ahead, and shows what will be judged.
    """

    study: StudyName
    """Name of the study, or module:ATTRIBUTE of your own."""
    mode: Mode = "full"
    """Which plan: its seeds and budget are part of what is registered."""
    results: str = RESULTS
    """Folder of the verdicts, and of the settings that won."""
    runs_folder: str = TrainConfig().runs_folder
    """Where the ledger is."""


@dataclass(frozen=True)
class TuneArguments:
    """Find the settings of a study's arms, each with the same number of settings, seeds and tokens, and store them.

    `foretaste lab run STUDY --mode full` does so too where no winners are stored; quick mode never does. What was
    interrupted goes on where it was.
    """

    study: StudyName
    """Name of the study, or module:ATTRIBUTE of your own."""
    workers: int | None = None
    """Jobs that run side by side, each on one core; without it, as many as there are cores."""
    minutes: float | None = None
    """Start no job after so many minutes; the same command goes on later."""
    results: str = RESULTS
    """Folder of the verdicts; winners are stored in its folder tuned."""
    runs_folder: str = TrainConfig().runs_folder
    """Where runs and the ledger are."""


@dataclass(frozen=True)
class AllArguments:
    """Run every study, then write the claims page; a study that cannot be judged is named, and the others go on."""

    mode: Mode = "quick"
    """quick: under five minutes each on two cores; full: what the claims page shows."""
    workers: int | None = None
    """Jobs that run side by side; without it, as many as there are cores."""
    results: str = RESULTS
    """Folder to write the verdicts to."""
    page: str = "docs/claims.md"
    """The claims page."""
    runs_folder: str = TrainConfig().runs_folder
    """Where runs and the ledger are."""


@dataclass(frozen=True)
class ClaimsArguments:
    """Write the claims page, in Markdown and as index.html beside the verdicts."""

    results: str = RESULTS
    """Folder of the verdicts."""
    page: str = "docs/claims.md"
    """The claims page."""


def run(arguments: list[str]) -> int:
    """Call the subcommand that the first argument names."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in SUBCOMMANDS:
        raise ConfigError(unknown("subcommand of lab", name, SUBCOMMANDS))
    module, _, function = SUBCOMMANDS[name][0].partition(":")
    return getattr(importlib.import_module(module), function)(rest) or 0


def help_text() -> str:
    """Return what `foretaste lab --help` prints."""
    width = max(map(len, SUBCOMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {words}" for name, (_, words) in SUBCOMMANDS.items())
    return (
        "usage: foretaste lab SUBCOMMAND [OPTIONS]\n\nThe laboratory: a claim in, a verdict out.\n\n"
        f"subcommands:\n{rows}\n\nExamples:\n"
        "  foretaste lab list\n  foretaste lab run smoke\n  foretaste lab show smoke --json\n\n"
        "foretaste lab SUBCOMMAND --help shows the options of each."
    )


def list_studies(arguments: list[str]) -> None:
    """Print one row a study."""
    given = parse(ListArguments, arguments, command="lab list", examples=LIST_EXAMPLES)
    from rich.console import Console
    from rich.table import Table

    from foretaste.lab.claims import read_verdict, standing
    from foretaste.lab.study import STUDIES, load
    from foretaste.lab.tables import interval_text

    table = Table(box=None, pad_edge=False)
    for heading in ("study", "claim", "verdict", "estimate"):
        table.add_column(heading, overflow="fold")
    for name in STUDIES:
        study = load(name)
        try:
            verdict = read_verdict(name, Path(given.results))
            row = (verdict.claim, standing(study, verdict), interval_text(verdict.headline))
        except ConfigError:
            row = (study.claim, "not run", "")
        table.add_row(name, *row)
    Console().print(table, markup=False)


def run_one(arguments: list[str]) -> None:
    """Run a study and print its verdict."""
    given = parse(RunArguments, arguments, command="lab run", examples=RUN_EXAMPLES)
    results, folder = Path(given.results), Path(given.runs_folder)
    _run(given.study, given.mode, given.workers, results, folder, any_code=given.any_code, minutes=given.minutes)


def show(arguments: list[str]) -> None:
    """Print a verdict."""
    given = parse(ShowArguments, arguments, command="lab show", examples=SHOW_EXAMPLES)
    from foretaste.lab.claims import read_verdict
    from foretaste.lab.pages import page

    verdict = read_verdict(given.study, Path(given.results), given.mode)
    print(json.dumps(verdict.to_json(), indent=1) if given.json else page(verdict).rstrip())


def register_one(arguments: list[str]) -> None:
    """Register a study's expectation and print where it stands."""
    given = parse(RegisterArguments, arguments, command="lab register", examples=REGISTER_EXAMPLES)
    from foretaste.lab.register import register, register_tuning
    from foretaste.lab.study import load
    from foretaste.lab.tuning import read_stored, resolve
    from foretaste.ledger import Ledger

    study = load(given.study)
    open_grids = False
    if study.tuning is not None:
        stored = read_stored(winners_file(Path(given.results), study.name), study.tuning)
        open_grids = stored is None and given.mode == "full"
        study = study if open_grids else resolve(study, stored)
    with Ledger.open(given.runs_folder) as ledger:
        place = (register_tuning if open_grids else register)(ledger, study, given.mode)
    plan = study.plan(given.mode)
    print(f"{'Registered' if place.new else 'Already registered'} {place.created}: {study.claim}")
    if open_grids:
        print("  how the arms are tuned is part of it; the arms themselves are registered once they are tuned")
    for expectation in study.expectations:
        print(f"  expected: {expectation.text}{'' if expectation.required else ' (secondary)'}")
    rule = ", ".join(sorted({one.stopping for one in study.expectations}))
    seeds = ", ".join(map(str, plan.seeds))
    print(f"  seeds {seeds}; {plan.token_budget:,} tokens an arm; stopping: {rule}")
    print(f"  expectation {place.key}, record {place.seq} of the ledger, run {place.run}")


def tune_one(arguments: list[str]) -> None:
    """Tune a study's arms and print what won."""
    given = parse(TuneArguments, arguments, command="lab tune", examples=TUNE_EXAMPLES)
    from foretaste.lab.display import JobDisplay
    from foretaste.lab.pages import tuning_rows, tuning_text
    from foretaste.lab.runner import sweep
    from foretaste.lab.study import load
    from foretaste.lab.tables import markdown_table
    from foretaste.lab.tuning import store

    _check_workers(given.workers)
    study = load(given.study)
    if study.tuning is None:
        raise ConfigError(f"Study {study.name!r} has no tuning step. Run it: foretaste lab run {study.name}")
    print(f"{study.name}: tuning, about {study.tuning.minutes:g} core-minutes", flush=True)
    with JobDisplay(study.name, tuning_jobs(study.tuning)) as display:
        found = sweep(study, Path(given.runs_folder), workers=given.workers, watcher=display, minutes=given.minutes)
    file = winners_file(Path(given.results), study.name)
    store(file, found)
    print(tuning_text(found.to_json()))
    print(markdown_table(tuning_rows(found.to_json())))
    print(file)


def winners_file(results: Path, study: str) -> Path:
    """Return where the settings that won a study's tuning are stored."""
    return results / "tuned" / f"{study}.json"


def tuning_jobs(tuning: Tuning) -> int:
    """Return how many runs a sweep takes."""
    return sum(tuning.spent(name)[0] for name in tuning.grids)


def run_all(arguments: list[str]) -> int:
    """Run every study; exit code 1 if one of them could not be judged."""
    given = parse(AllArguments, arguments, command="lab all", examples=ALL_EXAMPLES)
    from foretaste.errors import ForetasteError
    from foretaste.lab.claims import write_claims
    from foretaste.lab.study import STUDIES

    failed = []
    for name in STUDIES:
        try:
            _run(name, given.mode, given.workers, Path(given.results), Path(given.runs_folder))
        except ForetasteError as error:
            print(f"{name}: {error}")
            failed.append(name)
    print(write_claims(Path(given.results), Path(given.page)))
    if failed:
        print(f"Not judged: {', '.join(failed)}")
    return 1 if failed else 0


def claims(arguments: list[str]) -> None:
    """Write the claims page and print its path."""
    given = parse(ClaimsArguments, arguments, command="lab claims", examples=CLAIMS_EXAMPLES)
    from foretaste.lab.claims import write_claims

    print(write_claims(Path(given.results), Path(given.page)))


def _run(
    name: str,
    mode: Mode,
    workers: int | None,
    results: Path,
    folder: Path,
    *,
    any_code: bool = False,
    minutes: float | None = None,
) -> None:
    from foretaste.lab.claims import replaced, write_verdict
    from foretaste.lab.display import JobDisplay
    from foretaste.lab.runner import run_study
    from foretaste.lab.study import load
    from foretaste.lab.tables import interval_text
    from foretaste.lab.tuning import read_stored

    _check_workers(workers)
    if minutes is not None and minutes < 0:
        raise ConfigError(f"--minutes = {minutes} cannot be used; accepted: 0 or more")
    study = load(name)
    plan = study.plan(mode)
    print(f"{study.name} ({mode}, about {plan.minutes:g} minutes on two cores): {study.claim}", flush=True)
    winners = winners_file(results, study.name)
    total = len(plan.jobs())
    if study.tuning is not None and mode == "full" and read_stored(winners, study.tuning) is None:
        print(f"Its arms are tuned first, about {study.tuning.minutes:g} core-minutes more", flush=True)
        total += tuning_jobs(study.tuning)
    with JobDisplay(study.name, total) as display:
        verdict = run_study(
            study,
            mode,
            folder,
            workers=workers,
            watcher=display,
            any_code=any_code,
            minutes=minutes,
            winners=winners,
        )
    verdict = replaced(verdict, results)
    page = write_verdict(verdict, results)
    if verdict.unfinished:
        print(f"{verdict.unfinished} jobs were not run; the same command goes on with them")
    print(f"{verdict.decision.value.upper()}: {verdict.headline.expectation}: {interval_text(verdict.headline)}")
    for note in verdict.notes:
        print(f"Note: {note}")
    print(page)


def _check_workers(workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers = {workers} cannot be used; accepted: 1 or more")
