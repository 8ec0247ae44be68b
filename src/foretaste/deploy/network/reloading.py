"""SIGHUP: read the settings again, and take over those that need no restart; without a readable file, stop in order.

What is taken over: limits, times and origins of [server], the names of [incumbent] models, and a renewed certificate.
All else is named in the log, and has no effect until the next start.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from foretaste.config import to_dict
from foretaste.errors import ForetasteError

if TYPE_CHECKING:
    from foretaste.deploy.deployment import Deployment
    from foretaste.deploy.settings import DeployConfig

logger = logging.getLogger(__name__)

FIXED = ("host", "port", "kill_file", "certfile", "keyfile", "requests_per_minute")
"""Settings of [server] that belong to what was built at the start."""


class Reloading:
    """Used from the server's event loop alone."""

    def __init__(self, deployment: Deployment, file: Path | None) -> None:
        self._deployment, self._file = deployment, file
        self._server: uvicorn.Server | None = None

    def serve(self, server: uvicorn.Server) -> None:
        """Name the server that is told to stop, and whose certificate is renewed."""
        self._server = server

    def reload(self) -> list[str]:
        """Take over what can be; return the settings that have changed and need a restart.

        Settings that cannot be used leave everything as it is.
        """
        from foretaste.deploy import settings

        if self._file is None:
            logger.warning("SIGHUP: there is no file of settings to read again; the server stops in order")
            if self._server is not None:
                self._server.should_exit = True
            return []
        try:
            found = settings.load(self._file)
            self._renew_certificate()
        except (ForetasteError, OSError) as error:
            logger.error("SIGHUP: nothing is changed. %s", error)
            return []
        taken = self._taken_over(found)
        left = _differences(to_dict(self._deployment.config), to_dict(found))
        logger.warning("SIGHUP: %s taken over; needs a restart: %s", _listed(taken), _listed(left))
        return left

    def _taken_over(self, found: DeployConfig) -> list[str]:
        """Put the changeable settings in place; return their names."""
        deployment, before = self._deployment, self._deployment.config
        kept: dict[str, Any] = {name: getattr(before.server, name) for name in FIXED}
        server = dataclasses.replace(found.server, **kept)
        incumbent = dataclasses.replace(before.incumbent, models=found.incumbent.models)
        deployment.config = dataclasses.replace(before, server=server, incumbent=incumbent)
        deployment.connections.settings = server
        deployment.stand_in.configure(incumbent)
        if self._server is not None:
            self._server.config.timeout_graceful_shutdown = max(1, round(server.shutdown_seconds))
        return _differences(to_dict(before), to_dict(deployment.config))

    def _renew_certificate(self) -> None:
        context = None if self._server is None else self._server.config.ssl
        server, folder = self._deployment.config.server, self._deployment.folder
        if context is not None and server.certfile is not None and server.keyfile is not None:
            context.load_cert_chain(folder / server.certfile, folder / server.keyfile)


def _differences(before: Any, after: Any, place: str = "") -> list[str]:
    """Return the names of settings whose values differ."""
    if not isinstance(before, dict):
        return [place] if before != after else []
    inside = ((name, f"{place}.{name}" if place else name) for name in before)
    return [one for name, where in inside for one in _differences(before[name], after[name], where)]


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "nothing"
