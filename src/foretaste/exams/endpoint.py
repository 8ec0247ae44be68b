"""A policy behind any OpenAI-compatible endpoint: `openai:MODEL@URL`, the key from OPENAI_API_KEY.

Endpoints fail in many ways. What may pass (429, 5xx, timeouts, dropped connections, garbage, empty
answers) is tried again with growing pauses; a request that keeps failing is one failed item, kept in
`failures`, and the sitting goes on. What cannot pass (no key, no such model, nobody there) stops the
sitting with its reason, so that it can be resumed. The key appears in no message.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from foretaste.errors import ConfigError, ModelError, unknown
from foretaste.records import Action, Conversation

KEY_VARIABLE = "OPENAI_API_KEY"
_MAX_REPLY_BYTES = 8_000_000
_LONGEST_PAUSE_SECONDS = 60.0
_RETRIED_STATUS = frozenset({408, 409, 425, 429})
"""Besides every 5xx."""


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """How an endpoint is asked."""

    model: str
    url: str
    """Base URL, such as http://localhost:8000/v1; "/chat/completions" is added."""
    temperature: float = 0.0
    max_new_tokens: int = 512
    concurrent: int = 8
    """Requests open at the same time."""
    attempts: int = 6
    """Tries of one request, the first included."""
    timeout_seconds: float = 120.0
    """For one whole reply, slow bytes included."""
    pause_seconds: float = 1.0
    """First pause before trying again; doubles, with jitter, unless the server names one."""
    failures_in_a_row: int = 8
    """Requests given up one after another before the endpoint counts as down."""


@dataclass(slots=True)
class Usage:
    """What was sent and received so far."""

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unreported: int = 0
    """Answers that came without token counts: the totals lack them."""

    def cost(self, prompt_price: float, completion_price: float) -> float:
        """Return the cost at prices per million tokens, in the currency of the prices."""
        return (self.prompt_tokens * prompt_price + self.completion_tokens * completion_price) / 1e6


class _TryAgain(Exception):
    """A failure that may pass; `wait_seconds` is the server's own wish."""

    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class _GivenUp(Exception):
    """One request that failed for good; the others may work."""

    def __init__(self, reason: str, *, answered: bool) -> None:
        super().__init__(reason)
        self.answered = answered
        """True if the endpoint understood and refused: it is not down."""


def parse_endpoint(spec: str) -> tuple[str, str]:
    """Return (model, base URL) of "openai:MODEL@URL"; the model's name may hold ":" and "/".

    Raises: ConfigError for another form, or a URL that holds a password.
    """
    model, separator, url = spec.removeprefix("openai:").rpartition("@http")
    url = f"http{url}".rstrip("/")
    if not spec.startswith("openai:") or not separator or not model or not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"{spec!r} is no endpoint; write openai:MODEL@URL, e.g. openai:qwen3@http://localhost:8000/v1"
        )
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"The URL of {spec!r} cannot be read: {error}") from None
    if not parsed.host:
        raise ConfigError(f"The URL of {spec!r} names no host; write openai:MODEL@http://HOST:PORT/v1")
    if parsed.userinfo:
        raise ConfigError(f"The endpoint URL must hold no name or password; put the key into {KEY_VARIABLE}")
    return model, url


class Endpoint:
    """A `Policy` (text only: no tokens, log-probabilities or values). Close it, or use it in `with`."""

    def __init__(self, config: EndpointConfig, *, key: str | None = None) -> None:
        """`key` is taken from OPENAI_API_KEY if not given; endpoints without keys need none."""
        self.config = config
        self.usage = Usage()
        self.failures: dict[str, str] = {}
        """Conversation key -> why its latest request was given up; such an action's text is ""."""
        self._key = os.environ.get(KEY_VARIABLE, "") if key is None else key
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=config.concurrent)
        self._client = httpx.Client(headers=headers, timeout=config.timeout_seconds, limits=limits)

    @classmethod
    def parse(cls, spec: str, **settings: Any) -> Endpoint:
        """Return the endpoint of "openai:MODEL@URL"; `settings` are fields of `EndpointConfig`."""
        model, url = parse_endpoint(spec)
        return cls(EndpointConfig(model, url, **settings))

    @property
    def name(self) -> str:
        """The spec it was made from."""
        return f"openai:{self.config.model}@{self.config.url}"

    def act(self, conversations: list[Conversation]) -> list[Action]:
        """Return one action per conversation, in order; a request given up acts "" and is in `failures`.

        Raises: ModelError if no request can work: a refused key, an unknown model, nobody there.
        """
        over = threading.Event()

        def answer(conversation: Conversation) -> Action:
            if over.is_set():  # asked after one that raised, whose error is what `act` raises
                return Action("")
            try:
                return self.answer(conversation)
            except BaseException:
                over.set()
                raise

        with ThreadPoolExecutor(max_workers=max(1, self.config.concurrent)) as pool:
            futures = [pool.submit(answer, conversation) for conversation in conversations]
            try:
                return [future.result() for future in futures]
            except BaseException:
                over.set()
                raise

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r})"

    # One request ------------------------------------------------------------------------------

    def answer(self, conversation: Conversation) -> Action:
        """Ask until an answer comes or the tries are used up; what `act` does for one conversation. Thread-safe."""
        try:
            action = self._with_retries(lambda: self._ask(conversation))
        except _GivenUp as error:
            with self._lock:
                self.failures[conversation.key] = str(error)
                self._failed_in_a_row = 0 if error.answered else self._failed_in_a_row + 1
                down = self._failed_in_a_row >= self.config.failures_in_a_row
            if down:
                raise ModelError(
                    f"{self.name}: {self.config.failures_in_a_row} requests in a row failed for good, "
                    f"the last: {error}. Try again when the endpoint is back."
                ) from None
            return Action("")
        with self._lock:
            self._failed_in_a_row = 0
            self.failures.pop(conversation.key, None)
        return action

    def _with_retries(self, ask: Callable[[], Action]) -> Action:
        pause = self.config.pause_seconds
        for attempt in range(1, self.config.attempts + 1):
            try:
                return ask()
            except _TryAgain as error:
                if attempt == self.config.attempts:
                    raise _GivenUp(f"{error} (after {attempt} attempts)", answered=False) from None
                wish = error.wait_seconds
                time.sleep(min(_LONGEST_PAUSE_SECONDS, pause * random.uniform(0.5, 1.0) if wish is None else wish))
                pause *= 2
                with self._lock:
                    self.usage.retries += 1
        raise AssertionError("attempts is at least 1")

    def _ask(self, conversation: Conversation) -> Action:
        body = {
            "model": self.config.model,
            "messages": [{"role": message.role, "content": message.content} for message in conversation.messages],
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_new_tokens,
        }
        if self.config.temperature > 0:
            body["seed"] = conversation.sample_seed & 0x7FFFFFFF
        with self._lock:
            self.usage.requests += 1
        status, headers, text = self._post(body)
        if status != 200:
            self._refused(status, headers, text)
        return self._action(text)

    def _post(self, body: dict[str, Any]) -> tuple[int, httpx.Headers, str]:
        """Send one request and read the reply, within the time and size allowed for the whole."""
        deadline = time.monotonic() + self.config.timeout_seconds
        chunks: list[bytes] = []
        size = 0
        try:
            with self._client.stream("POST", f"{self.config.url}/chat/completions", json=body) as response:
                for chunk in response.iter_bytes():
                    chunks.append(chunk)
                    size += len(chunk)
                    if time.monotonic() > deadline:  # httpx limits the pause between bytes, not the whole
                        raise _TryAgain(f"the reply took more than {self.config.timeout_seconds:g} s")
                    if size > _MAX_REPLY_BYTES:
                        raise _TryAgain(f"the reply is longer than {_MAX_REPLY_BYTES} bytes")
                return response.status_code, response.headers, b"".join(chunks).decode("utf-8", "replace")
        except httpx.TimeoutException:
            raise _TryAgain(f"no reply within {self.config.timeout_seconds:g} s") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _TryAgain(self._shown(f"{type(error).__name__}: {error}")) from None

    def _refused(self, status: int, headers: httpx.Headers, text: str) -> None:
        """Raise what a reply that is not 200 means."""
        said = self._shown(_message_of(text))
        if status in _RETRIED_STATUS or status >= 500:
            raise _TryAgain(f"HTTP {status}: {said}", _retry_after(headers))
        if status in (401, 403):
            given = "the key in" if self._key else "there is no key in"
            raise ModelError(f"{self.name} refused access (HTTP {status}: {said}); {given} {KEY_VARIABLE}")
        words = said.lower()
        if status == 404 or ("model" in words and ("exist" in words or "not found" in words)):
            raise ModelError(f"{self.name}: HTTP {status}: {said}. {self._models_there()}")
        if 300 <= status < 400:
            raise ModelError(f"{self.name} redirects (HTTP {status}); give the URL it redirects to")
        raise _GivenUp(f"HTTP {status}: {said}", answered=True)

    def _action(self, text: str) -> Action:
        """Read the answer; anything that is no chat completion may be better next time."""
        try:
            reply = json.loads(text)
            choice = reply["choices"][0]
            message = choice["message"]
            content = message.get("content") or message.get("refusal") or ""
            if not isinstance(content, str):
                raise TypeError("content is no text")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise _TryAgain(f"the reply is no chat completion: {self._shown(text[:120])!r}") from None
        usage = reply.get("usage")
        counts = [
            usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")
        ]
        with self._lock:
            if all(isinstance(count, int) for count in counts):
                self.usage.prompt_tokens += counts[0] or 0
                self.usage.completion_tokens += counts[1] or 0
            else:
                self.usage.unreported += 1
        return Action(content, cut=choice.get("finish_reason") == "length")

    def _models_there(self) -> str:
        """Return "Unknown model ..." with what the endpoint offers, or a hint if it does not tell."""
        try:
            reply = self._client.get(f"{self.config.url}/models", timeout=10.0).json()
            names = [str(entry["id"]) for entry in reply["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            names = []
        if not names or self.config.model in names:
            return f"Is {self.config.url} the base URL, usually ending in /v1?"
        return unknown("model", self.config.model, names)

    def _shown(self, text: str) -> str:
        """Return text for a message, without the key."""
        return text.replace(self._key, "[key]") if self._key else text


def _message_of(text: str) -> str:
    """Return the error's own words, in one short line."""
    try:
        error = json.loads(text)["error"]
        text = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return " ".join(text.split())[:300] or "no message"


def _retry_after(headers: httpx.Headers) -> float | None:
    """Return the seconds that the server asks to wait, if it says so as a number."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
