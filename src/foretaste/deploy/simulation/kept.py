"""Keep what came of each simulated deployment, so that a run that was ended goes on where it stopped.

One file of JSON lines for each case: first its settings, then one line a deployment, in the order of their seeds.
The name holds a digest of the settings, so other settings begin another file. Which revision of the code made it, the
file does not say: another revision needs another folder. Next: `run.py`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foretaste.deploy.simulation.run import Outcome
from foretaste.deploy.simulation.worlds import World
from foretaste.deploy.stage_config import StageConfig
from foretaste.strict_json import to_json


class Kept:
    """The outcomes of one case, on disk."""

    def __init__(self, folder: Path, world: World, config: StageConfig, *, check_share: float, seed: int) -> None:
        """Find the file of this case, or begin it; the folder is made."""
        settings: dict[str, Any] = {
            "seed": seed,
            "check_share": check_share,
            "world": asdict(world),
            "stages": asdict(config),
        }
        first = to_json(settings, sort_keys=True)
        self.path = folder / f"{world.name}-{hashlib.sha256(first.encode()).hexdigest()[:12]}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            self.path.write_text(first + "\n", encoding="utf-8")

    def outcomes(self) -> list[Outcome]:
        """Return what is kept; a last line that was not written to its end is dropped, from the file too."""
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.path.write_text(whole, encoding="utf-8")
        return [Outcome(**json.loads(line)) for line in whole.splitlines()[1:]]

    def add(self, outcome: Outcome) -> None:
        """Write the next one down."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(to_json(outcome._asdict()) + "\n")
