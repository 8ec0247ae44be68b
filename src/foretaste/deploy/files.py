"""Files beside the store: for their owner alone, whatever the umask, and replaced whole or not at all."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from foretaste.strict_json import to_json


def read_json(file: Path) -> dict[str, Any]:
    """Return what is in a file; nothing if it is missing or damaged, since all of it can be made again."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(file: Path, values: dict[str, Any]) -> None:
    """Replace a file whole, so that a process that is killed leaves the old one or the new one."""
    scratch = file.with_suffix(".new")
    write_private(scratch, to_json(values, indent=1) + "\n")
    scratch.replace(file)


def write_private(file: Path, text: str) -> None:
    """Write a file that its owner alone may read and write."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as opened:
        os.fchmod(opened.fileno(), 0o600)
        opened.write(text)


def private_folder(folder: Path) -> None:
    """Make a folder that its owner alone may enter; one that is there is left as it is (`tighten`).

    Raises: OSError if it cannot be made.
    """
    missing: list[Path] = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        one.chmod(0o700)


def tighten(folder: Path) -> list[str]:
    """Take everybody but the owner out of a folder and all that is in it; return what was open to others.

    Links are not followed, and what belongs to somebody else is left alone.
    """
    opened: list[str] = []
    inside = [Path(root) / name for root, folders, files in os.walk(folder) for name in (*folders, *files)]
    for path in (folder, *inside):
        try:
            found = path.lstat()
            wide = stat.S_IMODE(found.st_mode) & 0o077
            if not wide or found.st_uid != os.getuid() or not stat.S_ISREG(found.st_mode) | stat.S_ISDIR(found.st_mode):
                continue
            path.chmod(stat.S_IMODE(found.st_mode) & 0o700)
        except OSError:  # it is gone by now
            continue
        opened.append(str(path))
    return opened
