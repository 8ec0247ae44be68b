"""The environments of a sitting, in every wording, and whether their items are those that were planned.

`Pools` keeps environments of many kinds ready. Wordings that one does not render itself: `envs/reworded.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium

from foretaste.config import EnvConfig
from foretaste.envs.plain import PlainTextEnv
from foretaste.envs.registry import make
from foretaste.envs.reworded import Reworded
from foretaste.errors import ForetasteError
from foretaste.exams.paper import Item
from foretaste.exams.seal import item_hash
from foretaste.rl.rollout import EnvPool
from foretaste.rl.tasks import Task


class Planned(gymnasium.Wrapper[str, str, str, str]):
    """An environment that notices an item that is not the planned one, where its plain text is asked for."""

    def __init__(self, env: gymnasium.Env[str, str], planned: Mapping[tuple[int, int], str]) -> None:
        """`planned` maps (level, seed) to the hash of the item's plain text, where it is known."""
        super().__init__(env)
        self.planned = planned

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start the item; another one than planned is an error in `info`."""
        options = options or {}
        observation, info = self.env.reset(seed=seed, options=options)
        expected = self.planned.get((options.get("level", 1), seed or 0))
        if options.get("register", "plain") == "plain" and expected not in (None, item_hash(observation)):
            reason = (
                "the item differs from the one that was planned: this family does not always draw the same item "
                "from a seed; across processes PYTHONHASHSEED=0 may help"
            )
            return observation, {**info, "error": reason}
        return observation, info


class Pools:
    """Environments of every family and level of a sitting; a `rollout.Pool`."""

    def __init__(self, examples: int, planned: Mapping[tuple[int, int], str] | None = None) -> None:
        self.examples = examples
        self.planned = planned or {}
        self._pools: dict[tuple[str, int], EnvPool] = {}

    def of(self, task: Task) -> EnvPool:
        """Return the pool of a task's environment and level, made on first use."""
        env, level = task.env, task.level
        if (env, level) not in self._pools:
            inner = make(env, level=level)
            turns = inner.max_turns() if isinstance(inner, PlainTextEnv) else None
            config = EnvConfig(env, level=level, examples=self.examples, max_turns=turns)
            self._pools[env, level] = EnvPool(
                config, lambda: Reworded(Planned(make(env, level=level), self.planned), env)
            )
        return self._pools[env, level]


class Renderer:
    """Plain texts of items, from one instance an environment and level."""

    def __init__(self) -> None:
        self._envs: dict[tuple[str, int], Any] = {}

    def __call__(self, env: str, level: int, seed: int) -> str:
        """Return the plain first observation; where the environment fails, a text that is unique to the item."""
        if (env, level) not in self._envs:
            self._envs[env, level] = make(env, level=level)
        try:
            return str(self._envs[env, level].reset(seed=seed, options={"level": level, "register": "plain"})[0])
        except ForetasteError:
            raise
        except Exception as error:  # the environment is anybody's code; playing the item will report it
            return f"{env}:{level}:{seed} could not be rendered: {error}"


def planned_hashes(items: list[Item]) -> dict[tuple[int, int], str]:
    """Return (level, seed) -> hash of the plain text, for `Planned`."""
    return {(item.level, item.seed): item.hash for item in items if item.hash is not None}
