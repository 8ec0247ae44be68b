"""`check_env`: what is wrong with an environment, one clear line a fault; an empty list if nothing is.

Runs Gymnasium's own checker first (its failures and warnings become lines), then what training and
exams rely on besides: text in and out whatever the model writes, the same seed the same item, other
seeds other items, an end to every episode, values of `info` in their ranges, and for a `TextEnv` an
oracle that solves every level and register. Plain Gymnasium environments are checked for what applies.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium
from gymnasium.utils.env_checker import check_env as gymnasium_check

from foretaste.envs.base import AnyText, TextEnv
from foretaste.envs.dataset import Dataset
from foretaste.envs.guarded import Fault, close, guarded, told
from foretaste.envs.plain import PlainTextEnv
from foretaste.envs.registry import instructions_of, make, max_turns_of
from foretaste.envs.seeds import seed_for
from foretaste.errors import ConfigError, EnvError, ForetasteError

NASTY = ("", " ", "\n\n", "\x00", "{", "}" * 50, "%s %n", "{0}{name}", "é中🙂", "\ud800", "-1", "1e999", "[" * 2000,
         "a" * 5000, "null", "<answer></answer>", "; DROP TABLE orders", "import os")  # fmt: skip
"""Actions that have broken parsers somewhere."""

_SEEDS = 8
_LONGEST = 1_000_000
"""Characters of a text; about 250,000 tokens, more than the context of most models."""
_TURNS_CAP = 2000
"""An episode longer than this is taken as one that never ends."""


class _Endless(Exception):
    """An episode did not end; checks that play to the end would not either."""


class _Step(NamedTuple):
    observation: Any
    reward: Any
    terminated: Any
    truncated: Any
    info: Any


def check_env(env: str | type[gymnasium.Env[Any, Any]] | gymnasium.Env[Any, Any]) -> list[str]:
    """Return the faults of an environment, given by id, class or instance; [] if it keeps the contract."""
    try:
        made = make(env)
    except ForetasteError as error:
        return [str(error)]
    faults: list[str] = []
    checks = (_gymnasium, _text_and_seeds, _any_text, _levels_and_registers, _oracle, _prompt, _items, _several)
    for check in checks:
        try:
            found = guarded(_title(check), lambda check=check: list(check(made)))
            faults += [fault for fault in found if fault not in faults]
        except _Endless as error:
            return [*faults, str(error)]
        except Fault as fault:
            cause = fault.__cause__
            if isinstance(cause, _Endless):
                return [*faults, str(cause)]
            known = isinstance(cause, EnvError)
            said = str(cause) if known else f"{_title(check)}: {type(cause).__name__}: {_one_line(told(cause))}"
            faults.append(f"{said} (it must not end the process)" if isinstance(cause, SystemExit) else said)
        except Exception as error:
            faults.append(f"{_title(check)}: {type(error).__name__}: {_one_line(error)}")
    close(made)
    return list(dict.fromkeys(faults))


def returns_note(env: str | type[gymnasium.Env[Any, Any]] | gymnasium.Env[Any, Any]) -> str | None:
    """Return what a run must be told if rewards do not add up to 0 to 1; None if they do in the episodes played here.

    No fault of an environment: the default value head alone is for such returns. A few episodes are played, with the
    oracle where there is one and with random text.
    """
    made = make(env)
    made.action_space.seed(0)
    ends = [0.0]
    inner = made.unwrapped
    oracle = inner.oracle if isinstance(inner, TextEnv) and _has_oracle(inner) else None
    for index in range(_SEEDS):
        for act in (made.action_space.sample, *([oracle] if oracle else [])):
            rewards: list[float] = []
            made.reset(seed=seed_for("practice", index))
            step = None
            while step is None or not (step.terminated or step.truncated or len(rewards) >= _TURNS_CAP):
                step = _Step(*made.step(act()))
                rewards.append(float(step.reward))
            ends += [sum(rewards[at:]) for at in range(len(rewards))]
    low, high = min(ends), max(ends)
    if low >= -1e-6 and high <= 1 + 1e-6:
        return None
    return (
        f"note: returns from {low:g} to {high:g}; the default value head is for 0 to 1. Set model.value_head = "
        f'"regression", or "hl_gauss" with model.value_range = [{low:g}, {high:g}] or wider'
    )


def _title(check: Callable[..., Any]) -> str:
    return check.__name__.strip("_").replace("_", " ")


def _several(env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    """Play an item alone, and again while a second instance begins another: the same must come of it."""
    inner = env.unwrapped
    if not isinstance(inner, TextEnv) or not _has_oracle(inner):
        return
    try:
        other = copy.deepcopy(env)
    except Exception:  # what cannot be copied (a process, a connection) is not played twice
        return
    env.reset(seed=seed_for("practice", 0))
    action = inner.oracle()
    alone = env.step(action)
    env.reset(seed=seed_for("practice", 0))
    for index in range(1, _SEEDS):
        other.reset(seed=seed_for("practice", index))
    beside = env.step(action)
    if alone[:4] != beside[:4]:
        yield (
            "an episode goes on otherwise once another instance has begun one; keep state on self (set in begin), "
            "not on the class or in the module: many instances play in turn"
        )


# Gymnasium's own --------------------------------------------------------------------------------


def _gymnasium(env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    """Run Gymnasium's checker on the bare environment; what it asserts or warns of is a fault."""
    bare = env.unwrapped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            gymnasium_check(bare, skip_render_check=True, skip_close_check=True)
        except Exception as error:
            yield f"gymnasium: {_one_line(error)}"
    for warning in caught:
        text = _one_line(warning.message)
        if issubclass(warning.category, UserWarning):
            yield f"gymnasium: {text}"


def _one_line(problem: object) -> str:
    text = " ".join(str(problem).split())
    for code in ("\x1b[33m", "\x1b[31m", "\x1b[0m", "WARN: "):
        text = text.replace(code, "")
    return text or type(problem).__name__


# Ours, for every environment ----------------------------------------------------------------------


def _text_and_seeds(env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    first = [env.reset(seed=seed_for("train", index)) for index in range(_SEEDS)]
    again = [env.reset(seed=seed_for("train", index)) for index in range(_SEEDS)]
    for observation, info in first:
        yield from _info_faults(info, "reset")
        yield from _text_faults(observation, "the observation of reset")
        if not isinstance(observation, str):
            yield f"reset returns an observation of type {type(observation).__name__}; it must be str"
            return
    if first != again:
        yield "reset with the same seed gives different items; draw only from self.random (or self.np_random)"
    items = {observation + str(info.get("privileged", "")) for observation, info in first}
    if len(items) == 1 and not isinstance(env, PlainTextEnv):
        yield (
            f"{_SEEDS} different seeds look the same; draw the item from self.random, and put into "
            "info['privileged'] what the first observation does not show"
        )
    for space in (env.action_space, env.observation_space):
        if isinstance(env.unwrapped, TextEnv) and not isinstance(space, AnyText):
            yield f"a TextEnv must accept any str; its space is {space}"


def _any_text(env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    """Play with random and nasty text; nothing may raise, and every episode must end."""
    env.action_space.seed(0)
    checks_lengths: set[int] = set()
    for index, nasty in enumerate(NASTY):
        env.reset(seed=seed_for("practice", index))
        played: list[_Step] = []
        while not played or not (played[-1].terminated or played[-1].truncated):
            action = nasty if len(played) == 0 else env.action_space.sample()
            try:
                step = _Step(*env.step(action))
            except Exception as error:
                yield f"step raises {type(error).__name__} on the action {action[:30]!r}: {_one_line(error)}"
                return
            faults = list(_step_faults(step))
            yield from faults
            played.append(step)
            if isinstance(step.info, dict) and isinstance(step.info.get("checks"), tuple):
                checks_lengths.add(len(step.info["checks"]))
            if faults:
                return
            if len(played) > min(max_turns_of(env), _TURNS_CAP):
                raise _Endless(f"an episode goes on after max_turns ({max_turns_of(env)}); truncate it there")
        yield from _end_faults(env, played[-1])
    if len(checks_lengths) > 1:
        yield f"info['checks'] changes its length ({sorted(checks_lengths)}); it must be constant"


def _step_faults(step: _Step) -> Iterator[str]:
    if not isinstance(step.observation, str):
        yield f"step returns an observation of type {type(step.observation).__name__}; it must be str"
    if isinstance(step.reward, bool) or not isinstance(step.reward, int | float) or not math.isfinite(step.reward):
        yield f"step returns the reward {step.reward!r}; it must be a finite number"
    for name, value in (("terminated", step.terminated), ("truncated", step.truncated)):
        if not isinstance(value, bool):
            yield f"step returns {name} = {value!r}; it must be a bool"
    if step.terminated and step.truncated:
        yield (
            "an episode is terminated and truncated at once; "
            "terminated means that the task ended, truncated that a limit cut it"
        )
    yield from _text_faults(step.observation, "the observation of step")
    yield from _info_faults(step.info, "step")


def _text_faults(text: Any, what: str) -> Iterator[str]:
    if isinstance(text, str) and (strange := next((c for c in text if "\ud800" <= c <= "\udfff"), None)):
        yield (
            f"{what} holds {strange!r}, half of a surrogate pair, which UTF-8 cannot carry; a policy would read U+FFFD "
            'in its place. Repair it where text is cut or decoded: text.encode("utf-8", "replace").decode()'
        )
    if isinstance(text, str) and len(text) > _LONGEST:
        yield f"{what} has {len(text):,} characters; no context holds them, so show at most {_LONGEST:,}"


def _info_faults(info: Any, where: str) -> Iterator[str]:
    if not isinstance(info, dict):
        yield f"{where} returns info of type {type(info).__name__}; it must be a dict"
        return
    if "privileged" in info and not isinstance(info["privileged"], str):
        yield f"info['privileged'] of {where} is {type(info['privileged']).__name__}; it must be str"
    yield from _text_faults(info.get("privileged"), f"info['privileged'] of {where}")
    if "error" in info and not isinstance(info["error"], str):
        yield f"info['error'] of {where} is {type(info['error']).__name__}; it must be str"
    harm = info.get("harm", 0.0)
    if isinstance(harm, bool) or not isinstance(harm, int | float) or not math.isfinite(harm) or harm < 0:
        yield f"info['harm'] of {where} is {harm!r}; it must be a number of at least 0"
    checks = info.get("checks")
    if checks is not None and not (isinstance(checks, tuple) and all(isinstance(check, bool) for check in checks)):
        yield f"info['checks'] of {where} is {checks!r}; it must be a tuple of bool"


def _end_faults(env: gymnasium.Env[Any, Any], last: _Step) -> Iterator[str]:
    success = last.info.get("success")
    if success is None:
        if isinstance(env.unwrapped, TextEnv) and last.terminated and "error" not in last.info:
            yield "the last step's info has no 'success'; give a number in [0, 1]"
    elif not isinstance(success, int | float) or not 0.0 <= success <= 1.0:
        yield f"info['success'] is {success!r}; it must be a number in [0, 1]"


# Ours, for a TextEnv ------------------------------------------------------------------------------


def _levels_and_registers(env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    inner = env.unwrapped
    if not isinstance(inner, TextEnv):
        return
    if "plain" not in inner.registers:
        yield f"registers {inner.registers!r} lack 'plain', the wording that every environment has"
    for options, accepted in (
        ({"level": inner.levels[-1] + 1}, "level"),
        ({"register": "no such register"}, "register"),
    ):
        try:
            env.reset(seed=0, options=options)
        except ConfigError:
            continue
        yield f"reset takes options={options} without an error; raise ConfigError for a {accepted} that does not exist"


def _oracle(env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    """Let the oracle play a few items of every level and register."""
    inner = env.unwrapped
    if not isinstance(inner, TextEnv) or not _has_oracle(inner):
        return
    for level in inner.levels:
        for register in inner.registers:
            for index in range(2):
                options = {"level": level, "register": register}
                last = _played_by(env, inner.oracle, seed_for("practice", index), options)
                if last.info.get("error"):
                    yield f"the oracle's episode at level {level} is an error: {last.info['error']}"
                elif not last.terminated or last.info.get("success") != 1.0:
                    end = "success " + repr(last.info.get("success")) if last.terminated else "no end within max_turns"
                    yield f"the oracle does not solve level {level}, register {register!r}: {end}"
                    return


def _items(env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    """Read the texts of all items of a data set, not only of those that were drawn."""
    inner = env.unwrapped
    if isinstance(inner, Dataset):
        for item in inner.items:
            what = f"{inner.path}: the item {item.prompt[:40]!r}"
            yield from _text_faults(f"{item.prompt}{item.answer}{item.example or ''}", what)


def _has_oracle(env: TextEnv) -> bool:
    if type(env).oracle is TextEnv.oracle:
        return False
    env.reset(seed=seed_for("practice", 0))
    try:
        env.oracle()
    except EnvError:
        return False
    return True


def _played_by(env: gymnasium.Env[Any, Any], act: Callable[[], str], seed: int, options: dict[str, Any]) -> _Step:
    env.reset(seed=seed, options=options)
    step = _Step(*env.step(act()))
    turns = 1
    while not (step.terminated or step.truncated) and turns < min(max_turns_of(env), _TURNS_CAP):
        step = _Step(*env.step(act()))
        turns += 1
    return step


def _prompt(env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    """A policy must be told what to do, by instructions or worked examples."""
    inner = env.unwrapped
    if not isinstance(inner, TextEnv):
        return
    if not instructions_of(env).strip():
        yield "instructions are empty; say what the task is and how to answer"
    if not _has_oracle(inner):
        if type(inner).oracle is TextEnv.oracle and type(inner).worked_examples is TextEnv.worked_examples:
            yield "there is no oracle, so no worked examples for the prompt; write oracle() or worked_examples()"
        return
    examples = inner.worked_examples(2, inner.levels[0])
    pairs = [pair for example in examples for pair in example]
    yield from _text_faults(instructions_of(env), "the instructions")
    for text in (text for pair in pairs for text in pair):
        yield from _text_faults(text, "a worked example")
    if not pairs:
        yield "worked_examples gives none although there is an oracle"
    if not all(isinstance(text, str) for pair in pairs for text in pair):
        yield "worked_examples must hold pairs of str: (observation, action)"
