"""Small JSON files beside the store: what a process remembers of its own from one start to the next."""

from __future__ import annotations

import json
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
    scratch.write_text(to_json(values, indent=1) + "\n", encoding="utf-8")
    scratch.replace(file)
