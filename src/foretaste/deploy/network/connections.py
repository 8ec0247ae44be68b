"""Connections: uvicorn's protocol with limits on what a client may send, hold open, and leave unread.

uvicorn parses HTTP, runs the application and stops reading where nobody takes a body. Added here: limits on the head of
a request and on the time to its end, on connections of one address, on requests sent ahead; a client that leaves ends
the work on its request; one that reads nothing is let go. Next: `server.py`; the limits are in `settings.py`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from foretaste.deploy.http import SEND_SECONDS, Headers, Refusal, Scope

if TYPE_CHECKING:
    from foretaste.deploy.settings import ServerConfig

EXTENSION = "foretaste.connection"
"""Under this name among a scope's extensions is the connection of a request."""
SENT_AHEAD = 4
"""Requests that a client may send before it has the answer to an earlier one."""
LINGER_SECONDS = 2.0
LINGER_BYTES = 1 << 20
"""What a client still sends after its answer is read and thrown away, so long and so much: were the connection closed
at once, the client might lose the answer (RFC 9112, section 9.6)."""
SPARE_BYTES = 64 << 10
WRITE_BUFFER = 64 << 10
"""Bytes that wait to be taken by a client before its answer waits too."""


class Connections:
    """All connections of a server: how many, from where, and which of them have shown no valid key."""

    def __init__(self, settings: ServerConfig) -> None:
        self.settings = settings
        """May be replaced while the server runs."""
        self.refused = 0
        """Connections that found no place."""
        self.evicted = 0
        """Connections without a valid key that made place for a newer one."""
        self._by_address: dict[str, int] = {}
        self._unproven: dict[Connection, None] = {}  # oldest first
        self._open: set[Connection] = set()

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    def enter(self, connection: Connection) -> bool:
        """Take a new connection in; False if there is no place for it."""
        most = self.settings.max_connections_per_address
        if most and self._by_address.get(connection.address, 0) >= most:
            self.refused += 1
            return False
        if len(self._open) >= self.settings.max_connections:
            oldest = next(iter(self._unproven), None)
            if oldest is None:
                self.refused += 1
                return False
            self.evicted += 1
            self.leave(oldest)
            oldest.transport.abort()
        self._open.add(connection)
        self._unproven[connection] = None
        self._by_address[connection.address] = self._by_address.get(connection.address, 0) + 1
        return True

    def proven(self, connection: Connection) -> None:
        """A request of this connection had a valid key: it is not closed to make place."""
        self._unproven.pop(connection, None)

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        self._unproven.pop(connection, None)
        left = self._by_address.get(connection.address, 0) - 1
        if left > 0:
            self._by_address[connection.address] = left
        else:
            self._by_address.pop(connection.address, None)


class _Closing:
    """The transport as a request's cycle sees it: closing it waits for a client that still sends."""

    def __init__(self, connection: Connection) -> None:
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing
        self.close = connection.finish


class Connection(HttpToolsProtocol):
    """One connection; made by uvicorn through `protocol_of`."""

    registry: Connections

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first head, or refuse the connection."""
        super().connection_made(transport)
        self.address = _network(self.client[0]) if self.client else "-"
        self.lost = False
        """True once the client has gone."""
        self._working: asyncio.Task[Any] | None = None
        self._lingering = self._leaving = False
        self._discarded = 0
        self._in_head, self._head_bytes, self._fields = True, 0, 0
        self._url_bytes, self._refusal = 0, None
        self._body_bytes = 0
        self._closing = _Closing(self)
        self._head_timer: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        if not self.registry.enter(self):
            busy = Refusal(503, "too_many_connections", "Too many connections; try again later.")
            busy.headers.append((b"retry-after", b"1"))
            self._refuse(busy)
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back, and end the work on a request whose client has gone."""
        self.lost = True
        self.registry.leave(self)
        self._stop_waiting()
        if self._working is not None:
            self._working.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """The client sends no more: uvicorn takes it as gone, and so its request is."""

    # What comes in --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the limits."""
        if self._lingering:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.transport.abort()
            return
        if self._in_head:
            self._head_bytes += len(data)
        else:
            self._body_bytes += len(data)
            if self._body_bytes > 2 * self.registry.settings.max_body_bytes + SPARE_BYTES:
                self.transport.abort()  # frames or trailers without end; a body that is too large was told so before
                return
        super().data_received(data)
        if not self._in_head or self._leaving or not self._head_bytes:
            return
        if self._head_bytes > self.registry.settings.max_header_bytes:
            self._refuse(_too_large_head())
        else:
            self._wait_for_head()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._fields, self._url_bytes, self._refusal = True, 0, 0, None
        self._size = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count the request line's bytes, and keep them while they are few."""
        self._url_bytes += len(url)
        if self._url_bytes <= self.registry.settings.max_line_bytes:
            super().on_url(url)
        else:
            message = f"The request line is longer than {self.registry.settings.max_line_bytes} bytes."
            self._refusal = Refusal(414, "uri_too_long", message)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count the header's bytes, and keep them while they are few; what comes behind a body is no header."""
        if not self._in_head:
            return
        settings = self.registry.settings
        self._fields += 1
        self._size += len(name) + len(value)
        if self._fields > settings.max_headers or self._size > settings.max_header_bytes:
            self._refusal = self._refusal or _too_large_head()
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there: have the application answer."""
        self._in_head, self._body_bytes = False, 0
        if self._leaving:
            return
        if self._refusal is not None:
            self._refuse(self._refusal)
            return
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy and len(self.pipeline) >= SENT_AHEAD:
            self.transport.abort()
            return
        self._stop_waiting()
        super().on_headers_complete()
        self.cycle.transport = self._closing  # type: ignore[assignment]
        self.scope.setdefault("extensions", {})[EXTENSION] = self  # type: ignore[typeddict-item, index]
        if busy:  # go on reading, or the leaving of the client is not seen
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        """Hand a part of the body to the application, unless it has been refused."""
        if not self._leaving:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole; the next bytes begin another one."""
        self._in_head, self._head_bytes = True, 0
        if not self._leaving:
            super().on_message_complete()

    # What goes out --------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Wait for another request, unless the client is still sending this one or takes nothing."""
        if self.cycle.more_body and not self.pipeline:
            self.server_state.total_requests += 1
            self.finish()
            return
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_later()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one that does not take its answer gets a while longer."""
        super().timeout_keep_alive_handler()
        self._abort_later()

    def shutdown(self) -> None:
        """Close the connection once it has no request left."""
        super().shutdown()
        if self.transport.is_closing():
            self._abort_later()

    def finish(self) -> None:
        """Close the connection: at once, or where the client still sends its request, after a short while."""
        if self._leaving or self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.more_body:
            self._linger()
        else:
            self.transport.close()
            self._abort_later()

    def abort(self) -> None:
        """Close the connection at once; what the client has not taken yet is lost."""
        if not self.lost:
            self.transport.abort()

    def work(self, task: asyncio.Task[Any] | None) -> None:
        """Have a task cancelled when the client goes; None: it is done."""
        self._working = task

    def _refuse(self, refusal: Refusal) -> None:
        """Answer without the application, and close."""
        self.transport.write(_whole(refusal))
        self._linger()

    def _linger(self) -> None:
        self._lingering = self._leaving = True
        self._stop_waiting()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        with suppress(NotImplementedError, OSError, RuntimeError):
            if self.transport.can_write_eof():
                self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self._close_now)

    def _close_now(self) -> None:
        if not self.lost:
            self.transport.close()
            self._abort_later()

    def _abort_later(self) -> None:
        """Drop what a client does not take in time: a closed connection else lives until it is taken."""
        if not self.lost and self.transport.get_write_buffer_size() > 0:
            self.loop.call_later(SEND_SECONDS, self.abort)

    # The time to the end of a head ----------------------------------------------------------------

    def _wait_for_head(self) -> None:
        if self._head_timer is None and not self._leaving:
            self._head_timer = self.loop.call_later(self.registry.settings.header_timeout_seconds, self._no_head)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _no_head(self) -> None:
        self._head_timer = None
        answering = self.cycle is not None and not self.cycle.response_complete
        if not answering and not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server, which ends in order however often it is told to."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running answers end, then close the application: also after a second Ctrl-C, which waits for none."""
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()


def protocol_of(registry: Connections) -> type[Connection]:
    """Return the protocol of one server, for uvicorn."""
    return type("ConfiguredConnection", (Connection,), {"registry": registry})


def connection_of(scope: Scope) -> Connection | None:
    """Return the connection of a request; None where another server runs the application."""
    return (scope.get("extensions") or {}).get(EXTENSION)


def _network(address: str) -> str:
    """Return what counts as one address: of IPv6 the first half, since one client has all addresses below it."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address


def _too_large_head() -> Refusal:
    return Refusal(431, "headers_too_large", "The request's headers are too many or too large.")


def _whole(refusal: Refusal) -> bytes:
    """Return a refusal as the bytes of an HTTP answer after which the connection is closed."""
    body = refusal.body()
    headers: Headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    lines = [name + b": " + value for name, value in [*headers, (b"connection", b"close"), *refusal.headers]]
    return b"\r\n".join([f"HTTP/1.1 {refusal.status} ".encode(), *lines, b"", body])
