"""Honest users beside attackers: how much later their answers come, and what the server's memory does.

    python -m benchmarks.attacks --minutes 10

Fifty users ask in a steady rhythm, first alone, then while a process of attackers does all of `ATTACKS` at once from
other addresses of the loopback network (Linux). Printed: the users' p99 with and without attackers, their ratio, what
they were answered, and the server's resident memory along the way. Server, endpoint, users and attackers share the
machine's cores, so a part of what the users feel is the attackers' own work.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import uvloop

from benchmarks.proxy import REQUEST, Target, foretaste, free_port, percentile, process, resident_megabytes
from foretaste.deploy.network.open_files import allow_open_files

ENDPOINT = """
import asyncio, json
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "There are twelve."}, "finish_reason": "stop"}
BODY = json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
                   "choices": [CHOICE]}).encode()
PIECE = b"x" * 65536
async def app(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
    await send(start)
    if b'"drip"' in body:
        for _ in range(3600):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(1.0)
    elif b'"big"' in body:
        for _ in range(800):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    else:
        await send({"type": "http.response.body", "body": BODY, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
"""


def main() -> None:
    """Measure the users alone and under attack, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the attack")
    parser.add_argument("--alone", type=float, default=1.0, help="minutes of the users alone, before it")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two requests of a user")
    parser.add_argument("--attack", nargs=3, metavar=("HOST", "PORT", "KEY"), help="only attack, until it is ended")
    given = parser.parse_args()
    allow_open_files(8192)
    if given.attack:
        uvloop.run(attack(given.attack[0], int(given.attack[1]), given.attack[2]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "endpoint.py").write_text(ENDPOINT, encoding="utf-8")
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "endpoint:app", "--port", str(port), "--log-level", "critical"]
        with (
            process([*command, "--lifespan", "off"], Path(scratch), f"http://127.0.0.1:{port}/"),
            foretaste(Path(scratch), port) as (target, pid),
        ):
            uvloop.run(compare(target, pid, given.users, given.pause, 60 * given.alone, 60 * given.minutes))


async def compare(target: Target, pid: int, users: int, pause: float, alone: float, under_attack: float) -> None:
    """Measure both phases."""
    await ask(target, users, pause, 3.0)
    before, answers = await ask(target, users, pause, alone)
    base = percentile(before, 0.99)
    first = resident_megabytes(pid)
    print(f"{users} users alone:      p50 {percentile(before, 0.5):6.1f} ms, p99 {base:6.1f} ms; {dict(answers)}")
    host, own = target.url.removeprefix("http://").removesuffix("/v1").split(":")
    attacker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.attacks", "--attack", host, own, target.key, stdout=subprocess.DEVNULL
    )
    memory, times, statuses = [first], [], Counter[str]()
    try:
        for _ in range(10):
            found, answers = await ask(target, users, pause, under_attack / 10)
            times += found
            statuses += answers
            memory.append(resident_megabytes(pid))
            print(f"  under attack: p99 {percentile(found, 0.99):6.1f} ms, {memory[-1]:6.1f} MB", flush=True)
    finally:
        attacker.terminate()
        await attacker.wait()
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    print(f"{users} users under attack: p50 {p50:6.1f} ms, p99 {p99:6.1f} ms; {dict(statuses)}")
    print(f"p99 under attack / alone: {p99 / base:.2f}; memory {memory[0]:.1f} -> {memory[-1]:.1f} MB, ", end="")
    print(f"at most {max(memory):.1f} MB, over {under_attack:.0f} s")
    await asyncio.sleep(5.0)
    print(f"memory five seconds after the attack: {resident_megabytes(pid):.1f} MB")


async def ask(target: Target, users: int, pause: float, seconds: float) -> tuple[list[float], Counter[str]]:
    """Have users ask for so long; return the milliseconds of their answers, and what these were."""
    milliseconds: list[float] = []
    answers: Counter[str] = Counter()
    headers = {"authorization": f"Bearer {target.key}", "content-type": "application/json"}
    end = time.perf_counter() + seconds

    async def user(session: aiohttp.ClientSession) -> None:
        await asyncio.sleep(random.random() * pause)
        while time.perf_counter() < end:
            started = time.perf_counter()
            try:
                async with session.post(f"{target.url}/chat/completions", data=REQUEST, headers=headers) as answer:
                    await answer.read()
                    answers[str(answer.status)] += 1
            except aiohttp.ClientError as error:
                answers[type(error).__name__] += 1
            milliseconds.append(1000 * (time.perf_counter() - started))
            await asyncio.sleep(pause * (0.5 + random.random()))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=users)) as session:
        await asyncio.gather(*(user(session) for _ in range(users)))
    return milliseconds, answers


# What attackers do -----------------------------------------------------------------------------------------------


class Attacker:
    """One address, from which connections are opened."""

    def __init__(self, host: str, port: int, key: str, address: str) -> None:
        self._host, self._port, self.key, self._address = host, port, key, address

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection from this address."""
        return await asyncio.open_connection(self._host, self._port, local_addr=(self._address, 0))

    def request(self, body: bytes, *, key: str | None = None, more: str = "", length: int | None = None) -> bytes:
        """Return a chat request with a body."""
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{more}"
        head += "" if key is None else f"Authorization: Bearer {key}\r\n"
        return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def chat(model: str, **more: object) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], **more}).encode()


async def drip(writer: asyncio.StreamWriter, seconds: float) -> None:
    """Send a byte, again and again, until the connection is closed."""
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(seconds)


async def endless_header(one: Attacker) -> None:
    """Headers without end."""
    _, writer = await one.open()
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ")
    while not writer.is_closing():
        writer.write(b"y" * 65536)
        await writer.drain()


async def many_headers(one: Attacker) -> None:
    """More and more headers."""
    _, writer = await one.open()
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
    while not writer.is_closing():
        writer.write(b"X-A: b\r\n" * 1000)
        await writer.drain()


async def slow_head(one: Attacker) -> None:
    """A head that comes byte by byte."""
    _, writer = await one.open()
    writer.write(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
    await drip(writer, 4.0)


async def body_without_key(one: Attacker) -> None:
    """A POST without a key, whose body comes byte by byte."""
    _, writer = await one.open()
    writer.write(one.request(b"{", length=1000))
    await drip(writer, 4.0)


async def slow_body(one: Attacker) -> None:
    """The same with a key."""
    _, writer = await one.open()
    writer.write(one.request(b"{", key=one.key, length=1000))
    await drip(writer, 4.0)


async def leave_early(one: Attacker) -> None:
    """Ask what takes long, and leave."""
    _, writer = await one.open()
    writer.write(one.request(chat("drip", stream=True), key=one.key))
    await asyncio.sleep(random.random())
    writer.transport.abort()
    await asyncio.sleep(1.0)


async def read_nothing(one: Attacker) -> None:
    """Ask for fifty megabytes, and take none of them."""
    reader, writer = await one.open()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(one.request(chat("big"), key=one.key))
    await asyncio.sleep(60.0)
    writer.transport.abort()
    del reader


async def bomb(one: Attacker) -> None:
    """A small body that unfolds to a hundred megabytes."""
    reader, writer = await one.open()
    writer.write(one.request(BOMB, key=one.key, more="Content-Encoding: gzip\r\n"))
    await reader.read()
    await asyncio.sleep(2.0)


async def send_ahead(one: Attacker) -> None:
    """Thousands of requests before the first answer."""
    _, writer = await one.open()
    writer.write(one.request(chat("drip", stream=True), key=one.key) * 2000)
    await asyncio.sleep(5.0)
    writer.transport.abort()


async def deep_json(one: Attacker) -> None:
    """JSON of a hundred thousand levels."""
    reader, writer = await one.open()
    writer.write(one.request(b"[" * 100_000, key=one.key))
    await reader.read(100)
    writer.transport.abort()
    await asyncio.sleep(1.0)


async def garbage(one: Attacker) -> None:
    """Bytes that are no HTTP."""
    _, writer = await one.open()
    writer.write(random.randbytes(2000))
    await asyncio.sleep(1.0)
    writer.transport.abort()


BOMB = gzip.compress(b" " * 100_000_000)
ATTACKS: dict[Callable[[Attacker], Awaitable[None]], int] = {
    endless_header: 4,
    many_headers: 4,
    slow_head: 300,
    body_without_key: 1100,
    slow_body: 100,
    leave_early: 20,
    read_nothing: 10,
    bomb: 2,
    send_ahead: 2,
    deep_json: 2,
    garbage: 10,
}
"""Each attack, and how many do it at the same time."""


async def attack(host: str, port: int, key: str) -> None:
    """Do all attacks until the process is ended; each attacker rests a second before it begins again."""

    async def again(one: Attacker, what: Callable[[Attacker], Awaitable[None]]) -> None:
        await asyncio.sleep(5 * random.random())
        while True:
            with suppress(OSError):
                await what(one)
            await asyncio.sleep(1.0)

    addresses = [f"127.0.0.{place}" for place in range(2, 10)]
    jobs = [what for what, count in ATTACKS.items() for _ in range(count)]
    attackers = (Attacker(host, port, key, addresses[place % len(addresses)]) for place in range(len(jobs)))
    await asyncio.gather(*(again(one, what) for one, what in zip(attackers, jobs, strict=True)))


if __name__ == "__main__":
    main()
