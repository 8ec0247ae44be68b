"""Read an answer's text, id and tokens out of what an OpenAI-compatible endpoint sent: JSON or an event stream.

Runs in the writer's thread, never while a user waits. Whatever an endpoint may send, nothing here raises.
"""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any, NamedTuple


class Read(NamedTuple):
    """What could be read of a body; None where it could not."""

    id: str | None
    text: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


NOTHING = Read(None, None, None, None)


def read(body: bytes, content_type: str, content_encoding: str = "") -> Read:
    """Return what the body says, or `NOTHING`."""
    try:
        plain = _plain(body, content_encoding)
        if "event-stream" in content_type:
            return _stream(plain)
        return _completion(json.loads(plain))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OSError, EOFError, zlib.error):
        return NOTHING


def messages_text(body: str | bytes | None) -> list[dict[str, Any]]:
    """Return the messages of a stored request, or none."""
    try:
        found = json.loads(body or b"{}").get("messages", [])
    except (ValueError, AttributeError, RecursionError):
        return []
    return [message for message in found if isinstance(message, dict)] if isinstance(found, list) else []


def _plain(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "deflate":
        return zlib.decompress(body)
    if encoding not in ("", "identity"):
        raise ValueError(f"content encoding {encoding!r}")
    return body


def _completion(found: dict[str, Any]) -> Read:
    message = found["choices"][0].get("message") or {}
    return Read(_name(found.get("id")), _text(message.get("content")), *_usage(found.get("usage")))


def _stream(body: bytes) -> Read:
    identity, pieces, usage = None, [], (None, None)
    for line in body.splitlines():
        data = line.removeprefix(b"data:").strip()
        if data == line or not data or data == b"[DONE]":
            continue
        chunk = json.loads(data)
        identity = identity or _name(chunk.get("id"))
        if chunk.get("usage"):
            usage = _usage(chunk["usage"])
        for choice in chunk.get("choices", [])[:1]:
            pieces.append(_text((choice.get("delta") or {}).get("content")) or "")
    return Read(identity, "".join(pieces) if identity or pieces else None, *usage)


def _usage(found: Any) -> tuple[int | None, int | None]:
    numbers = [found.get(name) if isinstance(found, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (number if isinstance(number, int) and 0 <= number < 1 << 31 else None for number in numbers)
    return prompt, completion


def _name(found: Any) -> str | None:
    return found if isinstance(found, str) and 0 < len(found) <= 128 else None


def _text(found: Any) -> str | None:
    return found if isinstance(found, str) else None
