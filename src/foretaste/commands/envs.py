"""`foretaste envs`: every environment with a rendered sample, and the check of a user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from foretaste.commands.arguments import parse
from foretaste.errors import ConfigError

LIST_EXAMPLES = """\
  foretaste envs
  foretaste envs maze --samples 3 --level 2
  foretaste envs reasoning
  foretaste envs my_module:MyEnv
  foretaste envs check my_module:MyEnv"""
CHECK_EXAMPLES = """\
  foretaste envs check my_module:MyEnv
  foretaste envs check dataset:questions.jsonl"""


@dataclass(frozen=True)
class ListArguments:
    """List the environments, each with a sample: its first observation and a correct action.

    `foretaste envs reasoning` lists the families of reasoning-gym; `foretaste envs check NAME` tests an environment.
    """

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = None
    """Show only this one: a listed name, reasoning/<family>, dataset:FILE.jsonl or module:Class."""
    samples: int = 1
    """Items to show of each environment."""
    level: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Difficulty; without it, the easiest."""


@dataclass(frozen=True)
class CheckArguments:
    """Test an environment against the contract: one line a fault and exit code 1, or "ok"."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """module:Class of your environment, or any other environment name."""


def run(arguments: list[str]) -> int:
    """List environments, or check one; the exit code is 1 if the check found faults."""
    if arguments[:1] == ["check"]:
        checked = parse(CheckArguments, arguments[1:], command="envs check", examples=CHECK_EXAMPLES)
        return _check(checked.name)
    listed = parse(ListArguments, arguments, command="envs", examples=LIST_EXAMPLES)
    if listed.samples < 0:
        raise ConfigError(f"--samples = {listed.samples} cannot be used; accepted: 0 or more")
    _list(listed)
    return 0


def _check(name: str) -> int:
    from foretaste.envs.check import check_env, returns_note

    faults = check_env(name)
    for fault in faults:
        print(f"{name}: {fault}")
    if not faults:
        print(f"{name}: ok")
        if note := returns_note(name):
            print(f"{name}: {note}")
    return 1 if faults else 0


def _list(arguments: ListArguments) -> None:
    from foretaste.envs import registry

    if arguments.name == "reasoning":
        print("\n".join(registry.families()))
        return
    for name in [arguments.name] if arguments.name else registry.names():
        print(rendered(name, samples=arguments.samples, level=arguments.level))
    if arguments.name is None:
        print("Also: reasoning/<family> (foretaste envs reasoning), dataset:FILE.jsonl, module:Class of your own.")


def rendered(name: str, *, samples: int, level: int | None = None) -> str:
    """Return an environment's name, levels, registers, instructions, and some items with a correct action each."""
    from foretaste.envs.registry import instructions_of, make, max_turns_of
    from foretaste.envs.seeds import seed_for

    env = make(name, level=level)
    lines = [name, *_facts(env)]
    lines += [f"  {line}" for line in instructions_of(env).splitlines()]
    for index in range(samples):
        observation, _ = env.reset(seed=seed_for("practice", index))
        if index == 0:
            lines[1:1] = [f"  turns at this level: {max_turns_of(env)}"]
        lines += [f"  | {line}" for line in str(observation).splitlines()]
        answer = _oracle(env)
        if answer is not None:
            lines += [f"  > {line}" for line in answer.splitlines() or [""]]
        lines += ["  --"] if index + 1 < samples else []
    return "\n".join(lines) + "\n"


def _facts(env: Any) -> list[str]:
    inner = env.unwrapped
    facts = []
    if hasattr(inner, "levels"):
        low, high = inner.levels[0], inner.levels[-1]
        facts.append(f"levels {low} to {high}" if low != high else f"level {low}")
    if hasattr(inner, "registers"):
        facts.append(f"registers: {', '.join(inner.registers)}")
    return [f"  {'; '.join(facts)}"] if facts else []


def _oracle(env: Any) -> str | None:
    """Return a correct action of the current state; None where the environment has no oracle."""
    oracle = getattr(env.unwrapped, "oracle", None)
    if oracle is None:
        return None
    try:
        return str(oracle())
    except NotImplementedError:
        return None
