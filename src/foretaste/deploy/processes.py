"""How the server starts its learner and its training: from a fork server that has the slow imports behind it.

A process that is started again after it died is then there within a second or two, not ten. The server itself never
imports torch. Where there is no fork server (Windows), processes start from nothing.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

PRELOAD = ["foretaste.deploy.learner_process", "foretaste.models.sampler", "foretaste.models.checkpoint"]


def context() -> BaseContext:
    """Return the way to start processes here."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOAD)
    return found


def start(target: Callable[..., None], arguments: tuple[Any, ...], name: str) -> BaseProcess:
    """Start a daemon that runs `target`, and return it."""
    made: BaseProcess = getattr(context(), "Process")(  # noqa: B009 (typeshed gives only its subclasses one)
        target=target, args=arguments, name=name, daemon=True
    )
    made.start()
    return made


def parent_lives() -> bool:
    """Return whether the process that started this one still runs."""
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()
