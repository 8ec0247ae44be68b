"""Writes a run's report: one HTML file that needs nothing else, from the ledger's records alone.

`write_report` gathers (gather.py), draws (charts.py), picks episodes (episodes.py) and fills
templates/page.html. Text of models and environments is escaped by the template, and the page's
content security policy lets no script run but its own and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from foretaste.errors import LedgerError
from foretaste.ledger import Ledger
from foretaste.report import episodes, sections, words
from foretaste.report.gather import RunData, gather
from foretaste.strict_json import to_json

REPORT_NAME = "report.html"
SUMMARY_NAME = "summary.json"


def write_report(ledger: Ledger, run_id: str, folder: str | Path) -> Path:
    """Write `report.html` of a run into `folder` and return its path.

    `run_id` may be a unique prefix or "latest". Works on unfinished runs: what is missing shows as
    "not measured".

    Raises: LedgerError for an unknown run or unreadable records; OSError if the file cannot be written.
    """
    return write_page(Path(folder) / REPORT_NAME, render(gather(ledger, run_id)))


def write_summary(ledger: Ledger, run_id: str, folder: str | Path) -> Path:
    """Write `summary.json`, the fields of `RunSummary`, into `folder` and return its path.

    Raises: LedgerError if the run has not finished; OSError if the file cannot be written.
    """
    data = gather(ledger, run_id)
    if not data.summary:
        raise LedgerError(
            f"Run {data.info.id} has no summary: it has not finished (status: {data.info.status}). "
            f"Continue it: foretaste train --resume {data.info.id}"
        )
    values = {name: value for name, value in data.summary.items() if name != "version"}
    return write_page(Path(folder) / SUMMARY_NAME, to_json(values, indent=2) + "\n")


def render(data: RunData) -> str:
    """Return the page of a run as HTML."""
    script = asset("page.js")
    packed = episodes.choose(data.episodes)
    gain, paired = data.gain()
    before, after = data.before, data.after
    return (
        templates()
        .get_template("page.html")
        .render(
            style=Markup(asset("page.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            run=data.info,
            verdict=words.verdict(data.info.name, before and before.interval, after and after.interval),
            gain=words.gain_sentence(gain, paired=paired),
            gain_is_clear=gain is not None and gain.low > 0,
            state=sections.state(data),
            tiles=sections.tiles(data, gain),
            learning=sections.learning(data),
            calibrations=sections.calibrations(data),
            diagnostics=sections.diagnostics(data),
            sources=sections.sources(data),
            spending=sections.spending(data),
            warnings=sections.warnings(data),
            provenance=sections.provenance(data),
            config=sections.flat(data.info.config),
            episodes=packed,
            episodes_recorded=len(data.episodes),
            viewer={"episodes": packed, "range": episodes.value_range(packed)},
            not_measured=words.NOT_MEASURED,
        )
    )


def templates() -> jinja2.Environment:
    """Return the environment of the page templates: everything filled in is escaped, a missing name is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("foretaste.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def asset(name: str) -> str:
    """Return the text of a file beside the templates."""
    return resources.files("foretaste.report").joinpath("templates", name).read_text(encoding="utf-8")


def write_page(path: Path, text: str) -> Path:
    """Write through a temporary file, so that a reader never sees half a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        # Model output may hold lone surrogates, which UTF-8 cannot carry.
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return path
