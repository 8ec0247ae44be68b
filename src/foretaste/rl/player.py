"""One episode in progress: the environment's side of a conversation. `rollout.py` drives many of them.

Whatever the environment does wrong becomes `EpisodeEnd.ERROR` with one line that says what; it never
stops the run and never becomes reward 0. Text that UTF-8 cannot carry (half a surrogate pair) is taken in with
U+FFFD in its place, since neither a tokenizer nor a file could hold it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium

from foretaste.envs.registry import instructions_of, max_turns_of, worked_examples_of
from foretaste.envs.seeds import split_of
from foretaste.records import Action, Conversation, Episode, EpisodeEnd, Message, Turn, well_formed
from foretaste.rl.tasks import Task


def prompt_messages(
    env: gymnasium.Env[Any, Any], examples: int, level: int, *, instructed: bool = True
) -> list[Message]:
    """Return the messages before the first observation: instructions (if `instructed`), then worked examples as a chat.

    They are equal for all episodes of an environment and level, so a sampler computes them once.
    """
    instructions = instructions_of(env) if instructed else ""
    messages = [Message("system", well_formed(instructions))] if instructions else []
    for example in worked_examples_of(env, examples, level):
        for observation, action in example:
            messages += [Message("user", well_formed(observation)), Message("assistant", well_formed(action))]
    return messages


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
        raise ValueError(f"info['checks'] = {checks!r}; return a tuple of bool") from error
    harm = _number(info.get("harm", 0.0))
    if not 0 <= harm < math.inf:
        raise ValueError(f"info['harm'] = {info['harm']!r}; return a number of at least 0, or leave it out")
    if success is not None and not 0 <= _number(success) <= 1:
        raise ValueError(f"info['success'] = {success!r}; return a number in [0, 1], or leave it out")
    return Said(checks, harm, None if success is None else _number(success))


def _number(value: Any) -> float:
    """Return a value as a float; NaN if it is none."""
    try:
        return float(value)
    except Exception:  # a value of the user's own kind: anything may come out of it
        return math.nan


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
    ) -> None:
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
        self._privileged: str | None = None
        self._reward = 0.0
        self._said = Said(None, 0.0, None)
        self._success: float | None = None

    def start(self, key: str) -> Conversation | None:
        """Reset the environment; return the conversation up to the first action, or None on an error."""
        started = time.perf_counter()
        try:
            options = {"level": self.task.level, "register": self.task.register}
            observation, info = self.env.reset(seed=self.task.seed, options=options)
            self.max_turns = self.max_turns or max_turns_of(self.env)
        except Exception as error:  # the environment is the user's code: anything may come out of it
            self._fail(f"reset raised {type(error).__name__}: {error}")
            return None
        finally:
            self.env_seconds += time.perf_counter() - started
        if not self._observe(observation, info, "reset"):
            return None
        messages = [*self.prompt, Message("user", self.observation)]
        return Conversation(key, messages, sample_seed=self.task.sample_seed)

    def answer(self, action: Action) -> str | None:
        """Hand an action to the environment; return the next observation, or None when the episode is over.

        After a truncation the last observation is returned too, with `end` set, so that a value
        function can be read in the state where the limit cut the episode.
        """
        started = time.perf_counter()
        if not action.text.isascii():
            action = dataclasses.replace(action, text=well_formed(action.text))  # endpoints return what JSON can hold
        try:
            observation, reward, terminated, truncated, info = self.env.step(action.text)
        except Exception as error:
            self._fail(f"step {len(self.turns) + 1} raised {type(error).__name__}: {error}")
            return None
        finally:
            self.env_seconds += time.perf_counter() - started
        reward = _number(reward)
        if not math.isfinite(reward):
            self._fail(f"step {len(self.turns) + 1} returned a reward that is no finite number; return a float")
            return None
        before, tokens = self.observation, self.observation_tokens
        privileged, gate = self._privileged, self.gate_probability
        if not self._observe(observation, info, f"step {len(self.turns) + 1}"):
            return None
        self.turns.append(
            Turn(
                observation=before,
                action=action,
                observation_tokens=tokens,
                reward=reward,
                gate_probability=gate,
                checks=self._said.checks,
                harm=self._said.harm,
                privileged=privileged,
            )
        )
        self.gate_probability = 0.0
        self._reward += reward
        if terminated:
            self._finish(EpisodeEnd.TERMINATED)
            return None
        if truncated or (self.max_turns is not None and len(self.turns) >= self.max_turns):
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

    def _observe(self, observation: Any, info: Any, where: str) -> bool:
        """Take in what the environment returned; return whether the episode goes on."""
        if not isinstance(info, Mapping):
            self._fail(f"{where} returned info of type {type(info).__name__}; return a dict")
        elif info.get("error"):
            self._fail(f"{where}: {info['error']}")
        elif not isinstance(observation, str):
            self._fail(f"{where} returned an observation of type {type(observation).__name__}; return str")
        else:
            try:
                self._said = read_info(info)
            except ValueError as error:
                self._fail(f"{where} returned {error}")
                return False
            self._success = self._success if self._said.success is None else self._said.success
            self.observation = well_formed(observation)
            privileged = info.get("privileged")
            self._privileged = well_formed(privileged) if isinstance(privileged, str) else privileged
        return self.end is None

    def _finish(self, end: EpisodeEnd) -> None:
        self.end = end
        # An environment that never spoke of success counts as solved from a total reward of 1 on.
        self.success = float(self._reward >= 1.0) if self._success is None else self._success

    def _fail(self, message: str) -> None:
        self.end, self.error = EpisodeEnd.ERROR, well_formed(" ".join(message.split()))
