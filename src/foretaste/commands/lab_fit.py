"""`foretaste lab fit`: what would more compute buy, and how far can that forecast be trusted?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from foretaste.commands.arguments import parse
from foretaste.config import TrainConfig
from foretaste.errors import ConfigError

if TYPE_CHECKING:
    from foretaste.lab.forecast import Report

EXAMPLES = """\
  foretaste lab fit latest
  foretaste lab fit maze-1122-0143-7f3a maze-1122-0201-11bc --unit episodes
  foretaste lab fit smoke-1122-0312-90aa --json"""


@dataclass(frozen=True)
class FitArguments:
    """Fit a law of scale to runs, say what 2x and 10x more would buy, and check the forecast on the largest run.

    The id of a study or sweep stands for all its training runs.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Ids of runs, or unique beginnings of them."""
    unit: Literal["tokens", "episodes"] = "tokens"
    """What counts as compute."""
    arm: str | None = None
    """Of a study or sweep: only this arm's runs."""
    refits: int = 300
    """Refits to resampled data, for the intervals."""
    json: bool = False
    """Print the figures as JSON."""
    svg: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Also draw the fit with its interval."""
    runs_folder: str = TrainConfig().runs_folder
    """Where the ledger is: a folder, or a database URL."""


def run(arguments: list[str]) -> None:
    """Print the fit of the runs that the arguments name."""
    given = parse(FitArguments, arguments, command="lab fit", examples=EXAMPLES)
    if not given.runs:
        raise ConfigError("Nothing to fit: name one run or more. All: foretaste runs")
    if given.refits < 20:
        raise ConfigError(f"--refits = {given.refits} cannot be used; accepted: 20 or more")
    from foretaste.lab.forecast import chart, forecast_runs
    from foretaste.ledger import Ledger

    with Ledger.open(given.runs_folder, create=False) as ledger:
        report = forecast_runs(ledger, given.runs, unit=given.unit, refits=given.refits, arm=given.arm)
        if given.svg:
            Path(given.svg).write_text(chart(ledger, report, unit=given.unit), encoding="utf-8")
    print(json.dumps(report.to_json(), indent=1) if given.json else text(report))


def text(report: Report) -> str:
    """Return the report as lines for a person."""
    lines = [report.law, f"  {report.points} points of {len(report.runs)} runs; {report.bootstrap}"]
    lines += [f"  {name:<5} {_interval(*value[:3])}" for name, value in report.parameters.items()]
    at = " x ".join(f"{value:,.0f}" for value in report.largest)
    lines.append(f"At the largest compute seen ({at}): {_interval(*report.forecasts['1x'][:3])}")
    for times in ("2x", "10x"):
        lines.append(f"  with {times:>3}: {_interval(*report.forecasts[times][:3])}")
    lines.append(f"Doubling would change it by {report.gain_per_double:+.3g}.")
    if report.held_out is None:
        lines.append("Its forecast was not checked.")
    else:
        check = report.held_out
        verdict = "inside" if check["inside"] else "OUTSIDE: do not trust the forecasts above"
        lines.append(
            f"Check: fitted without {check['run']}, it forecast {_interval(*check['forecast'][:3])} there; "
            f"measured {check['measured']:.3g}: {verdict}."
        )
    lines += [f"Note: {note}." for note in report.notes]
    return "\n".join(lines)


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.4g} [{low:.4g}, {high:.4g}]"
