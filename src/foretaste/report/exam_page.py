"""Writes a sitting's page: one HTML file that needs nothing else, from the ledger's records alone.

The verdict comes first, then what qualifies it. Text of models and environments is escaped by the
template, and the page's content security policy lets no script run and nothing be fetched.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from foretaste.ledger import Ledger
from foretaste.report import exam_examples, words
from foretaste.report import exam_sections as sections
from foretaste.report.exam_gather import ExamData, gather_exam
from foretaste.report.page import REPORT_NAME, asset, templates, write_page


def write_exam_report(ledger: Ledger, run_id: str, folder: str | Path) -> Path:
    """Write `report.html` of a sitting into `folder` and return its path; unfinished sittings too.

    Raises: LedgerError for an unknown run; OSError if the file cannot be written.
    """
    return write_page(Path(folder) / REPORT_NAME, render_exam(gather_exam(ledger, run_id)))


def render_exam(data: ExamData) -> str:
    """Return the page of a sitting as HTML."""
    headline, basis = sections.headline(data)
    return (
        templates()
        .get_template("exam.html")
        .render(
            style=Markup(asset("page.css") + asset("exam.css")),
            run=data.info,
            policy=data.policy,
            description=data.paper.get("description", ""),
            outcome="fail" if data.tampered else str(data.verdict.get("outcome", "none")).lower(),
            headline=headline,
            basis=basis,
            state=sections.state(data),
            tiles=sections.tiles(data),
            heat=sections.heat(data),
            wordings=sections.wordings(data),
            families=sections.families(data),
            failures=sections.failures(data),
            ping_pong=exam_examples.ping_pong(data),
            calibration=sections.calibration(data),
            repeated=sections.repeated(data),
            examples=exam_examples.examples(data),
            answers=exam_examples.answers(data),
            scarce=sections.scarce(data),
            looks=data.looks,
            provenance=sections.provenance(data),
            not_measured=words.NOT_MEASURED,
        )
    )
