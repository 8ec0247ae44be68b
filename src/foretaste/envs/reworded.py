"""Registers that an environment does not render itself: `Reworded` puts them around the first observation.

An environment that lists a register in `registers` is asked to render it; any other of `foretaste.registers` is
made by rewriting the plain text, with the answer kept.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import gymnasium

from foretaste.errors import ConfigError, unknown
from foretaste.registers import REGISTERS, rewrite, trainable


class Reworded(gymnasium.Wrapper[str, str, str, str]):
    """An environment that can be reset in any register."""

    def __init__(self, env: gymnasium.Env[str, str], name: str) -> None:
        """`name`: the environment's id, which tells whether the letters of its texts matter."""
        super().__init__(env)
        self.letters_matter = name.startswith(("reasoning/", "dataset:"))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start the item in `options["register"]`."""
        options = options or {}
        register = options.get("register", "plain")
        if register in native(self.unwrapped):
            return self.env.reset(seed=seed, options=options)
        observation, info = self.env.reset(seed=seed, options={**options, "register": "plain"})
        if not isinstance(observation, str):  # a fault of the environment, reported by whoever plays it
            return observation, info
        rng = random.Random(f"register:{register}:{seed}")
        return rewrite(observation, register, rng, letters_matter=self.letters_matter), info


def native(env: Any) -> tuple[str, ...]:
    """Return the registers that an environment renders itself."""
    return tuple(getattr(env.unwrapped, "registers", ("plain",)))


def in_registers(env: gymnasium.Env[Any, Any], registers: Sequence[str], name: str) -> gymnasium.Env[Any, Any]:
    """Return `env`, wrapped where it does not render each of the registers itself.

    Raises: ConfigError for a register that there is not, or that is held out for exams.
    """
    own = native(env)
    accepted = list(dict.fromkeys((*own, *trainable())))
    others = [register for register in registers if register not in own]
    for register in others:
        if register not in REGISTERS:
            raise ConfigError(unknown(f"register of {name}:", register, accepted))
        if REGISTERS[register].held_out:
            raise ConfigError(
                f"register {register!r} belongs to the family {REGISTERS[register].family!r}, which is held out for "
                f"exams, so that they measure more than memorised wordings; accepted for {name}: "
                f"{', '.join(accepted)}"
            )
    return Reworded(env, name) if others else env
