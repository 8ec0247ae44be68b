"""What an endpoint's reply says: JSON or an event stream in, one answer out. Pure functions.

Endpoints differ in all but the name. Content is a text or a list of parts. Thoughts come in a field of their own, in
parts, or inside the text. An error of the provider behind the endpoint may come with status 200. A content filter
speaks as a finish reason or as an error. Next: `endpoint.py`.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from foretaste.envs.grading import without_thoughts

_TEXT_PARTS = frozenset({"text", "output_text"})
_FILTERED = re.compile(r"content[ _-]?filter|content management policy|responsible ?ai ?policy", re.IGNORECASE)
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")


class Reply(NamedTuple):
    """One answer."""

    text: str
    """Without thoughts: they are no part of the answer."""
    cut: bool
    """The token limit ended it."""
    filtered: bool
    """A content filter of the endpoint kept the answer, or its rest, back."""
    prompt_tokens: int | None
    completion_tokens: int | None


class ReplyError(Exception):
    """A reply that holds no answer. `status` is the one that the endpoint names inside, if it names one."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


def read_reply(text: str, content_type: str = "") -> Reply:
    """Return the answer that the body of a reply with status 200 holds.

    Raises: ReplyError for a body that is no chat completion, breaks off, or carries an error.
    """
    streamed = "event-stream" in content_type or text.lstrip().startswith(("data:", ":", "event:"))
    body = _joined(text) if streamed else _json(text)
    if isinstance(body.get("error"), dict | str) and not body.get("choices"):
        raise ReplyError(f"the endpoint answered with an error: {message_of(text)}", _code(body["error"]))
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise ReplyError(f"the reply is no chat completion: {text[:120]!r}")
    reason = choice.get("finish_reason")
    if reason == "error" or isinstance(choice.get("error"), dict | str):
        error = choice.get("error") or {}
        raise ReplyError(f"the endpoint answered with an error: {_said(error) or 'no message'}", _code(error))
    content = _content(message.get("content"), text) or _content(message.get("refusal"), text)
    usage = body.get("usage")
    return Reply(
        without_thoughts(content),
        cut=reason == "length",
        filtered=reason == "content_filter",
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
    )


def message_of(text: str) -> str:
    """Return an error's own words in one short line."""
    try:
        body = json.loads(text)
        text = _said(body.get("error")) or _said(body) or text
    except (ValueError, AttributeError, RecursionError):
        pass
    return " ".join(text.split())[:300] or "no message"


def is_filtered(status: int, text: str) -> bool:
    """Return whether a refused request was stopped by a content filter: the model's side declined, nothing failed."""
    return status in (400, 403, 422) and _FILTERED.search(text) is not None


def wait_of(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds that a server asks to wait, or None if it does not say.

    Read are Retry-After as seconds or as a date, retry-after-ms, and the usual forms of x-ratelimit-reset: a time since
    1970 in seconds or milliseconds, seconds from now, or a duration such as 1m30s.
    """
    now = time.time() if now is None else now
    if (given := _number(headers.get("retry-after-ms"))) is not None:
        return max(0.0, given / 1000)
    asked = headers.get("retry-after")
    if asked is not None:
        if (given := _number(asked)) is not None:
            return given if given >= 0 else None
        try:
            return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - now)
        except (ValueError, TypeError, OverflowError):
            return None
    # The reset of a limit that is not used up says nothing; where the header says what remains, only zero counts.
    waits = [
        wait
        for name in ("", "-requests", "-tokens")
        if headers.get(f"x-ratelimit-remaining{name}", "0").strip() in ("0", "")
        and (wait := _reset(headers.get(f"x-ratelimit-reset{name}"), now)) is not None
    ]
    return max(waits, default=None)


def _reset(text: str | None, now: float) -> float | None:
    number = _number(text)
    if number is not None:
        if number > 1e11:  # milliseconds since 1970
            return max(0.0, number / 1000 - now)
        return max(0.0, number - now) if number > 1e8 else max(0.0, number)
    found = _DURATION.fullmatch((text or "").strip())
    if not found or not any(found.groups()):
        return None
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if -1e18 < value < 1e18 else None


def _json(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ReplyError(f"the reply is no chat completion: {text[:120]!r}")
    return body


def _joined(text: str) -> dict[str, Any]:
    """Return an event stream as the chat completion that it tells piece by piece."""
    content, refusal, reason, usage, ended = "", "", None, None, False
    for event in _events(text):
        if event is None:
            ended = True
            continue
        if "error" in event and not event.get("choices"):
            return event
        usage = event.get("usage") or usage
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        if isinstance(choice.get("error"), dict | str):
            return {"choices": [{"message": {}, **choice}]}
        delta = choice.get("delta") or choice.get("message") or {}
        if isinstance(delta, dict):
            content += _content(delta.get("content"), text)
            refusal += _content(delta.get("refusal"), text)
        reason = choice.get("finish_reason") or reason
    if not ended and reason is None:
        raise ReplyError("the stream of the reply broke off")
    message = {"content": content, "refusal": refusal}
    return {"choices": [{"message": message, "finish_reason": reason}], "usage": usage}


def _events(text: str) -> Iterator[dict[str, Any] | None]:
    """Yield the events of a stream as JSON; None for the end."""
    for block in re.split(r"\r?\n\r?\n|\r\r", text):
        lines = [
            line.removeprefix("data:").removeprefix(" ") for line in block.splitlines() if line.startswith("data:")
        ]
        data = "\n".join(lines).strip()
        if data == "[DONE]":
            yield None
        elif data:
            yield _json(data)


def _content(content: Any, text: str) -> str:
    """Return a content's text: itself, or the text parts of a list; parts of other kinds are left out."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        texts = [part.get("text") for part in content if part.get("type", "text") in _TEXT_PARTS]
        return "".join(part for part in texts if isinstance(part, str))
    raise ReplyError(f"the reply is no chat completion: {text[:120]!r}")


def _said(error: Any) -> str:
    """Return the words of an error in any of its usual forms; "" if there are none."""
    if isinstance(error, dict):
        found = error.get("message") or error.get("detail")
        return found if isinstance(found, str) else ""
    return error if isinstance(error, str) else ""


def _code(error: Any) -> int | None:
    code = error.get("code", error.get("status")) if isinstance(error, dict) else None
    if isinstance(code, str) and code.isdigit():
        code = int(code)
    return code if isinstance(code, int) and 400 <= code < 600 else None


def _count(usage: Any, name: str) -> int | None:
    """Return a token count; providers that compute in floats are read too."""
    value = usage.get(name) if isinstance(usage, dict) else None
    whole = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15
    return int(value) if whole else None  # pyright: ignore[reportArgumentType]
