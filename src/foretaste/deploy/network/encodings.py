"""Bodies of requests that were compressed: read, with a bound on what they unfold to."""

from __future__ import annotations

import zlib

from foretaste.deploy import http
from foretaste.deploy.http import Receive, Refusal, Scope

_WINDOWS: dict[bytes, tuple[int, ...]] = {
    b"gzip": (16 + zlib.MAX_WBITS,),
    b"x-gzip": (16 + zlib.MAX_WBITS,),
    b"deflate": (zlib.MAX_WBITS, -zlib.MAX_WBITS),  # some clients leave the wrapping out
}


async def read_decoded(scope: Scope, receive: Receive, *, most: int, seconds: float) -> bytes:
    """Return a request's body, unfolded if it was compressed.

    Raises: what `http.read_body` and `decoded` raise.
    """
    body = await http.read_body(scope, receive, most=most, seconds=seconds)
    encoding = b",".join(value for name, value in scope["headers"] if name == b"content-encoding")
    return decoded(body, encoding, most) if encoding else body


def decoded(body: bytes, encoding: bytes, most: int) -> bytes:
    """Return a body as it was before it was compressed.

    Raises: Refusal (413 if it unfolds to more than `most` bytes, 415 for another encoding, 400 for a broken one).
    """
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return body
    windows = _WINDOWS.get(name)
    if windows is None:
        message = "This content encoding is not read here; accepted: gzip, deflate, identity."
        raise Refusal(415, "unknown_encoding", message, headers=[(b"accept-encoding", b"gzip, deflate, identity")])
    for window in windows:
        found = _unfolded(body, window, most)
        if found is not None:
            return found
    raise Refusal(400, "bad_encoding", f"The request's body is not whole {name.decode()} data.")


def _unfolded(body: bytes, window: int, most: int) -> bytes | None:
    unpacker = zlib.decompressobj(window)
    try:
        found = unpacker.decompress(body, most + 1)
    except zlib.error:
        return None
    if len(found) > most:
        raise Refusal(413, "too_large", f"The request unfolds to more than {most} bytes.")
    return found if unpacker.eof and not unpacker.unused_data else None
