"""Pages of verdicts: `results/<study>.json|md|html|svg` of each, and the claims page that lists them all.

Everything is written from a `Verdict`; the JSON file is the record, the others are made from it.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretaste.errors import ConfigError, RunError
from foretaste.lab.charts import Dot, Picture, Series, dot_map, line_chart
from foretaste.lab.curves import Measured, to_threshold
from foretaste.lab.study import STUDIES, Study, load
from foretaste.lab.verdict import Decision, Judged, Verdict, from_json

AT = " @ "
"""Between the method and the place in the name of an arm of a map."""
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1f2937}
table{border-collapse:collapse;font-size:.9rem;display:block;overflow-x:auto}th,td{border-bottom:1px solid #d1d5db;
padding:.3rem .6rem;text-align:left;vertical-align:top}code{background:#f3f4f6;padding:0 .2rem}svg{width:100%}
.held{color:#166534}.refuted{color:#991b1b}.undecided,.exploratory{color:#92400e}"""


def write_verdict(verdict: Verdict, folder: Path) -> Path:
    """Write a verdict's four files, each replaced whole, and return the page in Markdown.

    Raises: RunError if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stem = _stem(verdict.study, verdict.mode)
        _write(folder / f"{stem}.json", json.dumps(verdict.to_json(), indent=1) + "\n")
        _write(folder / f"{stem}.svg", chart(verdict))
        _write(folder / f"{stem}.md", page(verdict))
        _write(folder / f"{stem}.html", html_page(verdict))
    except OSError as error:
        raise RunError(f"The verdict of {verdict.study} cannot be written to {folder}: {error}") from error
    return folder / f"{stem}.md"


def read_verdict(name: str, folder: Path, mode: str | None = None) -> Verdict:
    """Read a study's verdict; without a mode the full one, else the quick one.

    Raises: ConfigError if there is none.
    """
    for candidate in (mode,) if mode else ("full", "quick"):
        file = folder / f"{_stem(name, candidate)}.json"
        if file.is_file():
            try:
                return from_json(json.loads(file.read_text(encoding="utf-8")))
            except json.JSONDecodeError as error:
                raise RunError(f"{file} is no JSON: {error}") from error
    load(name)  # a name that is no study says so
    raise ConfigError(f"No verdict of {name!r} in {folder}. Make it: foretaste lab run {name}")


def write_claims(folder: Path, page_file: Path) -> Path:
    """Write the claims page in Markdown and, beside the verdicts, as `index.html`; return the former."""
    rows = []
    for name in STUDIES:
        study = load(name)
        if study.internal:
            continue
        try:
            rows.append((study, read_verdict(name, folder)))
        except ConfigError:
            rows.append((study, None))
    link = Path(os.path.relpath(folder, page_file.parent)).as_posix()
    try:
        page_file.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        _write(page_file, claims_page(rows, link))
        _write(folder / "index.html", claims_html(rows))
    except OSError as error:
        raise RunError(f"The claims page cannot be written: {error}") from error
    return page_file


def claims_page(rows: Sequence[tuple[Study, Verdict | None]], link: str) -> str:
    """Return the claims page in Markdown."""
    lines = [
        "# Claims",
        "",
        "Each claim of our sources, the study that tests it, and what came out. Made by `foretaste lab claims` from",
        "the verdicts; negative and undecided ones stay. *exploratory*: results were there before the expectation was.",
        "",
    ]
    table = [_claim_row(study, verdict) for study, verdict in rows]
    for row, (_, verdict) in zip(table, rows, strict=True):
        if verdict is not None:
            row["study"] = f"[{row['study']}]({link}/{_stem(verdict.study, verdict.mode)}.md)"
    lines.append(markdown_table(table) if table else "No study yet.")
    return "\n".join(lines) + "\n"


def claims_html(rows: Sequence[tuple[Study, Verdict | None]]) -> str:
    """Return the claims page in HTML, to lie beside the verdicts' pages."""
    links = [v and f"{_stem(v.study, v.mode)}.html" for _, v in rows]
    table = html_table([_claim_row(study, verdict) for study, verdict in rows], links=links)
    return _html("Claims", f"<h1>Claims</h1>\n<p>Each claim, the study that tests it, and what came out.</p>\n{table}")


def page(verdict: Verdict) -> str:
    """Return a verdict's page in Markdown."""
    stem = _stem(verdict.study, verdict.mode)
    lines = [f"# {verdict.study}: {verdict.decision}", "", verdict.claim + ".", "", f"Source: {verdict.source}.", ""]
    if verdict.decision is Decision.EXPLORATORY:
        lines += [f"Exploratory; registered in time it would be **{verdict.would_be}**.", ""]
    lines += [markdown_table([_judged_row(one) for one in verdict.judged]), ""]
    if _drawn(verdict):
        title = verdict.picture["title"] if verdict.picture else "held-out success against sampled tokens"
        lines += [f"![{title}]({stem}.svg)", ""]
    lines += [markdown_table(verdict.rows), ""] if verdict.rows else []
    lines += [f"- {fact}" for fact in facts(verdict)]
    lines += ["", "Notes:", "", *[f"- {note}" for note in verdict.notes]] if verdict.notes else []
    return "\n".join(lines) + "\n"


def html_page(verdict: Verdict) -> str:
    """Return a verdict's page in HTML, self-contained."""
    colour = verdict.decision.value
    body = [
        f'<h1>{html.escape(verdict.study)}: <span class="{colour}">{verdict.decision}</span></h1>',
        f"<p>{html.escape(verdict.claim)}.</p><p>Source: {html.escape(verdict.source)}.</p>",
        html_table([_judged_row(one) for one in verdict.judged]),
        chart(verdict) if _drawn(verdict) else "",
        html_table(verdict.rows),
        "<ul>" + "".join(f"<li>{html.escape(fact)}</li>" for fact in (*facts(verdict), *verdict.notes)) + "</ul>",
    ]
    return _html(verdict.study, "\n".join(body))


def facts(verdict: Verdict) -> list[str]:
    """Return how the verdict was made, a line each."""
    jobs = f"{verdict.failed} jobs failed, {verdict.unfinished} were not run"
    return [
        f"Mode {verdict.mode}; seeds {', '.join(map(str, verdict.seeds))}; {_budgets(verdict)}",
        f"{verdict.core_minutes:.1f} core-minutes, {verdict.minutes:.1f} minutes with {verdict.workers} workers; "
        f"{jobs}",
        f"Expectation {verdict.registration} registered {verdict.registered}; code {verdict.code}",
        f"Repeat: {verdict.command}",
    ]


def _budgets(verdict: Verdict) -> str:
    """Return the sampled tokens of a seed in words: those of most arms, then of those that have their own."""
    if verdict.token_budget <= 1:
        return "no tokens are sampled for learning"
    own: dict[int, list[str]] = {}
    for arm, tokens in verdict.own_budgets.items():
        own.setdefault(tokens, []).append(arm)
    parts = [f"{tokens:,} for {', '.join(_together(arms, verdict))}" for tokens, arms in own.items()]
    if not own:
        return f"{verdict.token_budget:,} sampled tokens for every arm and seed"
    if set(verdict.curves) <= set(verdict.own_budgets):
        return f"sampled tokens a seed: {'; '.join(parts)}"
    return f"{verdict.token_budget:,} sampled tokens for a seed of every other arm; {'; '.join(parts)}"


def _together(arms: Sequence[str], verdict: Verdict) -> list[str]:
    """Return the arms, those that are all there is in a place by the place's name."""
    named: dict[str, None] = {}
    for arm in arms:
        place = arm.partition(AT)[2]
        there = [other for other in verdict.curves if place and other.partition(AT)[2] == place]
        named[f"all in {place}" if len(there) > 1 and set(there) <= set(arms) else arm] = None
    return list(named)


def chart(verdict: Verdict) -> str:
    """Return as SVG the study's own picture, a map where each arm is a method in a place, or the learning curves."""
    if verdict.picture is not None:
        return Picture.from_json(verdict.picture).draw()
    if all(AT in arm for arm in verdict.curves):
        return _map(verdict)
    series = [
        Series(arm, [[(x, y) for x, y in line] for line in lines]) for arm, lines in verdict.curves.items() if lines
    ]
    title = f"{verdict.study} ({verdict.mode}): one line a seed"
    return line_chart(series, title=title, x="sampled tokens", y="held-out success", y_range=(0.0, 1.0))


def _drawn(verdict: Verdict) -> bool:
    return verdict.picture is not None or any(verdict.curves.values())


def _map(verdict: Verdict) -> str:
    """Return tokens to half success of every method, place and seed as SVG; the arms are named "method @ place"."""
    places: dict[str, dict[str, list[Dot]]] = {}
    for arm, curves in verdict.curves.items():
        name, _, place = arm.partition(AT)
        reached = [to_threshold([Measured(int(x), 0, y, 0) for x, y in curve], 0.5) for curve in curves]
        places.setdefault(place, {})[name] = [Dot(bounds.low, not bounds.known) for bounds in reached]
    title = f"{verdict.study} ({verdict.mode}): sampled tokens to half success"
    return dot_map(places, title=title, x="sampled tokens; a dot a seed, the stroke their median, an arrow: never")


def interval_text(judged: Judged) -> str:
    """Return estimate and interval as text."""
    value = "not known" if judged.estimate is None else f"{judged.estimate:.3g}"
    low = "-inf" if judged.low is None else f"{judged.low:.3g}"
    high = "inf" if judged.high is None else f"{judged.high:.3g}"
    return f"{value} [{low}, {high}]"


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of equal keys as a table; what is missing says "not measured"."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        lines.append("| " + " | ".join(cell(row.get(name)).replace("|", "\\|") for name in names) + " |")
    return "\n".join(lines)


def html_table(rows: Sequence[Mapping[str, Any]], links: Sequence[str | None] = ()) -> str:
    """Return rows of equal keys as an HTML table; `links` make the "study" cells links."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = []
    for index, row in enumerate(rows):
        cells = []
        for name in names:
            text = html.escape(cell(row.get(name)))
            if name == "study" and index < len(links) and links[index]:
                text = f'<a href="{html.escape(str(links[index]))}">{text}</a>'
            cells.append(f"<td>{text}</td>")
        body.append("<tr>" + "".join(cells) + "</tr>")
    return f"<table><tr>{head}</tr>\n" + "\n".join(body) + "\n</table>"


def cell(value: Any) -> str:
    """Return a figure as text."""
    if value is None:
        return "not measured"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _claim_row(study: Study, verdict: Verdict | None) -> dict[str, Any]:
    made = verdict is not None
    return {
        "claim": study.claim,
        "source": study.source,
        "study": study.name,
        "verdict": (f"{verdict.decision}" + ("" if verdict.mode == "full" else f" ({verdict.mode})"))
        if made
        else "not run",
        "estimate and interval": interval_text(verdict.headline) if made else None,
        "expected": study.expectations[0].text,
        "minutes": round(verdict.minutes, 1) if made else None,
        "command": verdict.command if made else f"foretaste lab run {study.name} --mode full",
    }


def _judged_row(judged: Judged) -> dict[str, Any]:
    return {
        "expected": judged.expectation + ("" if judged.required else " (secondary)"),
        "estimate and interval": interval_text(judged),
        "level": judged.level,
        "seeds": judged.seeds,
        "censored": judged.censored,
        "verdict": judged.decision.value,
    }


def _stem(study: str, mode: str) -> str:
    return study if mode == "full" else f"{study}-{mode}"


def _html(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _write(file: Path, text: str) -> None:
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)
