"""What is kept of verdicts: `results/<study>.json|md|html|svg` of each, and the claims page that lists them all.

Everything is written from a `Verdict`; the JSON file is the record, the others are made from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foretaste.errors import ConfigError, RunError
from foretaste.lab.pages import chart, html_page, page, stem
from foretaste.lab.study import STUDIES, Study, load
from foretaste.lab.tables import html_document, html_table, interval_text, markdown_table
from foretaste.lab.verdict import Verdict, from_json


def write_verdict(verdict: Verdict, folder: Path) -> Path:
    """Write a verdict's four files, each replaced whole, and return the page in Markdown.

    Raises: RunError if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name = stem(verdict.study, verdict.mode)
        _write(folder / f"{name}.json", json.dumps(verdict.to_json(), indent=1) + "\n")
        _write(folder / f"{name}.svg", chart(verdict))
        _write(folder / f"{name}.md", page(verdict))
        _write(folder / f"{name}.html", html_page(verdict))
    except OSError as error:
        raise RunError(f"The verdict of {verdict.study} cannot be written to {folder}: {error}") from error
    return folder / f"{name}.md"


def replaced(verdict: Verdict, folder: Path) -> Verdict:
    """Return a verdict with those that it takes the place of in a folder kept beside it."""
    file = folder / f"{stem(verdict.study, verdict.mode)}.json"
    return verdict.after(read_verdict(verdict.study, folder, verdict.mode)) if file.is_file() else verdict


def read_verdict(name: str, folder: Path, mode: str | None = None) -> Verdict:
    """Read a study's verdict; without a mode the full one, else the quick one.

    Raises: ConfigError if there is none.
    """
    for candidate in (mode,) if mode else ("full", "quick"):
        file = folder / f"{stem(name, candidate)}.json"
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
        "An interval is over seeds, of training and of held-out items. Studies that ran before every seed had items of",
        "its own examined all seeds on the same ones, so what other items would give is not in it; their pages say so.",
        "",
    ]
    table = [_claim_row(study, verdict) for study, verdict in rows]
    for row, (_, verdict) in zip(table, rows, strict=True):
        if verdict is not None:
            row["study"] = f"[{row['study']}]({link}/{stem(verdict.study, verdict.mode)}.md)"
    lines.append(markdown_table(table) if table else "No study yet.")
    return "\n".join(lines) + "\n"


def claims_html(rows: Sequence[tuple[Study, Verdict | None]]) -> str:
    """Return the claims page in HTML, to lie beside the verdicts' pages."""
    links = [v and f"{stem(v.study, v.mode)}.html" for _, v in rows]
    table = html_table([_claim_row(study, verdict) for study, verdict in rows], links=links)
    return html_document(
        "Claims", f"<h1>Claims</h1>\n<p>Each claim, the study that tests it, and what came out.</p>\n{table}"
    )


def standing(study: Study, verdict: Verdict) -> str:
    """Return a verdict in a few words, with what a reader must know before believing it."""
    said = [] if verdict.mode == "full" else [verdict.mode]
    if study.tuning is not None and verdict.tuning is None:
        said.append("of arms that were not tuned alike")
    return f"{verdict.decision}" + (f" ({', '.join(said)})" if said else "")


def _claim_row(study: Study, verdict: Verdict | None) -> dict[str, Any]:
    made = verdict is not None
    return {
        "claim": verdict.claim if made else study.claim,
        "source": study.source,
        "study": study.name,
        "verdict": standing(study, verdict) if made else "not run",
        "estimate and interval": interval_text(verdict.headline) if made else None,
        "expected": verdict.headline.expectation if made else study.expectations[0].text,
        "minutes": round(verdict.minutes, 1) if made else None,
        "command": verdict.command if made else f"foretaste lab run {study.name} --mode full",
    }


def _write(file: Path, text: str) -> None:
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)
