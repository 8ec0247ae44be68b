"""The page of a sitting: what it says, what it escapes, and how it looks in a real Chromium."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foretaste.exams.exam import SitConfig, sit
from foretaste.exams.paper import Family, Paper
from foretaste.ledger import Ledger
from foretaste.records import Action, Conversation
from foretaste.report.exam_page import write_exam_report

HOSTILE = "<script>window.hostile = 1</script><img src=x onerror='window.hostile = 2'>{{ 7*7 }}\ud83d"
PAPER = Paper(
    "page",
    (
        Family("repair", levels=(4,), items=3, registers=("plain", "email")),
        Family("route", items=5, registers=("plain", "casual", "chinese")),
        Family("route", levels=(2,), items=3, release="ladder"),
    ),
    threshold=0.6,
)


class Mixed:
    """Right by chance, hostile otherwise; with values that know a little."""

    name = f"mixed {HOSTILE[:36]}"

    def act(self, conversations: list[Conversation]) -> list[Action]:
        replies = []
        for place, conversation in enumerate(conversations):
            turn = len(conversation.messages)
            kinds = ("billing", f"{turn % 2 + 1}: p = a + {turn % 5}", "delivery", HOSTILE, "I'm sorry, no", "")
            text = kinds[(conversation.sample_seed + turn + place) % len(kinds)]
            replies.append(Action(text, values=(0.1 + 0.8 * (text == "billing"),)))
        return replies


@pytest.fixture(scope="module")
def sat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, str, Path]]:
    folder = tmp_path_factory.mktemp("exam")
    with Ledger.open(folder) as ledger:
        sitting = sit(PAPER, SitConfig(samples=2), ledger, runs_folder=folder, policy=Mixed())
        yield ledger, sitting.run, write_exam_report(ledger, sitting.run, folder / sitting.run)


def test_the_page_says_the_verdict_first_and_everything_behind_it(sat: tuple[Ledger, str, Path]) -> None:
    ledger, run, page = sat
    text = page.read_text(encoding="utf-8")
    outcome = ledger.records(run, "verdict")[0].payload["outcome"]
    assert text.index(outcome, text.index("<h1>")) < text.index("Failure budget")
    for title in (
        "Public - sealed",
        "What a wording costs",
        "Ping-pong",
        "side by side",
        "Scarce families",
        "Looks at",
    ):
        assert title in text, title
    for name in ("unparseable", "refused", "truncated", "error"):
        assert name in text
    commitment = ledger.records(run, "plan")[0].payload["commitment"]
    assert commitment in text
    assert "1 of 20" in text
    assert "Agrees with the headline" in text or "two outcomes" in text


def test_an_unfinished_sitting_has_a_page_too(tmp_path: Path) -> None:
    class Broken(Mixed):
        def act(self, conversations: list[Conversation]) -> list[Action]:
            raise KeyboardInterrupt

    with Ledger.open(tmp_path) as ledger:
        with pytest.raises(KeyboardInterrupt) as caught:
            sit(PAPER, SitConfig(), ledger, runs_folder=tmp_path, policy=Broken())
        run = caught.value.__notes__[0]
        text = write_exam_report(ledger, run, tmp_path / run).read_text(encoding="utf-8")
    assert "no verdict yet" in text
    assert f"foretaste exam --resume {run}" in text
    assert "No item was judged" in text


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_opens_cleanly_in_chromium(
    browser: Any, sat: tuple[Ledger, str, Path], tmp_path: Path, width: int, dark: bool
) -> None:
    browser.open(sat[2], width=width, dark=dark)
    assert browser.problems() == []
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert browser.run("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
    outside = "!e.closest('.scroll') && !e.closest('svg') && !e.closest('.matrices figure')"
    assert browser.run(f"{wide} && {outside}).map(e => e.outerHTML.slice(0, 80))") == []
    assert browser.run("typeof window.hostile") == "undefined"
    assert browser.run("document.querySelectorAll('main img, main script').length") == 0
    assert "window.hostile" in browser.run("document.body.innerText")
    browser.screenshot(tmp_path / "page.png")
    assert struct.unpack(">II", (tmp_path / "page.png").read_bytes()[16:24])[0] == width
