"""One episode in progress: the environment's side of a conversation. `rollout.py` drives many of them.

Whatever the environment does wrong becomes `EpisodeEnd.ERROR` with one line that says what; it never
stops the run and never becomes reward 0. Text that UTF-8 cannot carry (half a surrogate pair) is taken in with
U+FFFD in its place, since neither a tokenizer nor a file could hold it.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium

from foretaste.envs.base import TextEnv
from foretaste.envs.guarded import Fault, Started, guarded, told
from foretaste.envs.registry import instructions_of, max_turns_of, worked_examples_of
from foretaste.envs.seeds import split_of
from foretaste.errors import EnvError
from foretaste.records import Action, Conversation, Episode, EpisodeEnd, Message, Turn, well_formed
from foretaste.rl.tasks import Task


def prompt_messages(
    env: gymnasium.Env[Any, Any], examples: int, level: int, *, instructed: bool = True
) -> list[Message]:
    """Return the messages before the first observation: instructions (if `instructed`), then worked examples as a chat.

    They are equal for all episodes of an environment and level, so a sampler computes them once.

    Raises: EnvError where the environment fails while the worked examples are made.
    """

    def collect() -> list[Message]:
        messages: list[Message] = []
        for example in worked_examples_of(env, examples, level):
            for observation, action in example:
                if not (isinstance(observation, str) and isinstance(action, str)):
                    kinds = f"({type(observation).__name__}, {type(action).__name__})"
                    raise Fault(f"worked examples hold {kinds}; return pairs of str: (observation, action)")
                messages += [Message("user", well_formed(observation)), Message("assistant", well_formed(action))]
        return messages

    name = type(env.unwrapped).__name__
    try:
        instructions = well_formed(guarded("instructions", lambda: instructions_of(env))) if instructed else ""
        shown = guarded("worked_examples", collect)
    except Fault as fault:
        raise EnvError(
            f"Worked examples of {name} failed: {fault}. They are played by its oracle at level {level}; "
            "mend it, or show none: env.examples = 0"
        ) from fault
    return [Message("system", instructions), *shown] if instructions else shown


class Said(NamedTuple):
    """What an environment's `info` says of a turn (`envs/base.py`)."""

    checks: tuple[bool, ...] | None
    harm: float
    success: float | None
    """None: nothing is said of it."""


def read_info(info: Mapping[str, Any]) -> Said:
    """Return what an `info` says.

    Raises: ValueError naming the entry, what was received and what is accepted.
    """
    checks, success = info.get("checks"), info.get("success")
    try:
        checks = None if checks is None else tuple(bool(check) for check in checks)
    except Exception as error:  # a value of the user's own kind: anything may come out of it
        raise ValueError(f"info['checks'] = {_shown(checks)}; return a tuple of bool") from error
    harm = _number(info.get("harm", 0.0))
    if not 0 <= harm < math.inf:
        raise ValueError(f"info['harm'] = {_shown(info['harm'])}; return a number of at least 0, or leave it out")
    if success is not None and not 0 <= _number(success) <= 1:
        raise ValueError(f"info['success'] = {_shown(success)}; return a number in [0, 1], or leave it out")
    return Said(checks, harm, None if success is None else _number(success))


def read_privileged(info: Mapping[str, Any]) -> str | None:
    """Return what an `info` tells a critic, as text; numbers and truth values are taken as they print.

    Raises: ValueError for anything else.
    """
    value = info.get("privileged")
    if value is None or type(value) is str:
        return value
    try:
        if isinstance(value, str):
            return str.__str__(value)
        value = value.item() if getattr(value, "ndim", None) == 0 else value
        if isinstance(value, str | bool | int | float):
            return str(value)
    except Exception as error:
        raise ValueError(f"info['privileged'] = {_shown(value)}; return str") from error
    raise ValueError(f"info['privileged'] of type {type(value).__name__}; return str: what the critic may read")


def read_error(info: Mapping[str, Any]) -> str | None:
    """Return the failure that an `info` tells of, in one line; None where there is none.

    A text or a number counts unless it is empty or 0; so does an array with an element that does. Any other object
    whose truth cannot be asked is a failure: it was put there to tell of one.
    """
    value = info.get("error")
    if value is None:
        return None
    try:
        some = bool(value.any()) if callable(getattr(value, "any", None)) else bool(value)
    except Exception:
        return f"info['error'] of type {type(value).__name__}, whose truth cannot be asked; return str, or leave it out"
    return (told(value) or f"info['error'] of type {type(value).__name__}") if some else None


def _shown(value: object) -> str:
    """Return how a value of anybody's prints, shortened."""
    try:
        return repr(value)[:200]
    except Exception as error:
        return f"an object of type {type(value).__name__} (its repr raises {type(error).__name__})"


class Heard(NamedTuple):
    """What an environment returned, read in full: values of our own, which nothing can go wrong with any more."""

    observation: str
    said: Said
    privileged: str | None
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    max_turns: int | None = None


def hear(where: str, observation: Any, info: Any) -> Heard:
    """Return what an environment returned.

    Raises: Fault where it tells of a failure, or breaks the contract.
    """
    if not isinstance(info, Mapping):
        raise Fault(f"{where} returned info of type {type(info).__name__}; return a dict")
    if (error := read_error(info)) is not None:
        raise Fault(f"{where}: {error}")
    if not isinstance(observation, str):
        raise Fault(f"{where} returned an observation of type {type(observation).__name__}; return str")
    try:
        privileged = read_privileged(info)
        privileged = None if privileged is None else well_formed(privileged)
        return Heard(well_formed(str.__str__(observation)), read_info(info), privileged)
    except ValueError as error:
        raise Fault(f"{where} returned {error}") from error


def _number(value: Any) -> float:
    """Return a value as a float; NaN if it is none."""
    try:
        return float(value)
    except Exception:  # a value of the user's own kind: anything may come out of it
        return math.nan


def _sayable(action: Action) -> Action:
    """Return an action whose text every environment can write down: endpoints return what JSON can hold."""
    return action if action.text.isascii() else dataclasses.replace(action, text=well_formed(action.text))


LIMIT_SETTING = "env.step_timeout_seconds"


class Player:
    """Plays one task in one environment instance, and writes it down as an Episode."""

    def __init__(
        self,
        task: Task,
        env: gymnasium.Env[Any, Any],
        prompt: list[Message],
        *,
        max_turns: int | None = None,
        checkpoint: str | None = None,
        limit: float | None = None,
        slots: threading.Semaphore | None = None,
    ) -> None:
        """`limit`: seconds that a call into the environment may take; `slots`: how many may go on in threads."""
        self.limit, self.slots = limit, slots
        self.own_limit: int | None = None
        self.task = task
        self.env = env
        self.prompt = prompt
        self.max_turns = max_turns
        self.checkpoint = checkpoint
        self.turns: list[Turn] = []
        self.end: EpisodeEnd | None = None
        self.success: float | None = None
        self.error: str | None = None
        self.final_value = 0.0
        self.env_seconds = 0.0
        self.observation = ""
        self.observation_tokens: tuple[int, ...] = ()
        self.gate_probability = 0.0
        self.call_seconds = 0.0
        """What the last call into the environment took, whether it was waited for or not."""
        self.abandoned = False
        """A call has not come back in time; the instance is left to it."""
        self.threaded = False
        """The last call went on in a thread of its own."""
        self._started: Started[Heard] | None = None
        self._privileged: str | None = None
        self._reward = 0.0
        self._said = Said(None, 0.0, None)
        self._success: float | None = None

    def begin(self) -> None:
        """Start the reset in a thread; `start` waits for it."""
        self._started = self._in_thread("reset", self._reset)

    def begin_step(self, action: Action) -> None:
        """Start the step in a thread; `answer` with the same action waits for it."""
        action = _sayable(action)
        self._started = self._in_thread(f"step {len(self.turns) + 1}", lambda: self._step(action))

    @property
    def waits(self) -> bool:
        """Whether a call that was started is still going on."""
        return self._started is not None and not self._started.over

    @property
    def in_last_turn(self) -> bool:
        """Whether the next action ends the episode by the task's own rule, whatever it is."""
        env, limit = self.env, self.own_limit
        plain = isinstance(env, TextEnv) and type(env).step is TextEnv.step
        return plain and limit is not None and len(self.turns) + 1 >= limit

    def _in_thread(self, where: str, call: Callable[[], Heard]) -> Started[Heard]:
        return Started(where, call, limit=self.limit, setting=LIMIT_SETTING, slots=self.slots)

    def start(self, key: str) -> Conversation | None:
        """Reset the environment; return the conversation up to the first action, or None on an error."""
        heard = self._called("reset", self._reset)
        if heard is None:
            return None
        self.own_limit = heard.max_turns
        self.max_turns = self.max_turns or heard.max_turns
        self._take(heard)
        messages = [*self.prompt, Message("user", self.observation)]
        return Conversation(key, messages, sample_seed=self.task.sample_seed)

    def answer(self, action: Action) -> str | None:
        """Hand an action to the environment; return the next observation, or None when the episode is over.

        After a truncation the last observation is returned too, with `end` set, so that a value
        function can be read in the state where the limit cut the episode.
        """
        action = _sayable(action)
        heard = self._called(f"step {len(self.turns) + 1}", lambda: self._step(action))
        if heard is None:
            return None
        before, tokens = self.observation, self.observation_tokens
        privileged, gate = self._privileged, self.gate_probability
        self._take(heard)
        self.turns.append(
            Turn(
                observation=before,
                action=action,
                observation_tokens=tokens,
                reward=heard.reward,
                gate_probability=gate,
                checks=self._said.checks,
                harm=self._said.harm,
                privileged=privileged,
            )
        )
        self.gate_probability = 0.0
        self._reward += heard.reward
        if heard.terminated:
            self._finish(EpisodeEnd.TERMINATED)
            return None
        if heard.truncated or (self.max_turns is not None and len(self.turns) >= self.max_turns):
            self._finish(EpisodeEnd.TRUNCATED)
        return self.observation

    def cut(self) -> None:
        """End the episode because no room is left in the context."""
        self._finish(EpisodeEnd.TRUNCATED)

    def stop(self, value: float) -> None:
        """End the episode because the gate gave it up in a state of this value; its success is unknown."""
        self.end, self.final_value = EpisodeEnd.STOPPED, value

    def episode(self) -> Episode:
        """Return the record; call it once the episode is over."""
        if self.end is None:
            raise RuntimeError("the episode is not over")
        cut = self.end.cut
        return Episode(
            env=self.task.env,
            seed=self.task.seed,
            split=split_of(self.task.seed),
            level=self.task.level,
            register=self.task.register,
            turns=tuple(self.turns),
            end=self.end,
            success=self.success,
            checkpoint=self.checkpoint,
            final_value=self.final_value,
            error=self.error,
            sample_seed=self.task.sample_seed,
            final_observation_tokens=self.observation_tokens if cut else (),
            final_observation=self.observation if cut else "",
            final_privileged=self._privileged if cut else None,
        )

    def _reset(self) -> Heard:
        options = {"level": self.task.level, "register": self.task.register}
        observation, info = self.env.reset(seed=self.task.seed, options=options)
        return hear("reset", observation, info)._replace(max_turns=max_turns_of(self.env))

    def _step(self, action: Action) -> Heard:
        where = f"step {len(self.turns) + 1}"
        observation, reward, terminated, truncated, info = self.env.step(action.text)
        reward = _number(reward)
        if not math.isfinite(reward):
            raise Fault(f"{where} returned a reward that is no finite number; return a float")
        heard = hear(where, observation, info)
        return heard._replace(reward=reward, terminated=bool(terminated), truncated=bool(truncated))

    def _called(self, where: str, call: Callable[[], Heard]) -> Heard | None:
        """Return what the environment says; None on an error, with which the episode ends."""
        running, self._started = self._started, None
        started = time.perf_counter()
        try:
            if running is None and self.limit is not None:
                running = self._in_thread(where, call)
            self.threaded = running is not None
            return guarded(where, call) if running is None else running.result()
        except Fault as fault:
            self.fail(str(fault))
            self.abandoned = running is not None and running.abandoned
            return None
        finally:
            waited = time.perf_counter() - started
            self.env_seconds += waited
            self.call_seconds = waited if running is None or self.abandoned else running.seconds

    def _take(self, heard: Heard) -> None:
        self.observation, self._said, self._privileged = heard.observation, heard.said, heard.privileged
        self._success = self._success if heard.said.success is None else heard.said.success

    def _finish(self, end: EpisodeEnd) -> None:
        self.end = end
        # An environment that never spoke of success counts as solved from a total reward of 1 on.
        self.success = float(self._reward >= 1.0) if self._success is None else self._success

    def fail(self, message: str) -> None:
        """End the episode with an error: it is data, and enters no loss."""
        self.end, self.error = EpisodeEnd.ERROR, well_formed(" ".join(message.split()))
