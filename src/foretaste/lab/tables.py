"""Rows of figures as tables, in Markdown and in self-contained HTML."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from foretaste.lab.verdict import Judged

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1f2937}
table{border-collapse:collapse;font-size:.9rem;display:block;overflow-x:auto}th,td{border-bottom:1px solid #d1d5db;
padding:.3rem .6rem;text-align:left;vertical-align:top}code{background:#f3f4f6;padding:0 .2rem}svg{width:100%}
.held{color:#166534}.refuted{color:#991b1b}.undecided,.exploratory{color:#92400e}"""


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


def html_document(title: str, body: str) -> str:
    """Return a whole document with the style of the studies' pages."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )
