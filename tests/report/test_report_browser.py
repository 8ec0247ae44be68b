"""The page in a real Chromium: no errors, no requests, no sideways scrolling, a viewer that works."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

CHAT = "document.getElementById('chat').innerText"
FACTS = "document.getElementById('facts').innerText"
READING = "document.getElementById('reading').innerText"


def choose(browser: Any, control: str, value: str) -> None:
    browser.run(
        f"(() => {{ const s = document.getElementById('{control}'); s.value = {value!r}; "
        "s.dispatchEvent(new Event('change')); })()"
    )


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_opens_cleanly(browser: Any, page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.problems() == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    # Nothing but the boxes made for it may scroll sideways.
    wide = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
    assert (
        browser.run(f"{wide} && !e.closest('.scroll') && !e.closest('svg')).map(e => e.outerHTML.slice(0, 80))") == []
    )
    browser.screenshot(tmp_path / "page.png")
    image = (tmp_path / "page.png").read_bytes()
    assert struct.unpack(">II", image[16:24])[0] == width
    assert len(image) > 50_000


def test_foreign_text_runs_nothing(browser: Any, page: Path) -> None:
    browser.open(page, width=1280)
    choose(browser, "when", "any")
    for index in range(browser.run("document.getElementById('episode').options.length")):
        choose(browser, "episode", str(index))
        if "window.hostile" in browser.run(CHAT):
            break
    else:
        pytest.fail("no episode with foreign script was shown")
    assert "<script>" in browser.run(CHAT)
    assert browser.run("typeof window.hostile") == "undefined"
    assert browser.run("document.querySelectorAll('#chat img, #chat script').length") == 0
    assert browser.problems() == []


def test_no_script_but_the_pages_own_can_run(browser: Any, page: Path) -> None:
    browser.open(page, width=1280)
    browser.run(
        "(() => { const s = document.createElement('script'); s.text = 'window.hostile = 3'; "
        "document.body.append(s) })()"
    )
    assert browser.run("typeof window.hostile") == "undefined"
    assert any("Content Security Policy" in problem for problem in browser.problems())


def test_the_viewer_shades_and_switches(browser: Any, page: Path) -> None:
    browser.open(page, width=1280)
    assert browser.run("document.getElementById('when').value") == "after"
    first = browser.run(FACTS)
    colours = browser.run(
        "[...new Set([...document.querySelectorAll('.token')].map(t => getComputedStyle(t).backgroundColor))]"
    )
    assert len(colours) > 5
    index = browser.run("Number(document.getElementById('episode').value)")
    browser.point("#previous" if index else "#next", click=True)
    assert browser.run("Number(document.getElementById('episode').value)") == (index - 1 if index else 1)
    assert browser.run(FACTS) != first
    assert browser.problems() == []


def test_filters_show_only_their_kind(browser: Any, page: Path) -> None:
    browser.open(page, width=1280)
    choose(browser, "when", "any")
    for kind, word in (("success", "success"), ("failure", "failure"), ("error", "error")):
        choose(browser, "which", kind)
        titles = browser.run("[...document.getElementById('episode').options].map(o => o.text)")
        assert titles
        assert all(f". {word}, " in title for title in titles)
        assert browser.run(FACTS).startswith(word)
    assert "ValueError" in browser.run(CHAT)
    choose(browser, "when", "before")
    assert browser.run(READING) == "No recorded episode is of this kind."
    choose(browser, "which", "worst")
    rewards = [
        title.split("reward ")[1].split(",")[0]
        for title in browser.run("[...document.getElementById('episode').options].map(o => o.text)")
    ]
    assert rewards == sorted(rewards)


def test_a_token_tells_its_value_to_mouse_and_keyboard(browser: Any, page: Path) -> None:
    browser.open(page, width=1280)
    browser.point(".token:nth-of-type(3)")
    assert browser.run("!document.getElementById('tip').hidden")
    assert browser.run("document.getElementById('tip').innerText").startswith("V ")
    assert "log-probability -" in browser.run("document.getElementById('tip').innerText")
    assert browser.run(READING).startswith("Token 3 of ")
    browser.run("document.getElementById('chat').focus()")
    browser.key("ArrowRight")
    assert browser.run(READING).startswith("Token 4 of ")
    browser.key("End")  # scrolls, and the tip stays beside its token
    browser.run("new Promise(requestAnimationFrame).then(() => new Promise(requestAnimationFrame)).then(() => 1)")
    assert browser.run("!document.getElementById('tip').hidden")
    count = browser.run("document.querySelectorAll('.token').length")
    assert browser.run(READING).startswith(f"Token {count} of {count}")
    assert browser.run("document.querySelectorAll('.token.here').length") == 1


def test_the_sparkline_leads_to_the_token(browser: Any, page: Path) -> None:
    browser.open(page, width=390)
    browser.point("#spark", click=True)
    count = browser.run("document.querySelectorAll('.token').length")
    place = int(browser.run(READING).split()[1])
    assert abs(place - count / 2) <= 2
    box = browser.run(
        "(() => { const c = document.getElementById('chat').getBoundingClientRect(), "
        "t = document.querySelector('.token.here').getBoundingClientRect(); "
        "return t.top >= c.top && t.bottom <= c.bottom })()"
    )
    assert box is True


def test_shading_by_log_probability(browser: Any, page: Path) -> None:
    browser.open(page, width=1280)
    shades = "[...document.querySelectorAll('.token')].map(t => t.style.getPropertyValue('--v')).join()"
    by_value = browser.run(shades)
    browser.point("input[value=p]", click=True)
    assert browser.run(shades) != by_value
    assert "certain" in browser.run("document.getElementById('scale-high').innerText")


# The lowest contrast of any text with its ground, by WCAG's formula; a canvas turns every colour notation into RGB.
CONTRAST = """(() => {
  const paint = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => {
    paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data];
  };
  const linear = (x) => (x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return [255, 255, 255];
  };
  const ratio = (e) => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  };
  const texts = 'h1, h2, h3, p, dt, dd, li, td, th, label, summary, figcaption, .remark, .token, .who';
  const shown = [...document.querySelectorAll(texts)].filter((e) => e.innerText.trim() && e.offsetParent);
  return Math.min(...shown.map(ratio));
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_readable_on_its_ground(browser: Any, page: Path, dark: bool) -> None:
    browser.open(page, width=1280, dark=dark)
    assert browser.run(CONTRAST) >= 4.5  # WCAG 2.2, level AA
