"""Which models the learner stands in for: a request that names another one is the incumbent's.

The names are incumbent.models; if that is empty, what the incumbent lists at /models, asked at the start and again when
an unknown name comes. Where incumbent.model replaces every name, or people answer, all names mean the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

from foretaste.deploy.settings import IncumbentConfig
from foretaste.deploy.upstream import Upstream, UpstreamError

logger = logging.getLogger(__name__)

START_SECONDS = 3.0
"""How long the start of the server waits for the incumbent's list."""
AGAIN_SECONDS = 30.0
"""Least time between two questions for the list."""
MOST_NAMES = 10_000


class StandIn:
    """Used from the server's event loop alone."""

    def __init__(self, config: IncumbentConfig, upstream: Upstream | None) -> None:
        self._upstream = upstream
        self._any = upstream is None or (config.model is not None and not config.models)
        self._configured = bool(config.models)
        self.names: frozenset[str] = frozenset(config.models)
        """Names that are known now."""
        self._asked = -AGAIN_SECONDS
        self._task: asyncio.Task[None] | None = None

    def configure(self, config: IncumbentConfig) -> None:
        """Take over changed settings."""
        self._any = self._upstream is None or (config.model is not None and not config.models)
        self._configured = bool(config.models)
        if self._configured:
            self.names = frozenset(config.models)

    @property
    def problem(self) -> str:
        """Why the learner can answer nobody, or ""."""
        if self._any or self.names:
            return ""
        return "the incumbent lists no models, so the learner answers nobody; name them: incumbent.models"

    def covers(self, name: Any) -> bool:
        """Return whether a request that names this model, or None, may be the learner's."""
        if self._any or (isinstance(name, str) and name in self.names):
            return True
        if not self._configured and time.monotonic() - self._asked > AGAIN_SECONDS and self._task is None:
            self._task = asyncio.create_task(self.learn())
        return False

    async def begin(self) -> None:
        """Ask for the list, and wait a short while for it."""
        if self._any or self._configured:
            return
        self._task = asyncio.create_task(self.learn())
        await asyncio.wait([self._task], timeout=START_SECONDS)
        if self.problem:
            logger.warning("Models: %s", self.problem)

    async def close(self) -> None:
        """End a question that is open."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def learn(self) -> None:
        """Ask the incumbent which models it has; what was known stays where it does not say."""
        assert self._upstream is not None
        self._asked = time.monotonic()
        try:
            reply = await self._upstream.get("/models")
            try:
                found = names_of(await reply.body()) if reply.status == 200 else frozenset()
            finally:
                reply.release()
            if found and not self._configured:
                self.names = found
        except UpstreamError as error:
            logger.info("The incumbent's models are not known: %s", error.code)
        finally:
            self._task = None


def names_of(body: bytes) -> frozenset[str]:
    """Return the ids and aliases in an answer to GET /models."""
    try:
        found = json.loads(body).get("data")
    except (ValueError, AttributeError, RecursionError):
        return frozenset()
    names: set[str] = set()
    for one in found if isinstance(found, list) else []:
        if isinstance(one, dict):
            aliases = one.get("aliases")
            given = (one.get("id"), *(aliases if isinstance(aliases, list) else ()))
            names |= {name for name in given if isinstance(name, str)}
    return frozenset(names) if len(names) <= MOST_NAMES else frozenset()
