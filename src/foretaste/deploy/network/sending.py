"""The incumbent's answer on its way to the client: piece by piece, never faster than the client takes it.

Of a long answer only a bounded part is held here, whatever its length and however slow the client is.
"""

from __future__ import annotations

from typing import NamedTuple

from foretaste.deploy import http
from foretaste.deploy.http import Headers, Refusal, Send
from foretaste.deploy.upstream import Reply, UpstreamError

WHOLE_BYTES = 256 << 10
"""An answer whose head says that it is no longer is read whole and sent at once."""
KEPT_BYTES = 4 << 20
"""Of an answer that is passed on, at most so much is kept to be written down; of a longer one nothing is."""
NO_BODY = (204, 304)


class Sent(NamedTuple):
    """What the client was sent."""

    body: bytes | None
    """None if it was longer than `KEPT_BYTES`, or not kept."""
    error: UpstreamError | None
    """Why it broke off, if it did."""


class CutOff(Exception):
    """An answer broke off, and its form has no place for an error: the connection has to be closed."""


async def pass_on(reply: Reply, headers: Headers, send: Send, *, keep: bool, head_only: bool = False) -> Sent:
    """Send an answer on; the client of an event stream that breaks off gets an error event.

    Raises: ClientGone, UpstreamError before anything was sent, CutOff after that.
    """
    if head_only or reply.status in NO_BODY:
        announced = [_length(reply.length)] if head_only and reply.length is not None else []
        await send({"type": "http.response.start", "status": reply.status, "headers": [*headers, *announced]})
        await http.send_piece(send, b"", more=False)
        return Sent(b"", None)
    if reply.length is not None and reply.length <= WHOLE_BYTES:
        body = await reply.body()
        await http.respond(send, reply.status, headers, body)
        return Sent(body, None)
    length = [] if reply.length is None else [_length(reply.length)]
    await send({"type": "http.response.start", "status": reply.status, "headers": [*headers, *length]})
    pieces: list[bytes] = []
    kept = 0
    try:
        async for piece in reply.chunks():
            await http.send_piece(send, piece, more=True)
            kept += len(piece)
            if keep and kept <= KEPT_BYTES:
                pieces.append(piece)
            else:
                pieces.clear()
    except UpstreamError as error:
        if "event-stream" not in reply.content_type or reply.content_encoding not in ("", "identity") or length:
            raise CutOff(str(error)) from error
        refusal = Refusal(error.status, error.code, str(error))
        await http.send_piece(send, b"data: " + refusal.body() + b"\n\n", more=True)
        await http.send_piece(send, b"", more=False)
        return Sent(None, error)
    await http.send_piece(send, b"", more=False)
    return Sent(b"".join(pieces) if keep and kept <= KEPT_BYTES else None, None)


def _length(length: int) -> tuple[bytes, bytes]:
    return b"content-length", str(length).encode()
