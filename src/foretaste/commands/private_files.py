"""Files that a command makes are its user's alone, whatever the umask was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def private_files() -> Iterator[None]:
    """Keep everybody else out of all files made in the block, those of processes started in it among them."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
