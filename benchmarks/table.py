"""The rows of the comparison: medians, ratios, what was not measured; as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. A missing number is None, never 0."""

    name: str
    peer_name: str
    unit: str
    ours: float | None
    peer: float | None
    ratio: float | None
    """How many times better ours is; the median over pairs, each pair run one after the other."""
    reach: str
    """What was aimed for, as text: "3x", "< 0.3 s"."""
    reached: bool | None
    pairs: int
    limit: float | None = None
    """The share of what the machine allows at most."""
    note: str = ""


def compare(
    name: str,
    peer_name: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float],
    *,
    reach: float,
    more_is_better: bool,
    limit: float | None = None,
    note: str = "",
) -> Row:
    """Return a row from paired measurements; without the peer's, its ratio is not measured."""
    pairs = min(len(ours), len(peer))
    ratio = None
    if pairs:
        both = zip(ours[:pairs], peer[:pairs], strict=True)
        ratio = statistics.median(a / b if more_is_better else b / a for a, b in both)
    return Row(
        name,
        peer_name,
        unit,
        _median(ours),
        _median(peer),
        ratio,
        f"{reach:g}x",
        None if ratio is None else ratio >= reach,
        pairs or len(ours),
        limit,
        note,
    )


def bound(name: str, unit: str, ours: Sequence[float], *, below: float, note: str = "") -> Row:
    """Return a row that has no peer but a bound."""
    median = _median(ours)
    reached = None if median is None else median < below
    return Row(name, "", unit, median, None, None, f"< {below:g}", reached, len(ours), None, note)


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def write(file: Path, rows: Sequence[Row], about: dict[str, Any]) -> list[Row]:
    """Write results.json; other rows are kept, and what was measured on other machines. Return this machine's rows.

    `about`: "model", "machine" (with its "processor"), "versions".
    """
    made = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"machines": {}}
    here, versions = about["machine"]["processor"], about["versions"]
    before = made["machines"].get(here, {"rows": [], "versions": {}})
    names = {(row.name, row.peer_name) for row in rows}
    old = [Row(**values) for values in before["rows"]]
    everything = [*(row for row in old if (row.name, row.peer_name) not in names), *rows]
    made["machines"][here] = {
        **about["machine"],
        "model": about["model"],
        "versions": before["versions"] | versions,
        "rows": [dataclasses.asdict(row) for row in everything],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return everything


def show(console: Console, rows: Sequence[Row], title: str) -> None:
    """Print the table."""
    table = Table(title=title, title_justify="left")
    columns = ("work", "beside", "unit", "ours", "peer", "ratio", "reach", "reached", "of limit", "pairs")
    for name in columns:
        table.add_column(name, justify="left" if name in ("work", "beside", "unit", "reach") else "right")
    for row in rows:
        reached = {None: NOT_MEASURED, True: "yes", False: "no"}[row.reached]
        of_limit = "" if row.limit is None else f"{row.limit:.0%}"
        peer = _number(row.peer) if row.peer_name else ""
        ratio = "" if not row.peer_name else NOT_MEASURED if row.ratio is None else f"{row.ratio:.2f}x"
        cells = (row.name, row.peer_name, row.unit, _number(row.ours), peer, ratio, row.reach, reached, of_limit)
        table.add_row(*cells, str(row.pairs))
    console.print(table)
    for row in rows:
        if row.note:
            console.print(
                f"{row.name} beside {row.peer_name}: {row.note}" if row.peer_name else f"{row.name}: {row.note}"
            )


def _number(value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
