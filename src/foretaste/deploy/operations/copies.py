"""Copies of an SQLite store, whole while others write to it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path


def copy_file(source: Path, copy: Path) -> None:
    """Copy an SQLite database with its own backup; the copy is its owner's alone, and there whole or not at all.

    Raises: OSError or sqlite3.Error.
    """
    scratch = copy.with_name(f"{copy.name}.{os.getpid()}.new")
    os.close(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        scratch.chmod(0o600)
        with (
            contextlib.closing(sqlite3.connect(source)) as reading,
            contextlib.closing(sqlite3.connect(scratch)) as writing,
        ):
            reading.backup(writing)
        descriptor = os.open(scratch, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        os.link(scratch, copy)
    finally:
        scratch.unlink(missing_ok=True)
