"""Any `gymnasium.Env` whose spaces are text, made safe for what a language model may write.

A model's text need not lie in the environment's action space (Gymnasium's `Text` has a character
set and a length). Such text never reaches the environment and is never edited into something the
model did not say: the turn is spent, and the observation says what is accepted.
"""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium
from gymnasium import spaces

from foretaste.envs.base import AnyText
from foretaste.errors import EnvError

DEFAULT_MAX_TURNS = 32
"""Turns of an episode where the environment names no limit of its own."""


def is_text(space: object) -> bool:
    """Return whether elements of the space are str."""
    if isinstance(space, spaces.Text | AnyText):
        return True
    return isinstance(space, spaces.Space) and space.dtype is not None and space.dtype.kind == "U"


class PlainTextEnv(gymnasium.Wrapper[str, str, str, str]):
    """Wraps an environment with text spaces that is no `TextEnv`.

    Adds: any text is a legal action, blanks around an action are dropped where the space refuses
    them, an episode is truncated after `max_turns()`, and the last step's info has `success`:
    the environment's own "success" or "is_success", else the sum of rewards if it lies in [0, 1].
    """

    def __init__(self, env: gymnasium.Env[Any, Any], *, title: str) -> None:
        for kind in ("observation_space", "action_space"):
            space = getattr(env, kind, None)
            if not is_text(space):
                received = f"is {space}" if space is not None else "is missing"
                raise EnvError(
                    f"{title}: {kind} {received}, not text. A policy reads and writes str: "
                    "use foretaste.envs.AnyText() or gymnasium.spaces.Text"
                )
        super().__init__(env)
        self.title = title
        self.action_space = AnyText()
        self.observation_space = AnyText()
        self._turn = 0
        self._total = 0.0

    def max_turns(self) -> int:
        """Return the environment's own limit: `max_turns`, else its spec's `max_episode_steps`, else the default."""
        own = getattr(self.env.unwrapped, "max_turns", None)
        own = own() if callable(own) else own
        if isinstance(own, int) and own > 0:
            return own
        return (self.env.spec.max_episode_steps if self.env.spec else None) or DEFAULT_MAX_TURNS

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode. Raises: EnvError if the observation is not text."""
        self._turn, self._total = 0, 0.0
        observation, info = self.env.reset(seed=seed, options=options)
        return self._text(observation, "reset"), info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take any text. Raises: EnvError if the observation is not text."""
        self._turn += 1
        out_of_turns = self._turn >= self.max_turns()
        accepted = self._accepted(action)
        if accepted is None:
            return self._refusal(), 0.0, False, out_of_turns, {"success": 0.0} if out_of_turns else {}
        observation, reward, terminated, truncated, info = self.env.step(accepted)
        self._total += float(reward)
        truncated = bool(truncated) or (out_of_turns and not terminated)
        if terminated or truncated:
            info = self._with_success(info)
        return self._text(observation, "step"), reward, bool(terminated), truncated, info

    def _accepted(self, action: str) -> str | None:
        """Return the action as the environment takes it, or None if it does not."""
        return next((text for text in (action, action.strip()) if self.env.action_space.contains(text)), None)

    def _refusal(self) -> str:
        space = self.env.action_space
        if isinstance(space, spaces.Text):
            characters = space.characters if len(space.characters) <= 80 else f"{space.characters[:80]}..."
            return (
                f"Not accepted. Write {space.min_length} to {space.max_length} characters, "
                f"using only these: {characters}"
            )
        return "Not accepted."

    def _text(self, observation: Any, where: str) -> str:
        if not isinstance(observation, str):
            raise EnvError(
                f"{self.title}.{where}() returned an observation of type {type(observation).__name__}; it must be str"
            )
        return str(observation)

    def _with_success(self, info: dict[str, Any]) -> dict[str, Any]:
        if "success" in info:
            return info
        if "is_success" in info:
            return {**info, "success": float(info["is_success"])}
        return {**info, "success": self._total} if 0.0 <= self._total <= 1.0 else info
