"""The environments of a sitting, in every wording, and whether their items are those that were planned.

`Pools` keeps environments of many kinds ready. Wordings that one does not render itself: `envs/reworded.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium

from foretaste.config import EnvConfig
from foretaste.envs.base import TextEnv
from foretaste.envs.guarded import close, guarded
from foretaste.envs.plain import PlainTextEnv
from foretaste.envs.registry import identity_of, make, max_turns_of
from foretaste.envs.reworded import Reworded
from foretaste.errors import ForetasteError
from foretaste.exams.paper import Item
from foretaste.exams.seal import item_hash
from foretaste.rl.rollout import EnvPool
from foretaste.rl.tasks import Task


class Planned(gymnasium.Wrapper[str, str, str, str]):
    """An environment that notices an item that is not the planned one, where its plain text is asked for."""

    def __init__(self, env: gymnasium.Env[str, str], planned: Mapping[tuple[int, int], str]) -> None:
        """`planned` maps (level, seed) to the hash of the item's identity, or of its plain text, where it is known."""
        super().__init__(env)
        self.planned = planned

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start the item; another one than planned is an error in `info`."""
        options = options or {}
        observation, info = self.env.reset(seed=seed, options=options)
        expected = self.planned.get((options.get("level", 1), seed or 0))
        marks = (item_hash(text) for text in (observation, identity_of(self.env)) if text is not None)
        if options.get("register", "plain") == "plain" and expected is not None and expected not in marks:
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
            close(inner)
            config = EnvConfig(env, level=level, examples=self.examples, max_turns=turns)
            self._pools[env, level] = EnvPool(
                config, lambda: Reworded(Planned(make(env, level=level), self.planned), env)
            )
        return self._pools[env, level]

    def close(self) -> None:
        """Close the environments of all families."""
        for pool in self._pools.values():
            pool.close()


class Renderer:
    """What makes items the ones they are, from one instance an environment and level."""

    def __init__(self) -> None:
        self._envs: dict[tuple[str, int], Any] = {}

    def __call__(self, env: str, level: int, seed: int) -> str:
        """Return an item's identity: what its environment names as such, else its plain first observation.

        Where the environment fails, it is a text that is unique to the item.
        """
        try:
            observation, own = self._reset(env, level, seed)
        except ForetasteError:
            raise
        except Exception as error:  # the environment is anybody's code; playing the item will report it
            return f"{env}:{level}:{seed} could not be rendered: {error}"
        return observation if own is None else own

    def marks(self, env: str, level: int, register: str, seed: int, shown: str) -> set[str]:
        """Return the hashes by which an item is known that a policy was shown as the text `shown`.

        Without an identity of the environment's own it is known by that text, and by its plain one. So is an item
        that cannot be drawn again.
        """
        plain = {item_hash(shown)}
        try:
            place = self._env(env, level).unwrapped
            named = getattr(type(place), "identity", None) not in (None, TextEnv.identity)
            if not named and (register == "plain" or not isinstance(place, TextEnv)):
                return plain
            observation, own = self._reset(env, level, seed)
        except Exception:  # the environment is gone, or has changed since
            return plain
        if register == "plain" and observation != shown:
            return plain
        return plain | {item_hash(observation)} if own is None else {item_hash(own)}

    def reference(self, item: Item) -> str | None:
        """Return the reference answer of an item of one turn, for readers; None where there is none.

        An item that is drawn otherwise here than when it was planned has none either.
        """
        try:
            place = self._env(item.env, item.level)
            if max_turns_of(place) != 1:
                return None
            observation, own = self._reset(item.env, item.level, item.seed)
            if item.hash not in (None, item_hash(observation if own is None else own)):
                return None
            base = place.unwrapped
            return guarded(
                "the reference answer", lambda: str(base.reference() if hasattr(base, "reference") else base.oracle())
            )
        except Exception:  # no oracle, or anybody's code
            return None

    def close(self) -> None:
        """Close the environments that were asked."""
        while self._envs:
            close(self._envs.popitem()[1])

    def _env(self, env: str, level: int) -> Any:
        if (env, level) not in self._envs:
            self._envs[env, level] = make(env, level=level)
        return self._envs[env, level]

    def _reset(self, env: str, level: int, seed: int) -> tuple[str, str | None]:
        """Return an item's plain first observation, and the identity that its environment gives it."""
        place = self._env(env, level)

        def reset() -> tuple[str, str | None]:
            shown = place.reset(seed=seed, options={"level": level, "register": "plain"})[0]
            return str(shown), identity_of(place)

        return guarded("reset", reset)


def planned_hashes(items: list[Item]) -> dict[tuple[int, int], str]:
    """Return (level, seed) -> hash of the identity, for `Planned`."""
    return {(item.level, item.seed): item.hash for item in items if item.hash is not None}
