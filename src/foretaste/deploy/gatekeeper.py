"""Who may ask: keys by their hash, and how often. Refusals are counted, and audited once a minute and reason.

Time is the monotonic clock's: a jump of the wall clock neither opens nor closes anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from foretaste.deploy.http import Refusal
from foretaste.deploy.keys import Key, hash_of
from foretaste.deploy.metrics import Metrics

BURST_SHARE = 0.1
"""Part of a minute's requests that may come at once."""
AUDIT_SECONDS = 60.0


class Gatekeeper:
    """Checks a request's key and rate; used from the server's event loop, but for the counts of refusals."""

    def __init__(self, *, requests_per_minute: int, metrics: Metrics) -> None:
        self.keys: dict[str, Key] = {}
        """Valid keys by hash; replaced as a whole when keys change."""
        self._refusals: dict[tuple[str, str], int] = {}
        self._counting = threading.Lock()
        self._rate = requests_per_minute / 60.0
        self._burst = max(1.0, requests_per_minute * BURST_SHARE)
        self._buckets: dict[str, tuple[float, float]] = {}
        self._metrics = metrics

    def admit(self, headers: Iterable[tuple[bytes, bytes]], scopes: tuple[str, ...]) -> Key:
        """Return the key of a request whose scope is among `scopes`.

        Raises: Refusal (401 without a valid key, 403 for another scope, 429 above the rate).
        """
        headers = tuple(headers)
        given = next((value for name, value in headers if name == b"authorization"), None)
        if given is None:  # as Azure's clients send it
            bare = next((value for name, value in headers if name == b"api-key"), None)
            given = None if bare is None else b"bearer " + bare
        if given is None:
            raise self.refusal(Refusal(401, "no_key", "No API key. Send the header Authorization: Bearer <key>."))
        scheme, _, secret = given.partition(b" ")
        key = self.keys.get(hash_of(secret.strip().decode("latin-1"))) if scheme.lower() == b"bearer" else None
        if key is None:
            raise self.refusal(Refusal(401, "wrong_key", "This API key is not known here, or was revoked."))
        if key.scope not in scopes:
            message = f"A key of scope {key.scope!r} may not do this; it takes one of scope {' or '.join(scopes)}."
            raise self.refusal(Refusal(403, "wrong_scope", message), key)
        wait = self._wait(key.id)
        if wait > 0:
            refusal = Refusal(429, "too_many_requests", "Too many requests with this key; ask again later.")
            refusal.headers.append((b"retry-after", str(int(wait) + 1).encode()))
            raise self.refusal(refusal, key)
        return key

    def refusal(self, refusal: Refusal, key: Key | None = None) -> Refusal:
        """Count a refusal, and return it to be raised."""
        self._metrics.refused.labels(refusal.code).inc()
        place = (refusal.code, key.id if key else "-")
        with self._counting:
            self._refusals[place] = self._refusals.get(place, 0) + 1
        return refusal

    def take_refusals(self) -> dict[tuple[str, str], int]:
        """Return the refusals by (reason, key id or "-") since the last call; from any thread."""
        with self._counting:
            taken, self._refusals = self._refusals, {}
        return taken

    def put_back(self, refusals: dict[tuple[str, str], int]) -> None:
        """Count refusals again that were taken and could not be written down."""
        with self._counting:
            for place, count in refusals.items():
                self._refusals[place] = self._refusals.get(place, 0) + count

    def _wait(self, identity: str) -> float:
        """Take one request from the key's bucket; return the seconds to wait if it is empty."""
        now = time.monotonic()
        left, then = self._buckets.get(identity, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        if left < 1.0:
            self._buckets[identity] = (left, now)
            return (1.0 - left) / self._rate
        self._buckets[identity] = (left - 1.0, now)
        return 0.0
