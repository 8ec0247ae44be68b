"""The contract of a text environment: a Gymnasium env whose observations and actions are str.

`TextEnv` adds what training and exams use and Gymnasium has no word for: instructions, levels,
registers, a scripted oracle, worked examples. A plain `gymnasium.Env` with text spaces works too;
`registry.py` finds environments, `check.py` tests them, `seeds.py` keeps the splits apart.

`info` may carry:
    success     float in [0, 1], in the last step's info: did the episode reach its goal
    checks      tuple[bool, ...]: which checks pass now
    harm        float >= 0: harm done to others by this action
    privileged  str: what the environment knows of the current state; only a critic may read it, in training
    error       str: the environment or its grader failed; the episode is left out of every loss
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, ClassVar, SupportsFloat

import gymnasium
from gymnasium import spaces

from foretaste.envs.seeds import Split, seed_for, split_of
from foretaste.errors import ConfigError, EnvError


class AnyText(spaces.Space[str]):
    """Every str, blanks and emoji included (Gymnasium's `Text` has a length and a character set)."""

    def __init__(self) -> None:
        super().__init__(shape=(), dtype=str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Return a random short string; random text actions test that an environment never crashes."""
        letters = "abcdefghijklmnopqrstuvwxyz 0123456789,.:{}\n\"'é中"
        return "".join(self.np_random.choice(list(letters), size=int(self.np_random.integers(0, 24))))

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)

    def __repr__(self) -> str:
        return "AnyText()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyText)


class TextEnv(gymnasium.Env[str, str]):
    """Base of foretaste's environments. A subclass writes `begin`, `act` and `oracle`.

    One instance plays one episode at a time. All randomness comes from `self.random`, which
    `reset` seeds; `self.split`, `self.level` and `self.register` are set before `begin` runs.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own attribute)
    name: ClassVar[str] = ""
    """Short name in the registry, e.g. "maze"."""
    instructions: ClassVar[str] = ""
    """What the task is and how to answer; the system message of every episode."""
    levels: ClassVar[range] = range(1, 2)
    """Difficulties, easiest first."""
    registers: ClassVar[tuple[str, ...]] = ("plain",)
    """Wordings this environment can render."""
    listed: ClassVar[bool] = False
    """Items come from a list, so that draws repeat: a measurement asks each once."""

    def __init__(self, level: int | None = None) -> None:
        """`level` is the one used when `reset` names none; None: the easiest."""
        self.observation_space = AnyText()
        self.action_space = AnyText()
        self.default_level = self.levels[0] if level is None else self.checked_level(level)
        self.level = self.default_level
        self.register = "plain"
        self.split: Split = "train"
        self.seed = 0
        self.random = random.Random(0)
        self.turn = 0

    # What a subclass writes -------------------------------------------------------------------

    def begin(self) -> tuple[str, dict[str, Any]]:
        """Set up a new item from `self.random`; return the first observation and info."""
        raise NotImplementedError

    def act(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        """Take any text as the action; return observation, reward, terminated, info.

        Text that cannot be understood is answered in the observation (or ends the episode without
        success); it never raises.
        """
        raise NotImplementedError

    def oracle(self) -> str:
        """Return a correct next action in the current state: the proof that items are solvable."""
        raise NotImplementedError

    def identity(self) -> str | None:
        """What makes the item of the last `reset` the one it is, where its first observation does not tell; else None.

        Exams ask no two items of equal identity, and none that was trained on. It is the same in every process.
        """
        return None

    def max_turns(self) -> int:
        """Turns that the task of the current level allows; without success by then, it ends as failed."""
        return 1

    # Gymnasium's interface --------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start the item of `seed`. `options` may hold "level" and "register".

        Raises: ConfigError for a level or register this environment does not have.
        """
        super().reset(seed=seed)
        options = options or {}
        self.seed = int(self.np_random.integers(0, 2**59)) if seed is None else seed
        self.split = split_of(self.seed)
        self.level = self.checked_level(options.get("level", self.default_level))
        self.register = options.get("register", "plain")
        if self.register not in self.registers:
            name = self.name or type(self).__name__
            raise ConfigError(f"{name} has no register {self.register!r}; it has: {', '.join(self.registers)}")
        self.random = random.Random(f"{self.name}:{self.level}:{self.seed}")
        self.turn = 0
        return self.begin()

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take one action. The task ends by itself or with its last allowed turn.

        The limit is a rule of the task, so reaching it is `terminated`: the value function must learn
        that nothing comes after it. `truncated` is left to limits of a run, which the task knows nothing of.
        """
        observation, reward, terminated, info = self.act(action)
        self.turn += 1
        return observation, reward, terminated or self.turn >= self.max_turns(), False, info

    @classmethod
    def checked_level(cls, level: int) -> int:
        """Return `level`, or raise ConfigError naming the levels there are."""
        if level not in cls.levels:
            raise ConfigError(
                f"{cls.name or cls.__name__} has no level {level!r}; it has {cls.levels[0]} to {cls.levels[-1]}"
            )
        return level

    # Worked examples --------------------------------------------------------------------------

    def worked_examples(self, count: int, level: int) -> list[list[tuple[str, str]]]:
        """Return `count` demonstrations, each a list of (observation, action), from the example split.

        They are the same for every episode of a run, so that their keys and values are computed once.
        """
        return [demonstrate(self, seed_for("example", index), level=level) for index in range(count)]


def demonstrate(
    env: TextEnv, seed: int, *, level: int, register: str = "plain", turns: int | None = None
) -> list[tuple[str, str]]:
    """Let the oracle play one item; return (observation, action) pairs, at most `turns` of them.

    Raises: EnvError if the oracle has spent all turns that the task allows without success.
    """
    observation, _ = env.reset(seed=seed, options={"level": level, "register": register})
    played: list[tuple[str, str]] = []
    while turns is None or len(played) < turns:
        action = env.oracle()
        played.append((observation, action))
        observation, reward, terminated, truncated, info = env.step(action)
        if (terminated or truncated) and len(played) >= env.max_turns() and not info.get("success", float(reward)):
            raise EnvError(
                f"The oracle of {env.name!r} did not solve seed {seed} at level {level} in {len(played)} turns"
            )
        if terminated or truncated:
            break
    return played


def choose_register(registers: Sequence[str], seed: int) -> str:
    """Return the register of an item: drawn from `registers` by the item's own seed."""
    return random.Random(f"register:{seed}").choice(list(registers))
