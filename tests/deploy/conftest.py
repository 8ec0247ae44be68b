"""Fixtures of the deployment's tests; what they are made of is in deploy_helpers.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import deploy_helpers
from deploy_helpers import Incumbent, serve_incumbent

from foretaste.deploy import processes

# Servers, learners and trainings start many times here: what takes them seconds to import is imported once.
processes.PRELOAD += ["foretaste.deploy.server", "foretaste.deploy.online", "torch._dynamo"]
processes.PRELOAD += ["transformers.models.llama.modeling_llama"]


@pytest.fixture
def kit() -> Any:
    """The helpers, for tests that build their own servers."""
    return deploy_helpers


@pytest.fixture(scope="module")
def incumbent() -> Iterator[Incumbent]:
    with serve_incumbent(Incumbent()) as found:
        yield found


@pytest.fixture(autouse=True)
def _no_faults(request: pytest.FixtureRequest) -> None:
    """Every test begins with a healthy incumbent."""
    if "incumbent" in request.fixturenames:
        found = request.getfixturevalue("incumbent")
        found.fault, found.delay, found.same_id = "", 0.0, False
        found.seen.clear()
        found.headers.clear()
