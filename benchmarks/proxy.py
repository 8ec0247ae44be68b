"""Pass-through side by side: an endpoint called directly, through foretaste, and through LiteLLM's proxy, in one run.

    python benchmarks/proxy.py                       latency and requests a second of all three
    python benchmarks/proxy.py --soak 600            foretaste alone under load: memory over time

LiteLLM lives in an environment of its own (build/litellm), made at the first run. The endpoint answers a fixed small
completion at once, so that what is measured is the proxies. Rounds alternate between the three. foretaste does what it
does in use: it checks a key, and writes every request and answer into its store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import uvloop

ROOT = Path(__file__).resolve().parents[1]
LITELLM = ROOT / "build" / "litellm"
KEY = "sk-benchmark-0123456789"
REQUEST = json.dumps(
    {"model": "m", "messages": [{"role": "user", "content": "How many apples are in the box?"}]}
).encode()
ENDPOINT = """
import json
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "There are twelve."}, "finish_reason": "stop"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
BODY = json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE],
                   "usage": USAGE}).encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
async def app(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
"""


class Target(NamedTuple):
    """One way to the endpoint."""

    name: str
    url: str
    key: str


class Load(NamedTuple):
    """What one round measured."""

    rate: float
    """Requests a second."""
    milliseconds: list[float]


def main() -> None:
    """Start everything, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    parser.add_argument("--concurrent", type=int, default=32)
    parser.add_argument("--soak", type=float, default=0.0, help="seconds of load on foretaste alone")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two requests of a client in the soak")
    parser.add_argument("--without-litellm", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, endpoint(Path(scratch)) as port:
        if given.soak:
            with foretaste(Path(scratch), port) as (target, pid):
                uvloop.run(soak(target, pid, given.soak, given.concurrent, given.pause))
            return
        targets = [Target("direct", f"http://127.0.0.1:{port}/v1", "none")]
        with foretaste(Path(scratch), port) as (ours, _):
            targets.append(ours)
            if given.without_litellm:
                uvloop.run(compare(targets, given.rounds, given.seconds, given.concurrent))
                return
            with litellm(Path(scratch), port) as theirs:
                uvloop.run(compare([*targets, theirs], given.rounds, given.seconds, given.concurrent))


async def compare(targets: list[Target], rounds: int, seconds: float, concurrent: int) -> None:
    """Alternate between the targets, and print medians over the rounds, per target and as ratios."""
    singles: dict[str, list[float]] = {target.name: [] for target in targets}
    rates: dict[str, list[float]] = {target.name: [] for target in targets}
    busy: dict[str, list[float]] = {target.name: [] for target in targets}
    for target in targets:
        await load(target, 1.0, concurrent)  # warm: connections, caches, lazy imports
    for _ in range(rounds):
        for target in targets:
            singles[target.name] += (await load(target, seconds / 2, 1)).milliseconds
            found = await load(target, seconds, concurrent)
            rates[target.name].append(found.rate)
            busy[target.name] += found.milliseconds
    base = percentile(singles["direct"], 0.5)
    print(f"{rounds} rounds, {os.cpu_count()} cores shared by endpoint, proxy and load generator")
    print(f"{'':10} {'p50 ms':>8} {'p99 ms':>8} {'over direct':>12} | {concurrent:3} at once: requests/s, p50, p99 ms")
    for target in targets:
        one, many, rate = singles[target.name], busy[target.name], statistics.median(rates[target.name])
        p50 = percentile(one, 0.5)
        print(
            f"{target.name:10} {p50:8.2f} {percentile(one, 0.99):8.2f} {p50 - base:+12.2f} | "
            f"{rate:10.0f} {percentile(many, 0.5):10.2f} {percentile(many, 0.99):10.2f}"
        )
    if "litellm" in rates:
        pairs = zip(rates["foretaste"], rates["litellm"], strict=True)
        ratios = sorted(ours / theirs for ours, theirs in pairs)
        print(
            f"foretaste / litellm requests a second: {statistics.median(ratios):.1f}x "
            f"(rounds {ratios[0]:.1f} to {ratios[-1]:.1f})"
        )


async def load(target: Target, seconds: float, concurrent: int, pause: float = 0.0) -> Load:
    """Send requests for so long, so many at once, each client with a pause after every answer."""
    milliseconds: list[float] = []
    headers = {"authorization": f"Bearer {target.key}", "content-type": "application/json"}
    end = time.perf_counter() + seconds

    async def worker(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() < end:
            started = time.perf_counter()
            async with session.post(f"{target.url}/chat/completions", data=REQUEST, headers=headers) as answer:
                body = await answer.read()
                if answer.status != 200:
                    raise SystemExit(f"{target.name} answered {answer.status}: {body[:300]!r}")
            milliseconds.append(1000 * (time.perf_counter() - started))
            if pause:
                await asyncio.sleep(pause)

    began = time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrent)) as session:
        await asyncio.gather(*(worker(session) for _ in range(concurrent)))
    return Load(len(milliseconds) / (time.perf_counter() - began), milliseconds)


async def soak(target: Target, pid: int, seconds: float, concurrent: int, pause: float) -> None:
    """Load foretaste, and print its memory at eleven moments."""
    await load(target, 2.0, concurrent, pause)
    part, total, memory = seconds / 10, 0, [resident_megabytes(pid)]
    for _ in range(10):
        total += len((await load(target, part, concurrent, pause)).milliseconds)
        memory.append(resident_megabytes(pid))
        print(f"{total:9d} requests, {memory[-1]:7.1f} MB", flush=True)
    print(f"memory {memory[0]:.1f} -> {memory[-1]:.1f} MB over {total} requests in {seconds:.0f} s")


def percentile(values: list[float], share: float) -> float:
    """Return a percentile of measured values."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def resident_megabytes(pid: int) -> float:
    """Return a process's resident memory."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def endpoint(scratch: Path) -> Iterator[int]:
    """Run the fixed endpoint; yield its port."""
    (scratch / "endpoint.py").write_text(ENDPOINT, encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "endpoint:app", "--port", str(port), "--log-level", "critical"]
    with process([*command, "--lifespan", "off"], scratch, f"http://127.0.0.1:{port}/"):
        yield port


@contextmanager
def foretaste(scratch: Path, port: int) -> Iterator[tuple[Target, int]]:
    """Run foretaste in front of the endpoint, with its default settings; yield how to reach it."""
    own = free_port()
    folder = scratch / "foretaste"
    folder.mkdir()
    (folder / "deploy.toml").write_text(
        f'[server]\nport = {own}\nrequests_per_minute = 100_000_000\n[incumbent]\nurl = "http://127.0.0.1:{port}/v1"\n',
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "foretaste.cli"]
    made = subprocess.run(
        [*command, "deploy", "key", "create", "benchmark"], cwd=folder, check=True, capture_output=True, text=True
    )
    key = made.stdout.split()[-1]
    with process([*command, "serve"], folder, f"http://127.0.0.1:{own}/healthz") as pid:
        yield Target("foretaste", f"http://127.0.0.1:{own}/v1", key), pid


@contextmanager
def litellm(scratch: Path, port: int) -> Iterator[Target]:
    """Run LiteLLM's proxy in front of the endpoint, with one worker and a master key; yield how to reach it."""
    if not (LITELLM / "bin" / "litellm").exists():
        print("installing litellm[proxy] into build/litellm", flush=True)
        venv.create(LITELLM, with_pip=True)
        subprocess.run([LITELLM / "bin" / "pip", "install", "-q", "litellm[proxy]"], check=True)
    version = [LITELLM / "bin" / "python", "-c", "from importlib.metadata import version as v; print(v('litellm'))"]
    print("litellm", subprocess.run(version, check=True, capture_output=True, text=True).stdout.strip())
    own = free_port()
    config = {
        "model_list": [
            {
                "model_name": "m",
                "litellm_params": {"model": "openai/m", "api_base": f"http://127.0.0.1:{port}/v1", "api_key": "none"},
            }
        ],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"telemetry": False},
    }
    (scratch / "litellm.yaml").write_text(json.dumps(config), encoding="utf-8")
    arguments = ["--config", str(scratch / "litellm.yaml"), "--port", str(own), "--host", "127.0.0.1"]
    alive = f"http://127.0.0.1:{own}/health/liveliness"
    environment = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with process([str(LITELLM / "bin" / "litellm"), *arguments], scratch, alive, environment):
        yield Target("litellm", f"http://127.0.0.1:{own}/v1", KEY)


@contextmanager
def process(command: list[str], folder: Path, alive: str, more: dict[str, str] | None = None) -> Iterator[int]:
    """Run a server until the block ends; wait until it answers at `alive`."""
    log = folder / f"{Path(command[0]).name}-{command[2] if len(command) > 2 else ''}.log".replace("/", "-")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(more or {})}
    with open(log, "w", encoding="utf-8") as file:
        started = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file, env=environment)
    try:
        for _ in range(600):
            if started.poll() is not None:
                raise SystemExit(f"{command} ended: {log.read_text(encoding='utf-8')[-2000:]}")
            try:
                urllib.request.urlopen(alive, timeout=2).close()
                break
            except OSError:
                time.sleep(0.2)
        yield started.pid
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


if __name__ == "__main__":
    main()
