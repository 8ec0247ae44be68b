"""Which settings of a chat request the learner honours or may ignore; any other makes the request the incumbent's.

An allow-list: a setting that was invented after this file was written is not known here, so the learner does not answer
as if it were not there. Each setting has the values with which the learner may answer. The same table for people is in
docs/deploy.md. Next: `routing.py`, which reads the messages; `metrics.py`, which counts the names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Accepts = Callable[[Any], bool]

OTHER = "other"
MOST_NAMES = 64
"""Unknown names that get a count of their own; further ones are counted together as `other`."""
_COUNTED = re.compile(r"[a-z][a-z0-9_.]{0,47}")


def _is_number(low: float, high: float) -> Accepts:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _one_of(*values: Any) -> Accepts:
    return lambda value: any(value == one and type(value) is type(one) for one in values)


def _stream_options(value: Any) -> bool:
    names = ("include_usage", "include_obfuscation")
    return isinstance(value, dict) and all(name in names and isinstance(one, bool) for name, one in value.items())


HONOURED: dict[str, Accepts] = {
    "model": _is_text,
    "messages": lambda value: isinstance(value, list),
    "stream": lambda value: isinstance(value, bool),
    "stream_options": _stream_options,
    "n": _one_of(1),
    "max_tokens": lambda value: _is_integer(value) and value >= 1,
    "max_completion_tokens": lambda value: _is_integer(value) and value >= 1,
}
"""Settings that the learner does as they say; `model` names what it stands in for (`stand_in.py`)."""

IGNORED: dict[str, Accepts] = {
    "temperature": _is_number(0, 2),
    "top_p": _is_number(0, 1),
    "seed": _is_integer,
    "presence_penalty": _is_number(-2, 2),
    "frequency_penalty": _is_number(-2, 2),
    "user": _is_text,
    "safety_identifier": _is_text,
    "prompt_cache_key": _is_text,
    "prompt_cache_retention": _is_text,
    "metadata": lambda value: isinstance(value, dict),
}
"""Settings that the learner may leave aside: most clients send some, and its answers are sampled as
`learner.temperature` says, so that it can learn from them."""

UNSET: dict[str, Accepts] = {
    "tools": _one_of([]),
    "functions": _one_of([]),
    "tool_choice": _one_of("none"),
    "function_call": _one_of("none"),
    "parallel_tool_calls": _one_of(),
    "response_format": _one_of({"type": "text"}),
    "logprobs": _one_of(False),
    "top_logprobs": _one_of(),
    "logit_bias": _one_of({}),
    "stop": _one_of([]),
    "modalities": _one_of(["text"]),
    "audio": _one_of(),
    "prediction": _one_of(),
    "store": _one_of(False),
    "service_tier": _one_of("auto", "default"),
    "reasoning_effort": _one_of(),
    "verbosity": _one_of(),
}
"""Settings that the learner cannot honour; it answers where they have the value that asks for nothing."""

KNOWN = {**HONOURED, **IGNORED, **UNSET}
"""Every setting that a request may have for the learner to answer; null stands for one that is not set."""

MESSAGE: dict[str, Accepts] = {
    "role": _one_of("system", "developer", "user", "assistant"),
    "content": lambda value: isinstance(value, str | list),
    "refusal": _one_of(),
    "annotations": _one_of([]),
    "audio": _one_of(),
    "function_call": _one_of(),
    "tool_calls": _one_of([]),
}
"""As `KNOWN`, of a message. A name, a prefix to continue or reasoning would change what is asked."""


def unsupported_setting(request: dict[str, Any]) -> str:
    """Return the first setting of a request that the learner cannot answer with, or "".

    Those of a message are written as `messages.name`, those of a part of its content as `messages.content.name`.
    """
    for name, value in request.items():
        accepts = KNOWN.get(name)
        if accepts is None or not (value is None or accepts(value)):
            return name
    if request.get("stream_options") is not None and request.get("stream") is not True:
        return "stream_options"
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        return "messages"
    for message in messages:
        found = _of_message(message) if isinstance(message, dict) else "role"
        if found:
            return f"messages.{found}"
    return "" if messages[-1]["role"] == "user" else "messages.role"


def _of_message(message: dict[str, Any]) -> str:
    for name, value in message.items():
        accepts = MESSAGE.get(name)
        if accepts is None or not (value is None or accepts(value)):
            return name
    if message.get("role") is None:
        return "role"
    content = message.get("content")
    if isinstance(content, str):
        return ""
    return _of_parts(content) if isinstance(content, list) else "content"


def _of_parts(parts: list[Any]) -> str:
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            return "content"
        other = next((name for name in part if name not in ("type", "text")), None)
        if other is not None:
            return f"content.{other}"
    return ""


class Names:
    """Turns names that clients sent into few labels: the first `MOST_NAMES` that look like a setting's name."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = most
        self._known = {*KNOWN, *(f"messages.{name}" for name in MESSAGE)}
        self._seen: set[str] = set()

    def label(self, name: str) -> str:
        """Return the label of a setting's name."""
        if name in self._known or name in self._seen:
            return name
        if len(self._seen) >= self._most or not _COUNTED.fullmatch(name):
            return OTHER
        self._seen.add(name)
        return name
