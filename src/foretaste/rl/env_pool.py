"""Environment instances, reused from episode to episode, closed in the end, and how slow they have been.

Used by `rollout.py` and by whoever else plays episodes; `pools.py` keeps the environments of several sources.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import gymnasium

from foretaste.config import EnvConfig
from foretaste.envs.guarded import CLOSE_SECONDS, Fault, Started, close, guarded, wants_its_thread
from foretaste.envs.registry import make
from foretaste.envs.reworded import in_registers
from foretaste.errors import ConfigError, EnvError, ForetasteError
from foretaste.records import EpisodeEnd, Message
from foretaste.rl.player import Player, prompt_messages
from foretaste.rl.tasks import Task

SLOW_SECONDS = 0.02
"""A call into an environment that takes as long goes on in a thread: starting one costs a two-hundredth of it."""


class Pool(Protocol):
    """Says in which environments a task is played: an `EnvPool`, or a `pools.MixedPool` of several."""

    def of(self, task: Task) -> EnvPool:
        """Return the pool of the task's environment."""
        ...

    def close(self) -> None:
        """Close all environments; they are made again where they are wanted again."""
        ...


class _Unmade(gymnasium.Env[Any, Any]):
    """Stands for an environment that could not be made: the episode that wanted it has an error."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Raise what went wrong."""
        del seed, options
        raise Fault(f"making another instance: {self.reason}")


class EnvPool:
    """Environment instances of one EnvConfig, and their common prompt."""

    def __init__(self, config: EnvConfig, env_class: Callable[[], gymnasium.Env[Any, Any]] | None = None) -> None:
        """`env_class` overrides the lookup of `config.id` (an environment defined in the caller's script).

        Raises: ConfigError or EnvError for an environment that cannot be made, or whose worked examples cannot.
        """
        self.config = config
        self._made = env_class or (lambda: make(config.id))
        self._free: list[gymnasium.Env[Any, Any]] = []
        self._open: dict[int, gymnasium.Env[Any, Any]] = {}
        self._pace: dict[str, float] = {}
        self._bound = False
        self.slots = threading.Semaphore(max(1, config.threads))
        # A pool that is forgotten closes what it holds; at the end of the process no thread can start any more.
        weakref.finalize(self, _close_all, self._open).atexit = False
        first = self._create()
        try:
            self.prompt: list[Message] = prompt_messages(
                first, config.examples, config.level, instructed=config.instructions
            )
        except BaseException:
            self.close()
            raise
        self._free.append(first)

    def of(self, task: Task) -> EnvPool:
        """Return this pool: all its tasks are of one environment."""
        return self

    def instance(self) -> gymnasium.Env[Any, Any]:
        """Return a free instance, for whoever plays without a policy."""
        if not self._free:
            self._free.append(self._create())
        return self._free[-1]

    def player(self, task: Task, checkpoint: str | None) -> Player:
        """Return a player of `task` in a free instance; where none can be made, its reset is an error."""
        try:
            env = self._free.pop() if self._free else self._create()
        except ForetasteError as error:
            env = _Unmade(str(error))
        config = self.config
        return Player(
            task,
            env,
            self.prompt,
            max_turns=config.max_turns,
            checkpoint=checkpoint,
            limit=config.step_timeout_seconds,
            slots=self.slots,
        )

    def give_back(self, player: Player) -> None:
        """Take a finished player's instance back; one that failed may be in any state, and is closed."""
        if player.end is not EpisodeEnd.ERROR:
            self._free.append(player.env)
            return
        # A policy that gave no answer has not harmed the environment, but closing it is safe then too.
        env = self._open.pop(id(player.env), None)
        if env is not None and player.abandoned:  # it hangs: whether close() comes back is waited for by nobody
            Started("close", env.close, limit=CLOSE_SECONDS, setting="")
        elif env is not None:
            close(env)

    def close(self) -> None:
        """Close all instances, in use or not."""
        self._free.clear()
        _close_all(self._open)

    def note(self, kind: str, player: Player) -> None:
        """Take in how long a player's last reset or step took, and whether it suits a thread."""
        seconds = player.call_seconds
        before = self._pace.get(kind, seconds)
        self._pace[kind] = before + 0.3 * (seconds - before)
        self._bound = self._bound or (player.threaded and wants_its_thread(player.error or ""))

    def in_threads(self, kind: str) -> bool:
        """Return whether resets or steps had better go on in threads: they are slow, and may."""
        return self.config.threads > 1 and not self._bound and self._pace.get(kind, 0.0) >= SLOW_SECONDS

    def _create(self) -> gymnasium.Env[Any, Any]:
        def create() -> gymnasium.Env[Any, Any]:
            try:
                return in_registers(self._made(), self.config.registers, self.config.id)
            except (ConfigError, EnvError) as error:
                refused.append(error)
                raise

        refused: list[ForetasteError] = []
        try:
            env = guarded("its constructor", create)
        except Fault as fault:
            if refused:
                raise refused[0] from fault
            raise EnvError(f"The environment {self.config.id} could not be made: {fault}") from fault
        self._open[id(env)] = env
        return env


def _close_all(opened: dict[int, gymnasium.Env[Any, Any]]) -> None:
    while opened:
        close(opened.popitem()[1])
