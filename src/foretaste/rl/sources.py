"""Where items come from: one environment, or several sources, each an environment with a level and registers.

`curriculum.py` decides how often each source is drawn, `tasks.py` draws, `pools.py` holds the environments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from foretaste.config import EnvConfig, TrainConfig
from foretaste.errors import ConfigError

_SOURCE = re.compile(r"(?P<env>[^@]+|dataset:.+?)(?:@(?P<level>\d+)(?:/(?P<register>[^@/?]+))?)?")


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of item."""

    name: str
    """As the config writes it."""
    env: str
    level: int
    registers: tuple[str, ...]
    """Wordings to draw from, one an item, uniformly."""

    def covers(self, env: str, level: int, register: str) -> bool:
        """Return whether an item of this environment, level and register is one of this source."""
        return (env, level) == (self.env, self.level) and register in self.registers


def training_sources(config: TrainConfig) -> tuple[Source, ...]:
    """Return the sources of training items; without a curriculum, the one environment.

    Raises: ConfigError for a source that cannot be read, or two that share items.
    """
    return _sources(config.curriculum.sources, config.env, "curriculum.sources")


def held_out_sources(config: TrainConfig) -> tuple[Source, ...]:
    """Return the sources of held-out items: those named for it, else those of training.

    Raises: ConfigError as `training_sources` does.
    """
    named = _sources(config.curriculum.held_out, config.env, "curriculum.held_out")
    return named if config.curriculum.held_out else training_sources(config)


def title(config: TrainConfig) -> str:
    """Return what a run is about in a few words: its environment, or its first source and how many more."""
    first, *more = training_sources(config)
    return f"{first.name} and {len(more)} more" if more else first.name


def _sources(names: Sequence[str], env: EnvConfig, where: str) -> tuple[Source, ...]:
    if not names:
        return (Source(env.id, env.id, env.level, env.registers),)
    found = [_read(name, env, where) for name in names]
    for index, source in enumerate(found):
        for other in found[:index]:
            shared = [register for register in source.registers if other.covers(source.env, source.level, register)]
            if shared:
                raise ConfigError(
                    f"{where}: {other.name!r} and {source.name!r} share items (register {shared[0]!r}), so an episode "
                    "would belong to both; accepted: sources that differ in environment, level or register"
                )
    return tuple(found)


def _read(name: str, env: EnvConfig, where: str) -> Source:
    match = _SOURCE.fullmatch(name.strip())
    if match is None:
        raise ConfigError(
            f"{where}: {name!r} cannot be read; accepted: ENV, ENV@LEVEL or ENV@LEVEL/REGISTER, "
            "for example maze@2, desk@1/casual or lock?horizon=20@3"
        )
    level = env.level if match["level"] is None else int(match["level"])
    registers = env.registers if match["register"] is None else (match["register"],)
    return Source(name, match["env"], level, registers)
