"""A policy behind any OpenAI-compatible endpoint: `openai:MODEL@URL`, the key from OPENAI_API_KEY.

Endpoints fail in many ways. What may pass (5xx, timeouts, dropped connections, garbage, empty answers) is tried again
with growing pauses; a request that keeps failing is one failed item, kept in `failures`, and the sitting goes on. A
rate limit slows everybody down and costs no try. What cannot pass (no key, no credit, no such model) stops
the sitting with its reason, so that it can be resumed. What an endpoint does not take (a parameter, a system role) is
sent otherwise, and told. The key appears in no message.

    asking/replies.py    what a reply says
    asking/pace.py       how fast requests may start
    asking/adapting.py   what an endpoint does not take
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus

import httpx

from foretaste.errors import ConfigError, ModelError, unknown
from foretaste.exams.asking import Adapter, Pace, ReplyError, is_filtered, message_of, read_reply, wait_of
from foretaste.records import Action, Conversation

KEY_VARIABLE = "OPENAI_API_KEY"
_MAX_REPLY_BYTES = 8_000_000
_LONGEST_PAUSE_SECONDS = 60.0
_RATE_LIMIT = 429
_LIMITED_PAUSES = 120.0
"""Times `pause_seconds` without an answer to anybody after which limits that name no wait count as a failure."""
_RETRIED_STATUS = frozenset({408, 409, 425})
"""Besides every 5xx."""
_ALIKE = 4
"""Requests refused in the same words, with none answered, after which no request can work."""
_OF_THE_ITEM = re.compile(
    r"context|too (?:long|large|many tokens)|token|length|flagged|moderation|safety", re.IGNORECASE
)
"""Words of a refusal that speak of one request: others may work."""


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
    patience_seconds: float = 1800.0
    """Without any answer, before a rate limit ends the sitting, which can be resumed."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """Added to the body of every request."""
    omit: tuple[str, ...] = ()
    """Parameters that are left out of it."""
    system_in_user: bool = False
    """Instructions go into the user's message: the model has no system role."""


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


class _Limited(_TryAgain):
    """A rate limit: everybody slows down, and it costs this request no try."""


class _GivenUp(Exception):
    """One request that failed for good; the others may work."""

    def __init__(self, reason: str, *, answered: bool) -> None:
        super().__init__(reason)
        self.answered = answered
        """True if the endpoint understood and refused: it is not down."""


class _Adapted(Exception):
    """The request is worth sending again at once: it is made otherwise now."""


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
        """`key` is taken from OPENAI_API_KEY if not given; endpoints without keys need none.

        Raises: ConfigError for a key that no header can hold, or surroundings (a proxy) that do not work.
        """
        self.config = config
        self.usage = Usage()
        self.failures: dict[str, str] = {}
        """Conversation key -> why its latest request was given up; such an action's text is ""."""
        self.unanswered: set[str] = set()
        """Keys of those among the failures that the endpoint may yet answer: it was not there, or not well."""
        self.refused: set[str] = set()
        """Conversation keys of which the endpoint itself declined to answer: refused rather than failed."""
        self.spent: Counter[tuple[str, str]] = Counter()
        """(conversation key, "prompt_tokens" or "completion_tokens") -> tokens of its answers."""
        self._key = _usable_key(os.environ.get(KEY_VARIABLE, "") if key is None else key)
        self._adapter = Adapter(extra_body=config.extra_body, omit=config.omit, system_in_user=config.system_in_user)
        self._pace = Pace(config.concurrent)
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self._answers = 0
        self._alike: Counter[str] = Counter()
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=config.concurrent)
        try:
            self._client = httpx.Client(headers=headers, timeout=config.timeout_seconds, limits=limits)
        except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
            raise ConfigError(
                f"No connection can be set up: {self._shown(str(error))} Proxies come from the environment "
                "(ALL_PROXY, HTTPS_PROXY, HTTP_PROXY), certificates from SSL_CERT_FILE. Unset what is wrong there; "
                "for a SOCKS proxy: pip install 'httpx[socks]'"
            ) from None

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

    @property
    def told(self) -> list[str]:
        """How requests are sent otherwise than asked for, because the endpoint refused them so."""
        return list(self._adapter.told)

    def answer(self, conversation: Conversation) -> Action:
        """Ask until an answer comes or the tries are used up; what `act` does for one conversation. Thread-safe.

        Raises: ModelError if no request can work.
        """
        try:
            action = self._with_retries(lambda: self._ask(conversation))
        except _GivenUp as error:
            with self._lock:
                self.failures[conversation.key] = str(error)
                self._note_unanswered(conversation.key, not error.answered)
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
            self._answers += 1
            self._alike.clear()
            self.failures.pop(conversation.key, None)
            self._note_unanswered(conversation.key, False)
        return action

    def _note_unanswered(self, key: str, unanswered: bool) -> None:
        (self.unanswered.add if unanswered else self.unanswered.discard)(key)

    def _with_retries(self, ask: Callable[[], Action]) -> Action:
        pause = self.config.pause_seconds
        attempt, limits, started = 1, 0, 0.0
        while True:
            try:
                with self._pace.turn() as started:
                    action = ask()
                self._pace.answered()
                return action
            except _Adapted:
                continue
            except _TryAgain as error:
                wish = error.wait_seconds
                # A server that limits and lets come back at once means this request.
                if isinstance(error, _Limited) and (wish is None or wish > 0):
                    limits += wish is None
                    silent = self._slow_down(error, started)
                    if limits >= self.config.attempts and silent > _LIMITED_PAUSES * self.config.pause_seconds:
                        raise _GivenUp(f"{error} (after {limits} attempts)", answered=False) from None
                    continue
                if attempt == self.config.attempts:
                    raise _GivenUp(f"{error} (after {attempt} attempts)", answered=False) from None
                time.sleep(min(_LONGEST_PAUSE_SECONDS, pause * random.uniform(0.5, 1.0) if wish is None else wish))
                attempt, pause = attempt + 1, pause * 2
                with self._lock:
                    self.usage.retries += 1

    def _slow_down(self, error: _Limited, started: float) -> float:
        """Let everybody wait for a rate limit; return the seconds since anybody was answered.

        Raises: ModelError once that takes too long.
        """
        silent = self._pace.limited(error.wait_seconds, self.config.pause_seconds, started)
        wish = error.wait_seconds or 0.0
        if max(silent, wish) > self.config.patience_seconds:
            asks = f"it asks to wait {wish:.0f} s" if wish > silent else f"no answer for {silent:.0f} s"
            raise ModelError(f"{self.name} limits its requests: {asks}; the last: {error}. Try again later.")
        with self._lock:
            self.usage.retries += 1
        return silent

    def _ask(self, conversation: Conversation) -> Action:
        optional: dict[str, Any] = {"temperature": self.config.temperature}
        if self.config.temperature > 0:
            optional["seed"] = conversation.sample_seed & 0x7FFFFFFF
        limit = self.config.max_new_tokens
        body = self._adapter.body(self.config.model, conversation.messages, limit=limit, **optional)
        with self._lock:
            self.usage.requests += 1
        status, headers, text = self._post(body)
        if status != 200:
            if self._adapter.adapt(body, status, message_of(text)):
                raise _Adapted
            if not is_filtered(status, text):
                self._refused(status, headers, text)
            return self._declined(conversation.key)
        return self._action(conversation.key, headers, text)

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
        said = self._shown(message_of(text))
        if status == _RATE_LIMIT:
            raise _Limited(f"HTTP {status}: {said}", wait_of(headers))
        if status in _RETRIED_STATUS or status >= 500:
            raise _TryAgain(f"HTTP {status}: {said}", wait_of(headers))
        of_the_item = _OF_THE_ITEM.search(said) is not None
        known = self._answers > 0  # so the address, the model and the key are right
        if status == 401 or (status == 403 and not known and not of_the_item):
            given = "the key in" if self._key else "there is no key in"
            raise ModelError(f"{self.name} refused access (HTTP {status}: {said}); {given} {KEY_VARIABLE}")
        words = said.lower()
        if not known and (status == 404 or ("model" in words and ("exist" in words or "not found" in words))):
            raise ModelError(f"{self.name}: HTTP {status}: {said}. {self._models_there()}")
        if 300 <= status < 400:
            raise ModelError(f"{self.name} redirects (HTTP {status}); give the URL it redirects to")
        if not of_the_item:
            self._count_alike(status, said)
        raise _GivenUp(f"HTTP {status}: {said}", answered=True)

    def _count_alike(self, status: int, said: str) -> None:
        """Stop where refusal follows refusal in the same words. Raises: ModelError."""
        with self._lock:
            self._alike[f"{status} {re.sub('[0-9]+', '0', said)}"] += 1
            times = max(self._alike.values())
        if times >= (_ALIKE if self._answers == 0 else self.config.failures_in_a_row):
            raise ModelError(
                f"{self.name} refused {times} requests alike (HTTP {status}: {said}), so no other would be answered. "
                "Mend what it speaks of. Parameters can be changed: --extra-body, --omit, --system-in-user"
            )

    def _declined(self, key: str) -> Action:
        """Return the action of a model whose side declined to answer."""
        with self._lock:
            self.refused.add(key)
        return Action("")

    def _action(self, key: str, headers: httpx.Headers, text: str) -> Action:
        """Read the answer; anything that is no chat completion may be better next time."""
        try:
            reply = read_reply(text, headers.get("content-type", ""))
        except ReplyError as error:
            if error.status is not None and error.status < 500 and error.status not in _RETRIED_STATUS:
                self._refused(error.status, headers, text)
            raise _TryAgain(self._shown(str(error))) from None
        counts = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        with self._lock:
            if None in counts.values():
                self.usage.unreported += 1
            else:
                self.usage.prompt_tokens += reply.prompt_tokens or 0
                self.usage.completion_tokens += reply.completion_tokens or 0
                self.spent.update({(key, name): count or 0 for name, count in counts.items()})
            if reply.filtered:
                self.refused.add(key)
        return Action(self._shown(reply.text), cut=reply.cut)

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
        """Return text without the key, however it is spelled."""
        for spelling in _spellings(self._key):
            text = text.replace(spelling, "[key]")
        return text


def _usable_key(key: str) -> str:
    """Return a key without the blanks and line ends around it, which come with files and copies.

    Raises: ConfigError, without the key, for one that no header can hold.
    """
    key = key.strip()
    wrong = next((letter for letter in key if not "!" <= letter <= "~"), None)
    if wrong is None:
        return key
    where = key.index(wrong) + 1
    what = "a blank or line end" if wrong.isspace() else f"the letter {wrong!r}" if wrong.isprintable() else "a control"
    raise ConfigError(
        f"The key in {KEY_VARIABLE} holds {what} at place {where}, which no header can hold. Accepted: letters of "
        "ASCII without blanks. Copy it again from where it was issued"
    )


def _spellings(key: str) -> list[str]:
    """Return the ways in which a key may stand in a message, longest first."""
    if not key:
        return []
    ways = {key, quote(key, safe=""), quote_plus(key), json.dumps(key)[1:-1], repr(key)[1:-1]}
    return sorted(ways, key=len, reverse=True)
