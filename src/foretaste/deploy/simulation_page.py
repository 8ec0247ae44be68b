"""One self-contained page of a simulated deployment: what was taken over, how wrong it was, what it saved.

`simulate.py` makes the result, `foretaste deploy simulate` writes the page. Nothing on it is computed anew but sums.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from foretaste.deploy.simulation_result import Row, SimulationResult, cost_saved, served_error
from foretaste.lab.charts import Series, line_chart
from foretaste.statistics import exact_interval

WINDOW = 500
"""Requests that one point of the charts is the mean of."""

_STYLE = """body{font-family:system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#111;
line-height:1.45}table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #e5e7eb;padding:.3rem .5rem;
text-align:left;vertical-align:top}td:first-child{white-space:nowrap}svg{width:100%;height:auto}.wide{overflow-x:auto}"""


def write_page(result: SimulationResult, path: str | Path) -> Path:
    """Write the page; return its path."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page(result), encoding="utf-8")
    return file


def page(result: SimulationResult) -> str:
    """Return the page as HTML that needs no other file."""
    config, alpha = result.config, result.config.stage.alpha
    events = "".join(
        f"<tr><td>{event.request:,}</td><td>{html.escape(event.kind)}</td><td>{html.escape(event.text)}</td></tr>"
        for event in result.events
    )
    summary = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(figure)}</td></tr>" for name, figure in figures(result)
    )
    charts = "".join(f'<div class="wide">{chart}</div>' for chart in _charts(result))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Simulated deployment</title>'
        f"<style>{_STYLE}</style></head><body><h1>A learner takes over what it can do</h1>"
        f"<p>{config.requests:,} simulated requests, change midway: {config.change}. The learner is "
        f"{config.model.name}, the incumbent is right {config.incumbent_accuracy:.0%} of the time, seed {config.seed}. "
        f"Promise: at most {alpha:.0%} of the learner's served answers are wrong.</p>"
        f"<table>{summary}</table>{charts}"
        "<h2>What happened</h2><div class='wide'><table><tr><th>request</th><th>event</th><th>why</th></tr>"
        f"{events or '<tr><td colspan=3>nothing was decided</td></tr>'}</table></div></body></html>\n"
    )


def figures(result: SimulationResult) -> list[tuple[str, str]]:
    """Return the named figures of a run, for the page and the terminal."""
    config = result.config
    error = served_error(result.rows)
    served = sum(row.served for row in result.rows)
    last = result.window(config.requests - WINDOW, config.requests)
    found = [
        ("served by the learner", f"{served:,} of {config.requests:,}, {_share(last):.0%} of the last {WINDOW}"),
        ("wrong among served", _interval(error.mean, error.low, error.high, error.n)),
        ("wrong among the incumbent's", _incumbent(result.rows, config.block)),
        ("cost saved", f"{cost_saved(result.rows, config):.1%}; in the last {WINDOW}: {cost_saved(last, config):.1%}"),
        ("seconds", f"{result.seconds:.0f}"),
    ]
    if config.change != "none":
        middle = config.requests // 2
        before, after = result.window(middle - WINDOW, middle), result.window(middle, config.requests)
        late = served_error(after)
        found.insert(1, (f"share served in the last {WINDOW} before the change", f"{_share(before):.0%}"))
        found.insert(3, ("wrong among served after the change", _interval(late.mean, late.low, late.high, late.n)))
        noticed = [event.request - middle for event in result.events if event.kind == "rollback"]
        back = [event.request - middle for event in result.events if event.kind == "live" and event.request > middle]
        after_change = [one for one in noticed if one > 0]
        found.append(
            ("requests from the change until it stepped back", str(after_change[0]) if after_change else "never")
        )
        found.append(("requests from the change until it was live again", str(back[0]) if back else "never"))
    if result.old_success:
        told = ", ".join(f"{success:.1%} at {request:,}" for request, _, success in result.old_success)
        found.append(("old tasks, each checkpoint at the gate", told))
    return found


def windows(rows: Sequence[Row], block: int) -> list[Sequence[Row]]:
    """Return the rows in groups of about `WINDOW` requests."""
    size = max(1, WINDOW // block)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _charts(result: SimulationResult) -> list[str]:
    config = result.config
    groups = windows(result.rows, config.block)
    ends = [float(group[-1].requests) for group in groups]
    share = [(end, _share(group)) for end, group in zip(ends, groups, strict=True)]
    can = [(end, sum(r.learner_right for r in g) / len(g) / config.block) for end, g in zip(ends, groups, strict=True)]
    saved = [(end, cost_saved(group, config)) for end, group in zip(ends, groups, strict=True)]
    errors = [(end, served_error(group)) for end, group in zip(ends, groups, strict=True)]
    known = [(end, error) for end, error in errors if error.n]
    promise = [(ends[0], config.stage.alpha), (ends[-1], config.stage.alpha)] if ends else []
    top = max([config.stage.alpha * 3, *(min(error.high, 0.6) for _, error in known)])
    axis = f"requests (windows of about {WINDOW})"
    return [
        line_chart(
            [
                Series("served by the learner", [share]),
                Series("newest weights are right", [can]),
                Series("cost saved", [saved]),
            ],
            title="What the learner took over",
            x=axis,
            y="share of the requests",
            y_range=(min(0.0, *(value for _, value in saved), 0.0), 1.0),
        ),
        line_chart(
            [
                Series(
                    "wrong among served",
                    [[(end, error.mean) for end, error in known]],
                    band=[(end, error.low, error.high) for end, error in known],
                ),
                Series("promised at most", [promise]),
            ],
            title="Error among served answers, with exact 95% intervals",
            x=axis,
            y="share wrong",
            y_range=(0.0, top),
        ),
    ]


def _share(rows: Sequence[Row]) -> float:
    """Return the share of requests that the learner served."""
    if not rows:
        return 0.0
    asked = sum(row.served + row.deferred for row in rows)
    return sum(row.served for row in rows) / asked


def _incumbent(rows: Sequence[Row], block: int) -> str:
    wrong, answered = sum(row.incumbent_wrong for row in rows), sum(row.deferred for row in rows)
    interval = exact_interval(wrong, answered)
    return _interval(interval.mean, interval.low, interval.high, answered)


def _interval(mean: float, low: float, high: float, n: int) -> str:
    return f"{mean:.2%} [{low:.2%}, {high:.2%}] of {n:,}" if n else "none was served"
