"""What an endpoint does not take, learned from its refusals, so that the request is sent as it takes it.

Models that reason want `max_completion_tokens` and no temperature, some have no system role, some answer in streams
alone. Each change is made once, for all requests, and is told: readers of the result must know how the model was asked.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from foretaste.errors import ConfigError
from foretaste.records import Message

_UNSUPPORTED = re.compile(
    r"unsupported|not supported|n[o']t support|unknown|unrecogni[sz]ed|unexpected|not (?:permitted|allowed|available)"
    r"|extra (?:inputs|fields)|deprecated|cannot be|must be|only .*default|invalid",
    re.IGNORECASE,
)
_STREAM_ONLY = re.compile(
    r"stream\w*[^.]*\b(?:must|only|required)|\b(?:only|must|requires?)\b[^.]*stream", re.IGNORECASE
)
_SYSTEM_ROLE = re.compile(
    r"system (?:role|message|prompt)|(?:role|message)s?\b[^.]*\bsystem|developer instruction", re.I
)
_OPTIONAL = ("temperature", "seed", "stream_options")
_LIMITS = ("max_completion_tokens", "max_tokens")


class Adapter:
    """Makes the body of a request as an endpoint takes it. Thread-safe."""

    def __init__(
        self, *, extra_body: Mapping[str, Any] | None = None, omit: Sequence[str] = (), system_in_user: bool = False
    ) -> None:
        """`extra_body` is added to every request, `omit` names parameters that are left out.

        Raises: ConfigError if one of the two names what a request cannot be without.
        """
        needed = {"model", "messages"} & {*(extra_body or {}), *omit}
        if needed:
            raise ConfigError(
                f"{sorted(needed)[0]!r} is what the exam itself asks; accepted in extra_body and omit: other parameters"
            )
        self.told: list[str] = []
        """What was changed because the endpoint refused it, in words, in order."""
        self._extra = dict(extra_body or {})
        self._omitted = set(omit)
        self._system_in_user = system_in_user
        self._limit = "max_tokens"
        self._stream = False
        self._lock = threading.Lock()

    def body(self, model: str, messages: Sequence[Message], *, limit: int, **optional: Any) -> dict[str, Any]:
        """Return the body of a request; `optional` are temperature and seed, `limit` the most tokens to sample."""
        shown = folded(messages) if self._system_in_user else messages
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": message.role, "content": message.content} for message in shown],
            self._limit: limit,
            **optional,
        }
        if self._stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return {name: value for name, value in body.items() if name not in self._omitted} | self._extra

    def adapt(self, sent: Mapping[str, Any], status: int, said: str) -> bool:
        """Change what the words of a refusal ask to change; return whether the request is worth sending again.

        A refusal of a request that was made before another one changed the same thing is worth it too.
        """
        if status not in (400, 415, 422) or not said:
            return False
        with self._lock:
            return self._change(sent, said)

    def _change(self, sent: Mapping[str, Any], said: str) -> bool:
        words = said.lower()
        if "max_tokens" in sent and "max_completion_tokens" in words:
            return self._set("_limit", "max_completion_tokens", "the token limit is sent as max_completion_tokens")
        if "max_completion_tokens" in sent and "max_completion_tokens" in words and _UNSUPPORTED.search(words):
            return self._omit("max_completion_tokens")
        if not sent.get("stream") and _STREAM_ONLY.search(said):
            return self._set("_stream", True, "answers are read as streams")
        for name in _OPTIONAL:
            if name in sent and name not in self._extra and name in words and _UNSUPPORTED.search(words):
                return self._omit(name)
        if any(one["role"] == "system" for one in sent["messages"]) and _SYSTEM_ROLE.search(said):
            return self._set("_system_in_user", True, "instructions are sent in the user's message, not as a system's")
        return False

    def _set(self, name: str, value: Any, told: str) -> bool:
        if getattr(self, name) != value:
            setattr(self, name, value)
            self.told.append(told)
        return True

    def _omit(self, name: str) -> bool:
        if name not in self._omitted:
            self._omitted.add(name)
            self.told.append(f"{name} is left out")
        return True


def folded(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with system texts put before the next user message."""
    waiting: list[str] = []
    shown: list[Message] = []
    for message in messages:
        if message.role == "system":
            waiting.append(message.content)
            continue
        if message.role == "user" and waiting:
            message, waiting = Message("user", "\n\n".join([*waiting, message.content])), []
        shown.append(message)
    return [*shown, Message("user", "\n\n".join(waiting))] if waiting else shown
