"""The incumbent behind a URL: forward bytes as they come, ask again only where nothing was begun.

Built on aiohttp's client: in a trial it forwarded several times as many small requests a second as httpx. Neither the
client's key nor any other of its headers is sent on. Next: `chat.py`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp

from foretaste.deploy.settings import IncumbentConfig
from foretaste.errors import ConfigError

FORWARDED = ("content-type", "content-encoding", "retry-after")
"""Headers of the incumbent's answer that the client gets."""


class UpstreamError(Exception):
    """The incumbent gave no answer; `status` and `code` are what the client is told."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@contextmanager
def _breaking_off() -> Iterator[None]:
    """Say what the client is told when an answer that had begun does not end."""
    try:
        yield
    except TimeoutError as error:
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
    response: aiohttp.ClientResponse

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
        if self.response.content.at_eof():
            self.response.release()
        else:
            self.response.close()


class Upstream:
    """A pool of connections to an OpenAI-compatible endpoint."""

    def __init__(self, config: IncumbentConfig) -> None:
        """Raises: ConfigError if the endpoint's key should be in an environment variable that is not set."""
        self.config = config
        self._base = config.url.rstrip("/")
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if config.api_key_env:
            key = os.environ.get(config.api_key_env)
            if not key:
                raise ConfigError(f"incumbent.api_key_env: the environment variable {config.api_key_env} is not set")
            self._headers["authorization"] = f"Bearer {key}"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Upstream:
        timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=self.config.connect_timeout_seconds,
            sock_read=self.config.read_timeout_seconds,
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.config.max_connections),
            timeout=timeout,
            auto_decompress=False,
            headers=self._headers,
            skip_auto_headers=("user-agent", "accept"),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, path: str, body: bytes) -> Reply:
        """Send one request and return the head of its answer.

        It is sent again where no answer had begun: the connection was refused, or a pooled one had been closed.
        Raises: UpstreamError with the status and the reason for the client.
        """
        return await self._send("POST", path, data=body)

    async def get(self, path: str) -> Reply:
        """As `post`, for a request without a body."""
        return await self._send("GET", path)

    async def _send(self, method: str, path: str, **options: Any) -> Reply:
        assert self._session is not None, "use `async with`"
        for attempt in range(self.config.attempts):
            last = attempt + 1 == self.config.attempts
            try:
                response = await self._session.request(method, self._base + path, allow_redirects=False, **options)
                return _reply(response)
            except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError, ConnectionError) as error:
                if last:
                    raise UpstreamError(502, "incumbent_unreachable", "The incumbent cannot be reached.") from error
            except aiohttp.ConnectionTimeoutError as error:
                if last:
                    raise UpstreamError(504, "incumbent_unreachable", "The incumbent cannot be reached.") from error
            except TimeoutError as error:  # it may have begun to work on the request: not asked again
                raise UpstreamError(504, "incumbent_silent", "The incumbent did not answer in time.") from error
            except (aiohttp.ClientError, ValueError) as error:
                raise UpstreamError(502, "incumbent_garbled", "The incumbent's answer is no HTTP.") from error
        raise AssertionError("unreachable")


def _reply(response: aiohttp.ClientResponse) -> Reply:
    found = response.headers
    content_type = found.get("content-type", "application/json")
    kept = [(name.encode(), found[name].encode("latin-1", "replace")) for name in FORWARDED if name in found]
    return Reply(response.status, kept, content_type, found.get("content-encoding", ""), response)
