"""What was promised in simulated worlds and what came: exact intervals, a table for the terminal, a page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from foretaste.deploy.simulation.run import Outcome
from foretaste.deploy.simulation.worlds import World
from foretaste.deploy.stage_config import StageConfig
from foretaste.records import Interval
from foretaste.statistics import exact_interval

COLUMNS = (
    "world",
    "case",
    "promised",
    "false threshold",
    "stepped back falsely",
    "served",
    "first served after",
    "noticed",
    "after",
    "above alpha overall",
    "checked",
)
"""Headings of the table."""
MEANING = {
    "promised": "whether a promise is given, as the command foretaste deploy plan says beforehand",
    "false threshold": "share of deployments that ever had a threshold whose true error was above alpha",
    "stepped back falsely": "share of deployments stepped back while the true error of what they served was at most "
    "alpha",
    "served": "share of all requests that the learner answered, on average",
    "first served after": "requests before the first that the learner answered, and the share of deployments in which "
    "it answered any; the median is over those",
    "noticed": "of deployments that served when the world changed, the share that stepped back before the end",
    "after": "median of the served answers from the change until the step back",
    "above alpha overall": "share of deployments whose served answers, all together, were to be expected wrong more "
    "often than alpha",
    "checked": "share of a live learner's answers that were checked, on average, before any change",
}


class Row(NamedTuple):
    """The figures of one case."""

    world: World
    broken: Interval
    false_rollback: Interval
    served: float
    first: float | None
    """Median over the deployments that served; None: none did."""
    serving: float
    """Share of the deployments that served anything."""
    noticed: Interval
    after: float | None
    """Median; None: less than half noticed, or no change."""
    overall: Interval
    checked: float | None

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, in the order of `COLUMNS`."""
        return (
            self.world.name,
            self.world.case,
            "yes" if self.world.promised else "no",
            _share(self.broken),
            _share(self.false_rollback),
            f"{self.served:.0%}",
            "never" if self.first is None else f"{self.first:,.0f} ({self.serving:.0%} do)",
            _share(self.noticed) if self.noticed.n else "",
            "" if self.after is None else f"{self.after:,.0f}",
            _share(self.overall),
            "" if self.checked is None else f"{self.checked:.1%}",
        )

    def kept(self, config: StageConfig) -> bool:
        """Return whether the promise was kept as far as the runs can tell: no rate is significantly above delta."""
        return not self.world.promised or max(self.broken.low, self.false_rollback.low) <= config.delta


def row_of(world: World, outcomes: Sequence[Outcome]) -> Row:
    """Return the figures of one case from all its deployments."""
    n = len(outcomes)
    changed = [one.noticed for one in outcomes if one.changed]
    times = sorted(math.inf if one is None else float(one) for one in changed)
    middle = median(times) if times else math.inf
    began = [float(one.first_served) for one in outcomes if one.first_served is not None]
    checked = [one.checked for one in outcomes if one.checked is not None]
    return Row(
        world,
        exact_interval(sum(one.broken for one in outcomes), n),
        exact_interval(sum(one.false_rollback for one in outcomes), n),
        sum(one.served / one.requests for one in outcomes) / n,
        median(began) if began else None,
        len(began) / n,
        exact_interval(sum(one is not None for one in changed), len(changed)),
        middle if math.isfinite(middle) else None,
        exact_interval(sum(one.overall for one in outcomes), n),
        sum(checked) / len(checked) if checked else None,
    )


def as_text(rows: Sequence[Row]) -> str:
    """Return a table for the terminal: one block a case, since a line would not hold it."""
    lines: list[str] = []
    for row in rows:
        cells = dict(zip(COLUMNS, row.cells(), strict=True))
        lines.append(f"{cells['world']}: {cells['case']}")
        lines += [f"  {name + ':':<23}{cells[name]}" for name in COLUMNS[2:] if cells[name]]
    return "\n".join(lines)


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the table in Markdown, for documentation."""
    lines = [" | ".join(("", *COLUMNS, "")).strip(), "|" + "---|" * len(COLUMNS)]
    return "\n".join([*lines, *(" | ".join(("", *row.cells(), "")).strip() for row in rows)])


def write_page(
    rows: Sequence[Row], path: Path, *, config: StageConfig, check_share: float, runs: int, seed: int
) -> Path:
    """Write the table as a page that needs no other file; return its path."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in COLUMNS)
    body = "".join(
        f"<tr class='{'' if row.kept(config) else 'broken'}'>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells())
        + "</tr>"
        for row in rows
    )
    meaning = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}.</dd>" for name, text in MEANING.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1"><title>Promises in simulated worlds</title><style>'
        "body{font-family:system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;line-height:1.45}"
        "table{border-collapse:collapse}td,th{border-bottom:1px solid #e5e7eb;padding:.3rem .5rem;text-align:left;"
        "vertical-align:top}.broken{background:#fee2e2}.wide{overflow-x:auto}dt{font-weight:600}</style></head><body>"
        "<h1>What was promised, and what came</h1>"
        f"<p>{runs:,} simulated deployments of each case, seed {seed}. Promise: at most {config.alpha:.3g} of what the "
        f"learner serves is wrong, with confidence {1 - config.delta:.3g}; {check_share:.3g} of it is checked on "
        "average. In brackets: exact 95% intervals. Red: a rate whose whole interval is above delta, where a "
        f"promise was given.</p><div class='wide'><table><tr>{head}</tr>{body}</table></div>"
        f"<dl>{meaning}</dl></body></html>\n",
        encoding="utf-8",
    )
    return path


def _share(found: Interval) -> str:
    return f"{found.mean:.1%} [{found.low:.1%}, {found.high:.1%}]"
