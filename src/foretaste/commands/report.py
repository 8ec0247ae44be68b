"""`foretaste report`: write a run's page anew from what the ledger holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from foretaste.commands.arguments import parse
from foretaste.config import TrainConfig

EXAMPLES = """\
  foretaste report
  foretaste report extract-1122-0143-7f3a --open
  foretaste report --runs-folder postgresql+psycopg://me@host/foretaste --output pages"""


@dataclass(frozen=True)
class ReportArguments:
    """Write report.html (and summary.json) of a run anew from the ledger, and print its path."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = "latest"
    """Id of the run, or the unique beginning of one."""
    open: bool = False
    """Show the page in the browser."""
    runs_folder: str = TrainConfig().runs_folder
    """Where the ledger is: a folder, or a database URL."""
    output: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder to write to; without it, the run's own folder."""


def run(arguments: list[str]) -> None:
    """Write the page of the run that the arguments name.

    Raises: LedgerError after the page of a sitting is written whose ledger was changed; the page says so too.
    """
    given = parse(ReportArguments, arguments, command="report", examples=EXAMPLES)
    from foretaste.api import write_results
    from foretaste.ledger import Ledger

    with Ledger.open(given.runs_folder, create=False) as ledger:
        wanted = ledger.run(given.run).id
        base = Path("runs") if "://" in given.runs_folder else Path(given.runs_folder)
        page = write_results(ledger, wanted, Path(given.output) if given.output else base / wanted)
        print(page)
        if ledger.run(wanted).kind == "exam":
            ledger.verify()
    if given.open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
