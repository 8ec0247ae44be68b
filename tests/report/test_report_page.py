"""The page as text: what it says, what it leaves out, and that nothing foreign gets in."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from foretaste.errors import LedgerError
from foretaste.ledger import Ledger
from foretaste.report.gather import gather
from foretaste.report.page import write_report, write_summary


class Elements(HTMLParser):
    """All tags of a page with their attributes, and its visible text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self.tags or self.tags[-1][0] not in ("script", "style"):
            self.texts.append(data)


@pytest.fixture
def own(tmp_path: Path):
    with Ledger.open(tmp_path / "runs") as ledger:
        yield ledger


def test_the_page_begins_with_the_verdict_and_its_gain(page: Path, filled_ledger: tuple[Ledger, str]) -> None:
    ledger, run = filled_ledger
    records = ledger.records(run, "held_out")
    counts = {record.payload["label"]: sum(record.payload["success"]) for record in records}
    before, after = (f"{counts[label] / 200:.2f}".lstrip("0") for label in ("before", "after"))
    text = Elements(page).text
    assert re.search(rf"extract: success on 200 fresh held-out items rose from {before} \[\S+ \S+\] to {after} ", text)
    assert "the interval excludes zero." in text
    assert "the same items before and after" in text
    assert text.index("rose from") < text.index("Learning curve") < text.index("Provenance")


def test_the_page_holds_every_part(page: Path) -> None:
    text = Elements(page).text
    for part in (
        "Learning curve",
        "Value calibration",
        "Where time and tokens went",
        "Diagnostics",
        "Explained variance",
    ):
        assert part in text
    assert "7 min 13 s" in text  # wall time
    assert "1,280" in text  # episodes
    assert "foretaste train quick.toml" in text  # the command to repeat
    assert "Version of torch" in text
    assert "ab12" * 16 in text
    assert "algorithm.gamma" in text
    assert "extra/figure" in text  # a metric that the report does not know
    assert "gradients not finite" in text
    assert "policy/gradient_norm was not a finite number at some step" in text
    assert "Not measured: KL within a step" in text


def test_the_page_needs_nothing_from_elsewhere(page: Path) -> None:
    elements = Elements(page)
    assert page.stat().st_size < 1_000_000
    for tag, attributes in elements.tags:
        assert tag not in ("link", "iframe", "object", "embed", "img") or attributes.get("href") == "data:,"
        assert not {"src", "srcset", "action", "onclick", "onerror", "onload"} & set(attributes)
    style = re.search(r"<style>(.*?)</style>", page.read_text(encoding="utf-8"), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_foreign_text_stays_text(page: Path, fabricate: SimpleNamespace) -> None:
    html, elements = page.read_text(encoding="utf-8"), Elements(page)
    assert fabricate.hostile not in html
    assert fabricate.hostile in elements.text  # the warning and the error show it, escaped
    assert [attributes.get("type") for tag, attributes in elements.tags if tag == "script"] == [
        "application/json",
        None,
    ]
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert data is not None
    assert "<" not in data[1]
    viewer = json.loads(data[1])
    pieces = [piece for e in viewer["episodes"] for turn in e["turns"] for piece in turn["k"]]
    assert fabricate.hostile in pieces


def test_every_chart_has_a_text_alternative(page: Path) -> None:
    charts = [attributes for tag, attributes in Elements(page).tags if tag == "svg"]
    assert len(charts) > 20
    assert all(chart.get("role") == "img" for chart in charts)
    assert all(chart.get("aria-label") or chart.get("id") == "spark" for chart in charts)


def test_an_empty_run_shows_what_was_not_measured(own: Ledger, tmp_path: Path) -> None:
    run = own.start_run("train", "maze", {})
    page = write_report(own, run, tmp_path / "page")
    text = Elements(page).text
    assert "maze: success on held-out items was not measured" in text
    assert "has not finished, or was killed, before its first step" in text
    assert "Success was not measured." in text
    assert "Calibration was not measured." in text
    assert "No episode was recorded." in text
    assert "None were recorded." in text
    assert not re.search(r"\bnan\b|\bNone\b(?! were)|undefined", text, re.IGNORECASE)


def test_an_interrupted_run_says_so(own: Ledger, tmp_path: Path, fabricate: SimpleNamespace) -> None:
    run = fabricate.fill(own, steps=6, finish=False)
    text = Elements(write_report(own, run[:9], tmp_path)).text
    assert "was interrupted after step 6: stopped by Ctrl-C" in text
    assert "before training; not measured after it" in text
    assert "The gain and its interval were not measured." in text
    with pytest.raises(LedgerError, match=r"has not finished .status: interrupted."):
        write_summary(own, run, tmp_path)
    assert not (tmp_path / "summary.json").exists()


def test_the_summary_holds_the_runs_own_fields(filled_ledger: tuple[Ledger, str], tmp_path: Path) -> None:
    ledger, run = filled_ledger
    values = json.loads(write_summary(ledger, run, tmp_path).read_text())
    stored = ledger.records(run, "summary")[0].payload
    assert values == {name: value for name, value in stored.items() if name != "version"}


def test_rates_are_counted_anew_and_failed_items_left_out(own: Ledger) -> None:
    run = own.start_run("train", "x", {})
    claimed = {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 4}
    own.append(
        run, "held_out", {"label": "before", "success": [0, 0, None, 1], "seeds": [1, 2, 3, 4], "interval": claimed}
    )
    own.append(run, "held_out", {"label": "after", "success": [1, 0, 1, 1], "seeds": [1, 2, 3, 4]})
    data = gather(own, run)
    assert data.before is not None
    assert data.before.interval is not None
    assert (data.before.interval.mean, data.before.interval.n, data.before.errors) == (pytest.approx(1 / 3), 3, 1)
    gain, paired = data.gain()
    assert gain is not None
    assert paired
    assert (gain.mean, gain.n) == (pytest.approx(1 / 3), 3)


def test_different_items_are_not_paired(own: Ledger) -> None:
    run = own.start_run("train", "x", {})
    own.append(run, "held_out", {"label": "before", "success": [0] * 8, "seeds": list(range(8))})
    own.append(run, "held_out", {"label": "after", "success": [1] * 8, "seeds": list(range(8, 16))})
    gain, paired = gather(own, run).gain()
    assert gain is not None
    assert not paired
    assert gain.low > 0


def test_graded_outcomes_keep_the_runs_own_interval(own: Ledger) -> None:
    run = own.start_run("train", "x", {})
    interval = {"mean": 0.45, "low": 0.3, "high": 0.6, "n": 2, "level": 0.95}
    own.append(run, "held_out", {"label": "after", "success": [0.4, 0.5], "seeds": [1, 2], "interval": interval})
    own.append(run, "held_out", {"label": "before", "success": [0.1, 0.2], "seeds": [1, 2]})
    data = gather(own, run)
    assert data.after is not None
    assert data.after.interval is not None
    assert data.after.interval.high == 0.6
    assert data.before is not None
    assert data.before.interval is None
    assert data.gain() == (None, False)


def test_abandoned_steps_are_not_shown(own: Ledger) -> None:
    run = own.start_run("train", "x", {})
    own.append_many(run, [("metrics", {"train/success": 0.1 * k}, k) for k in (1, 2, 3)])
    own.append(run, "resume", {"from_step": 1})
    own.append(run, "metrics", {"train/success": 0.9}, step=2)
    data = gather(own, run)
    assert data.metrics["train/success"] == [(1, 0.1), (2, 0.9)]
    assert data.resumes == (1,)


def test_tokens_of_value_pretraining_are_counted(own: Ledger, tmp_path: Path) -> None:
    run = own.start_run("train", "x", {})
    own.append(run, "value_pretraining", {"train/sampled_tokens": 398.0}, step=0)
    own.append(run, "metrics", {"train/sampled_tokens": 602.0}, step=1)
    text = Elements(write_report(own, run, tmp_path)).text
    assert "Sampled tokens 1,000" in text
    assert "value pretraining 398 40%" in text


def test_newer_records_are_refused(own: Ledger, tmp_path: Path) -> None:
    run = own.start_run("train", "x", {})
    own.append(run, "episode", {"version": 99})
    with pytest.raises(LedgerError, match="upgrade foretaste"):
        write_report(own, run, tmp_path)


def test_text_that_utf8_cannot_carry_is_written(own: Ledger, tmp_path: Path, fabricate: SimpleNamespace) -> None:
    run = own.start_run("train", "x", {"text": "\ud800"})
    payload = fabricate.episode_payload(random.Random(0), "after", skill=1.0)
    payload["tokens_text"][0][0] = "\udfff\x00"
    own.append(run, "episode", payload, step=1)
    own.append(run, "warning", {"text": "\ud800"})
    assert "No episode" not in write_report(own, run, tmp_path).read_text(encoding="utf-8")


def test_several_sources_are_shown_with_their_shares_and_success(own: Ledger, tmp_path: Path) -> None:
    run = own.start_run("train", "maze@1 and 1 more", {})
    hostile = "lock?horizon=3&table=<script>"
    for step, share, success in ((1, 0.5, None), (2, 0.9, 0.25)):
        payload = {"sources": ["maze@1", hostile], "share": [share, 1 - share], "episodes": [8 * step, 4]}
        own.append(run, "curriculum", {**payload, "success": [success, None], "progress": [None, None]}, step=step)
    for label, rate in (("before", 0.0), ("after", 0.75)):
        by_source = {"maze@2": {"success": rate, "n": 4}, "desk@1": {"success": None, "n": 0}}
        own.append(run, "held_out", {"label": label, "success": [0, 1], "by_source": by_source}, step=2)
    page = Elements(write_report(own, run, tmp_path))
    assert "Sources of items" in page.text
    assert "maze@1 24 episodes" in page.text
    assert re.search(r"maze@2 \.00 \.75 4", page.text)
    assert re.search(r"desk@1 not measured not measured 0", page.text)
    labels = [attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg"]
    assert "maze@1: share of the items .50 to .90; success in training .25 to .25" in labels
    assert f"{hostile}: share of the items .50 to .10" in labels


def test_a_run_of_one_environment_says_nothing_of_sources(page: Path) -> None:
    assert "Sources of items" not in Elements(page).text
