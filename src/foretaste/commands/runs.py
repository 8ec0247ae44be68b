"""`foretaste runs`: what the ledger knows of, newest last."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from foretaste.commands.arguments import parse
from foretaste.config import TrainConfig

if TYPE_CHECKING:
    from foretaste.ledger import RunInfo

EXAMPLES = """\
  foretaste runs
  foretaste runs --kind train
  foretaste runs --verify"""


@dataclass(frozen=True)
class RunsArguments:
    """List the runs of a ledger with their status, newest last."""

    kind: Annotated[str | None, tyro.conf.arg(metavar="KIND")] = None
    """Only runs of this kind, e.g. train."""
    runs_folder: str = TrainConfig().runs_folder
    """Where the ledger is: a folder, or a database URL."""
    verify: bool = False
    """Also check the hash chain: that no record was changed, removed or put in."""


def run(arguments: list[str]) -> None:
    """Print one row a run."""
    given = parse(RunsArguments, arguments, command="runs", examples=EXAMPLES)
    from rich.console import Console
    from rich.table import Table

    from foretaste.ledger import Ledger

    with Ledger.open(given.runs_folder, create=False) as ledger:
        runs = sorted(ledger.runs(given.kind), key=lambda info: info.created)
        if given.verify:
            ledger.verify()
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "kind", "status", "created (UTC)"):
        table.add_column(heading, no_wrap=True, overflow="fold")
    for info in runs:
        table.add_row(info.id, info.kind, _status(info, given.runs_folder), info.created[:19].replace("T", " "))
    Console(markup=False).print(table if runs else "No runs yet. Start one: foretaste train recipes/quick.toml")
    if given.verify:
        print("The hash chain is intact.")


def _status(info: RunInfo, runs_folder: str) -> str:
    """Return a run's status; one that was killed could not say so itself, and its lock is free."""
    from foretaste.locks import is_held

    folder = Path(runs_folder) / info.id
    if info.kind != "train" or info.status != "started" or "://" in runs_folder or not folder.is_dir():
        return info.status
    return "running" if is_held(folder / "running.lock") else "killed: --resume"
