"""The incumbent behind a URL: forward bytes as they come, ask again only where nothing was begun.

Built on aiohttp's client: in a trial it forwarded several times as many small requests a second as httpx. The client's
key is never sent on; which of its headers are: `network/headers.py`. Whoever cancels a request here closes its
connection, so that the incumbent can stop working on it. Next: `chat.py`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

import aiohttp
from yarl import URL

from foretaste.deploy.network.headers import to_client
from foretaste.deploy.network.paths import Target
from foretaste.deploy.settings import IncumbentConfig
from foretaste.errors import ConfigError

PROBE_SECONDS = 5.0
"""How long it is taken for true that the incumbent can be reached, or not."""


class UpstreamError(Exception):
    """The incumbent gave no answer; `status`, `code` and `headers` are what the client is told."""

    def __init__(self, status: int, code: str, message: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or []


@contextmanager
def _breaking_off() -> Iterator[None]:
    """Say what the client is told when an answer that had begun does not end."""
    try:
        yield
    except TimeoutError as error:
        if not isinstance(error, aiohttp.ServerTimeoutError):
            raise _too_long() from error
        raise UpstreamError(504, "incumbent_silent", "The incumbent fell silent amid its answer.") from error
    except aiohttp.ClientError as error:
        raise UpstreamError(502, "incumbent_broke_off", "The incumbent broke off amid its answer.") from error


@dataclass(slots=True)
class Reply:
    """The head of the incumbent's answer; its body is read by `chunks`."""

    status: int
    headers: list[tuple[bytes, bytes]]
    content_type: str
    content_encoding: str
    length: int | None
    """Bytes of the body, where the head says so."""
    response: aiohttp.ClientResponse
    free: Callable[[], None]
    """Gives the place among `max_connections` back; called once."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises: UpstreamError if it breaks off or falls silent.
        """
        with _breaking_off():
            async for chunk in self.response.content.iter_any():
                yield chunk

    async def body(self) -> bytes:
        """Return the whole body; raises as `chunks` does."""
        with _breaking_off():
            return await self.response.read()

    def release(self) -> None:
        """Let the connection go: back to the pool if the body was read, closed if not."""
        self.free()
        if self.response.content.at_eof():
            self.response.release()
        else:
            self.response.close()


class Upstream:
    """A pool of connections to an OpenAI-compatible endpoint."""

    def __init__(self, config: IncumbentConfig) -> None:
        """Raises: ConfigError if the endpoint's key should be in an environment variable that is not set."""
        self.config = config
        self.target = Target.of(config.url)
        self.hop = f"1.1 foretaste-{secrets.token_hex(6)}"
        """This server's entry in the header Via."""
        self._urls: dict[str, URL] = {}
        self._headers: dict[str, str] = {}
        if config.api_key_env:
            key = os.environ.get(config.api_key_env)
            if not key:
                raise ConfigError(f"incumbent.api_key_env: the environment variable {config.api_key_env} is not set")
            bearer = config.api_key_header.lower() == "authorization"
            self._headers[config.api_key_header.lower()] = f"Bearer {key}" if bearer else key
        self._places = asyncio.Semaphore(config.max_connections)
        self._reachable = (0.0, True)  # until when it is known, and whether it can be reached
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Upstream:
        config = self.config
        timeout = aiohttp.ClientTimeout(
            total=config.answer_timeout_seconds,
            connect=2 * config.connect_timeout_seconds,  # with the look-up of the host's name
            sock_connect=config.connect_timeout_seconds,
            sock_read=config.read_timeout_seconds,
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # `_places` limits them, with an error of its own
            timeout=timeout,
            auto_decompress=False,
            headers=self._headers,
            skip_auto_headers=("user-agent", "accept", "content-type"),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> Reply:
        """Send one JSON request to a path below incumbent.url, and return the head of its answer.

        It is sent again where no answer had begun: the connection was refused, or a pooled one had been closed.
        Raises: UpstreamError with the status and the reason for the client.
        """
        own = {"content-type": "application/json", "accept-encoding": "identity"}
        return await self._send("POST", self._url(path), body, {**headers, **own} if headers else own)

    async def get(self, path: str) -> Reply:
        """As `post`, for a request without a body."""
        return await self._send("GET", self._url(path), None, {"accept-encoding": "identity"})

    async def send(self, method: str, path: str, query: str, body: bytes, headers: dict[str, str]) -> Reply:
        """Send a client's own request on, to the URL that its path stands for; as `post` otherwise."""
        url = URL(self.target.of_request(path, query), encoded=True)
        return await self._send(method, url, body or None, {"accept-encoding": "identity", **headers})

    async def reachable(self) -> bool:
        """Return whether a connection can be opened, as of the last few seconds."""
        until, found = self._reachable
        if time.monotonic() >= until:
            url = URL(self.target.origin)
            try:
                async with asyncio.timeout(self.config.connect_timeout_seconds):
                    _, writer = await asyncio.open_connection(url.host, url.port)
                writer.close()
                found = True
            except (OSError, TimeoutError):
                found = False
            self._reachable = (time.monotonic() + PROBE_SECONDS, found)
        return found

    def _url(self, path: str) -> URL:
        found = self._urls.get(path)
        if found is None:
            found = self._urls[path] = URL(self.target.under_base(path), encoded=True)
        return found

    async def _place(self) -> Callable[[], None]:
        """Wait for a place among the connections, and return what gives it back."""
        try:
            if self._places.locked():
                async with asyncio.timeout(self.config.wait_seconds):
                    await self._places.acquire()
            else:
                await self._places.acquire()
        except TimeoutError as error:
            message = "All connections to the incumbent are in use; ask again later."
            raise UpstreamError(503, "incumbent_busy", message, [(b"retry-after", b"2")]) from error
        return _once(self._places.release)

    async def _send(self, method: str, url: URL, body: bytes | None, headers: dict[str, str]) -> Reply:
        free = await self._place()
        try:
            return _reply(await self._ask(method, url, body, headers), free)
        except BaseException:
            free()
            raise

    async def _ask(self, method: str, url: URL, body: bytes | None, headers: dict[str, str]) -> aiohttp.ClientResponse:
        session = self._session
        assert session is not None, "use `async with`"
        for attempt in range(self.config.attempts):
            last = attempt + 1 == self.config.attempts
            try:
                return await session.request(method, url, allow_redirects=False, data=body, headers=headers)
            except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError, ConnectionError) as error:
                if last:
                    raise UpstreamError(502, "incumbent_unreachable", "The incumbent cannot be reached.") from error
            except aiohttp.ConnectionTimeoutError as error:
                if last:
                    raise UpstreamError(504, "incumbent_unreachable", "The incumbent cannot be reached.") from error
            except aiohttp.ServerTimeoutError as error:  # it may have begun to work on the request: not asked again
                raise UpstreamError(504, "incumbent_silent", "The incumbent did not answer in time.") from error
            except TimeoutError as error:
                raise _too_long() from error
            except (aiohttp.ClientError, ValueError) as error:
                raise UpstreamError(502, "incumbent_garbled", "The incumbent's answer is no HTTP.") from error
        raise AssertionError("unreachable")


def _too_long() -> UpstreamError:
    return UpstreamError(504, "incumbent_too_long", "The incumbent's answer was not whole in time.")


def _once(function: Callable[[], None]) -> Callable[[], None]:
    """Return a function that does it the first time alone."""
    left = [function]

    def call() -> None:
        if left:
            left.pop()()

    return call


def _reply(response: aiohttp.ClientResponse, free: Callable[[], None]) -> Reply:
    found = response.headers
    content_type = found.get("content-type", "application/json")
    encoding, length = found.get("content-encoding", ""), response.content_length
    return Reply(response.status, to_client(found.items()), content_type, encoding, length, response, free)
