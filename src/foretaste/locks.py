"""One process at a time: a lock on a file that is gone with the process that holds it.

Whoever comes second is told at once who holds it. Used by runs and whatever else must not go on twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from foretaste.errors import RunError


@contextmanager
def only_one(file: Path, what: str) -> Iterator[None]:
    """Hold the lock `file` while the block runs; the holder's process id is kept beside it.

    The operating system frees the lock when its process ends, however it ends; the file stays behind.

    Raises: RunError if another process, or another thread of this one, holds it (`what` says what goes on there), or
    if the file cannot be made.
    """
    lock = FileLock(file, is_singleton=False, thread_local=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise RunError(
            f"{what} is going on in another process ({_holder(file)}). Wait for it or end it, then give the "
            "command again."
        ) from None
    except OSError as error:
        raise RunError(f"Cannot lock {file} for {what}: {error}. Name a folder you can write to.") from error
    try:
        _note(file)
        yield
    finally:
        lock.release()


def is_held(file: Path) -> bool:
    """Return whether some process holds the lock now."""
    if not file.is_file():
        return False
    lock = FileLock(file, is_singleton=False, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def _note(file: Path) -> None:
    """Write who holds the lock beside it; on Windows the locked file itself cannot be read by others."""
    try:
        _beside(file).write_text(str(os.getpid()), encoding="utf-8")
    except OSError:  # it is for messages alone
        return


def _holder(file: Path) -> str:
    try:
        return f"process {int(_beside(file).read_text(encoding='utf-8'))}"
    except (OSError, ValueError):
        return "its id is not known"


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.pid")
