"""A fabricated run for the report's tests, and a real browser to open its page in."""

from __future__ import annotations

import base64
import json
import os
import random
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foretaste.ledger import Ledger
from foretaste.records import Action, Episode, EpisodeEnd, Turn, to_json

HOSTILE = "<script>window.hostile = 1</script><img src=x onerror='window.hostile = 2'>\"&amp;{{ 7*7 }}"
"""What a model or an environment might write, by chance or on purpose."""


def make_episode(rng: random.Random, *, skill: float, turns: int = 3, hostile: bool = False) -> tuple[Episode, list]:
    """Return an episode whose values drift towards its outcome, and the text of its tokens."""
    success = rng.random() < skill
    value, made, texts = skill, [], []
    for place in range(turns):
        pieces = ['{"', "name", '":', ' "', rng.choice(["Mira", "Jon", "Ada"]), '",', ' "', "item", '":', ' "']
        pieces += [
            rng.choice(["lamp", "chair", "mug"]),
            '",',
            "\n",
            ' "',
            "quantity",
            '":',
            f" {rng.randint(1, 9)}",
            "}",
        ]
        pieces += [HOSTILE] if hostile else []
        values = []
        for _ in pieces:
            value += 0.05 * ((1.0 if success else 0.0) - value) + rng.gauss(0, 0.02)
            value = min(0.99, max(0.01, value))
            values.append(value)
        logprobs = tuple(-rng.expovariate(4.0) for _ in pieces)
        action = Action("".join(pieces), tuple(range(len(pieces))), logprobs, tuple(values))
        observation = "hey, could you send Mira two lamps? no wait, make that three, and the blue ones please."
        if place:
            observation = f"Check {place} of {turns}: the quantity does not match the message." + (HOSTILE * hostile)
        made.append(Turn(observation, action, reward=float(success) if place == turns - 1 else 0.0))
        texts.append(pieces)
    seed = (1 << 60) + rng.getrandbits(50)
    episode = Episode("extract", seed, "practice", 1, "casual", tuple(made), EpisodeEnd.TERMINATED, float(success))
    return episode, texts


def episode_payload(rng: random.Random, label: str, **options: Any) -> dict[str, Any]:
    episode, texts = make_episode(rng, **options)
    return {"label": label, "tokens_text": texts, **to_json(episode)}


def calibration(label: str, sharpness: float) -> dict[str, Any]:
    bins = []
    for part in ("0-25%", "25-50%", "50-75%", "75-100%"):
        for i in range(10):
            middle = (i + 0.5) / 10
            outcome = min(1.0, max(0.0, 0.5 + (middle - 0.5) * sharpness))
            bins.append(
                {"turn_part": part, "low": i / 10, "high": (i + 1) / 10, "n": 10 + 30 * abs(i - 5)}
                | {"mean_value": middle, "mean_outcome": outcome}
            )
    bins[3] |= {"n": 0, "mean_value": None, "mean_outcome": None}
    return {"label": label, "bins": bins, "ece": 0.05 / sharpness, "auc": {"25": 0.66, "50": 0.81, "75": None}}


def fill(ledger: Ledger, *, steps: int = 20, items: int = 200, episodes: int = 3, finish: bool = True) -> str:
    """Write a plausible finished run and return its id."""
    rng = random.Random(7)
    config = {"env": {"id": "extract", "level": 1}, "model": {"name": "nano"}, "algorithm": {"gamma": 1.0}, "seed": 3}
    run = ledger.start_run("train", "extract", config)
    versions = {"foretaste": "0.1.0", "torch": "2.13.0"}
    ledger.append(run, "status", {"status": "started", "versions": versions, "command": "foretaste train quick.toml"})
    seeds = [(1 << 60) + i for i in range(items)]

    def held_out(label: str, rate: float, n: int, step: int) -> None:
        outcomes = [1 if rng.random() < rate else 0 for _ in range(n)]
        payload = {"label": label, "success": outcomes, "seeds": seeds[:n], "sampled_tokens": 38 * n}
        ledger.append(run, "held_out", payload, step=step)

    held_out("before", 0.04, items, 0)
    ledger.append(run, "calibration", calibration("before", 0.4), step=0)
    for _ in range(episodes):
        ledger.append(run, "episode", episode_payload(rng, "before", skill=0.1), step=0)
    for step in range(1, steps + 1):
        skill = 0.04 + 0.9 / (1 + 2.718 ** (-(step - steps / 3) / 2))
        metrics = {
            "train/success": skill + rng.gauss(0, 0.04),
            "train/reward": skill,
            "train/episodes": 64,
            "train/sampled_tokens": 2400 + rng.randint(-200, 200),
            "train/errors": 1 if step == 4 else 0,
            "train/truncated": 0.02,
            "value/explained_variance": 0.7 * step / steps - 0.1,
            "value/loss": 0.6 / step**0.3,
            "value/auc_25": 0.6,
            "value/auc_50": 0.6 + 0.25 * step / steps,
            "value/auc_75": 0.9,
            "policy/entropy": 0.5 - 0.01 * step,
            "policy/clip_fraction": 0.03 + 0.01 * rng.random(),
            "policy/ratio_max": 1.5 + rng.random(),
            "policy/ratio_p999": 1.1 + 0.1 * rng.random(),
            "policy/gradient_norm": float("inf") if step == 2 else 1.0 + rng.random(),
            "value/gradient_norm": 2.0 + rng.random(),
            "time/sample_seconds": 7.5,
            "time/env_seconds": 0.4,
            "time/train_seconds": 9.0,
            "time/held_out_seconds": 2.0 if step % 5 == 0 else 0.0,
            "time/save_seconds": 0.3,
            "extra/figure": float(step),
        }
        ledger.append(run, "metrics", metrics, step=step)
        if step % 5 == 0:
            held_out("curve", skill, 64, step)
            ledger.append(run, "episode", episode_payload(rng, "train", skill=skill, turns=2), step=step)
    failed = Episode("extract", 12, "train", 1, "plain", (), EpisodeEnd.ERROR, None, error=f"ValueError: {HOSTILE}")
    ledger.append(run, "episode", {"label": "train", "tokens_text": [], **to_json(failed)}, step=4)
    if not finish:
        ledger.append(run, "status", {"status": "interrupted", "reason": "stopped by Ctrl-C"})
        return run
    held_out("after", 0.91, items, steps)
    ledger.append(run, "calibration", calibration("after", 0.9), step=steps)
    for place in range(episodes):
        payload = episode_payload(rng, "after", skill=0.9 if place else 0.0, turns=4, hostile=place == 1)
        ledger.append(run, "episode", payload, step=steps)
    ledger.append(run, "warning", {"text": f"gradients not finite {HOSTILE}", "knob": "max_grad_norm"}, step=2)
    ledger.append(run, "checkpoint", {"id": "ab12" * 16, "path": "runs/x/final", "parents": ["cd34" * 16]}, step=steps)
    summary = {"wall_seconds": 433.2, "sampled_tokens": 48_000, "episodes": 1280, "value_calibration_error": 0.056}
    ledger.append(run, "summary", {"version": 1, "run": run, "env": "extract", "value_auc": 0.81, **summary})
    ledger.append(run, "status", {"status": "finished"})
    return run


@pytest.fixture(scope="session")
def fabricate() -> SimpleNamespace:
    """The functions above, for tests that need a run of their own."""
    return SimpleNamespace(fill=fill, make_episode=make_episode, episode_payload=episode_payload, hostile=HOSTILE)


@pytest.fixture(scope="session")
def filled_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, str]]:
    with Ledger.open(tmp_path_factory.mktemp("ledger")) as ledger:
        yield ledger, fill(ledger)


@pytest.fixture(scope="session")
def page(filled_ledger: tuple[Ledger, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from foretaste.report.page import write_report

    ledger, run = filled_ledger
    return write_report(ledger, run, tmp_path_factory.mktemp("page"))


# A real browser -----------------------------------------------------------------------------------

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


class Browser:
    """Chromium driven by its DevTools protocol over two pipes: JSON messages, each ended by a zero byte."""

    def __init__(self, profile: Path) -> None:
        command = find_browser()
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        # The protocol's pipes are descriptors 3 and 4 of the browser; the shell puts them there.
        script = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        arguments = [command, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", script, *arguments],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._next = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come before it are kept in `events`."""
        self._next += 1
        message: dict[str, Any] = {"id": self._next, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._next:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a page at a viewport's size and wait until it has loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def key(self, name: str) -> None:
        """Press a key, as a person would."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def point(self, selector: str, *, click: bool = False) -> None:
        """Move the mouse to the middle of an element, and click if asked to."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}}); "
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased") if click else ("mouseMoved",):
            button = "none" if kind == "mouseMoved" else "left"
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=int(click))

    def screenshot(self, file: Path) -> None:
        """Write the whole page as a PNG."""
        image = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(image))

    def problems(self) -> list[str]:
        """Return console errors, exceptions, policy violations, and requests beyond the page itself."""
        self.run("1")  # whatever the page still had to say has arrived before this answer
        found = []
        for event in self.events:
            method, parameters = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(str(parameters["exceptionDetails"]))
            elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
                found.append(parameters["entry"]["text"])
            elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
                found.append(str(parameters["args"]))
            elif method == "Network.requestWillBeSent":
                url = parameters["request"]["url"]
                if not url.startswith("data:") and not (url.startswith("file:") and url.endswith("/report.html")):
                    found.append(f"request: {url}")
        return found

    def close(self) -> None:
        """End the browser and everything it started."""
        os.close(self._out)
        os.close(self._in)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(5)

    def _read(self, seconds: float = 20.0) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], seconds)
            chunk = os.read(self._in, 1 << 20) if ready else b""
            assert chunk, "the browser did not answer; is it able to start here? Try: chromium --headless --no-sandbox"
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


def find_browser() -> str:
    """Return a Chromium or Chrome; a test that needs one fails without it."""
    for name in (os.environ.get("FORETASTE_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"):
        found = name and shutil.which(name)
        if found:
            return found
    pytest.fail("No Chromium found, and a report is tested in a real browser. Install it: bash tools/install-chromium")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()
