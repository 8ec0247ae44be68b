"""Items of `repair`: a correct program, checks that it passes, and bugs that hide each other.

Shared lines feed several outputs. The first two bugs of an item of level 2 or higher compensate each
other in one output: a shared line is off by d, an output that reads it is off by -d. That output
passes, the other readers of the shared line fail, and mending the shared line alone turns the passing
checks into failing ones. So whoever mends only the check in view can swap two bugs for ever.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from foretaste.envs.partition import belongs
from foretaste.envs.repair_program import INPUT, LARGEST, Line, Program, run
from foretaste.envs.seeds import Split
from foretaste.errors import EnvError

_SHARED_NAMES = ("p", "q", "r")
_OUTPUT_NAMES = ("x", "y", "z", "u", "v")
_INPUTS = range(10)
_DIGITS = range(1, 10)
_ATTEMPTS = 20_000


class Shape(NamedTuple):
    """What a level asks for."""

    shared: int
    outputs: int
    bugs: int
    turns: int
    """Turns that the task allows."""
    operators: tuple[str, ...] = ("+", "-", "*")


class Check(NamedTuple):
    """One check: with `value` as the input, `output` must be `expected`."""

    output: str
    value: int
    expected: int


class Item(NamedTuple):
    """What an episode starts from."""

    correct: Program
    broken: Program
    checks: tuple[Check, ...]
    """Two per output, in the order of the outputs."""


def passes(program: Sequence[Line], checks: Sequence[Check]) -> tuple[bool, ...]:
    """Return the pass vector of a program."""
    results = {value: run(program, value) for value in {check.value for check in checks}}
    return tuple(results[check.value].get(check.output) == check.expected for check in checks)


def draw_item(shape: Shape, split: Split, rng: random.Random) -> Item:
    """Draw an item of a shape whose correct program is one that `split` may use.

    Raises: EnvError if none is found, which means that the shape asks for the impossible.
    """
    for _ in range(_ATTEMPTS):
        correct = _draw_program(shape, rng)
        checks = _draw_checks(correct, shape, rng)
        if checks is None or not belongs("\n".join(map(str, correct)), split):
            continue
        broken = _break(correct, shape, rng)
        if broken is not None and _is_good(correct, broken, checks, shape):
            return Item(correct, broken, checks)
    raise EnvError(f"No repair item of {shape} in {_ATTEMPTS} tries; ask for fewer bugs or more lines")


def swaps(program: Program, correct: Program, checks: Sequence[Check]) -> list[int]:
    """Return the lines (counted from 0) whose correction alone mends one check and breaks another."""
    before = passes(program, checks)
    found = []
    for index, (line, wanted) in enumerate(zip(program, correct, strict=True)):
        if line == wanted:
            continue
        after = passes((*program[:index], wanted, *program[index + 1 :]), checks)
        if (True, False) in zip(before, after, strict=True) and (False, True) in zip(before, after, strict=True):
            found.append(index)
    return found


def _draw_program(shape: Shape, rng: random.Random) -> Program:
    lines: list[Line] = []
    known = [INPUT]
    for index, name in enumerate(_SHARED_NAMES[: shape.shared]):
        # The first shared line is additive, so that another line can compensate a bug in it.
        operator = rng.choice(("+", "-") if index == 0 else shape.operators)
        lines.append(Line(name, rng.choice(known), operator, str(rng.choice(_DIGITS))))
        known.append(name)
    shared = known[1:]
    for index, name in enumerate(_OUTPUT_NAMES[: shape.outputs]):
        if index < 2:  # two readers of the first shared line, the first of them additive
            operator = rng.choice(("+", "-") if index == 0 and shape.bugs > 1 else shape.operators)
            lines.append(Line(name, shared[0], operator, str(rng.choice(_DIGITS))))
            continue
        unread = [other for other in shared if all(other not in (line.left, line.right) for line in lines)]
        left = rng.choice(unread or shared)  # a bug in a line that nothing reads would be no bug
        others = [other for other in known if other != left]
        right = rng.choice(others) if rng.random() < 0.3 else str(rng.choice(_DIGITS))
        lines.append(Line(name, left, rng.choice(shape.operators), right))
    outputs = lines[shape.shared :]
    rng.shuffle(outputs)
    return (*lines[: shape.shared], *outputs)


def _draw_checks(program: Program, shape: Shape, rng: random.Random) -> tuple[Check, ...] | None:
    """Draw two inputs per output; None if an output does not depend on the input, so that a constant would pass."""
    checks: list[Check] = []
    for line in program[shape.shared :]:
        pair = []
        for value in rng.sample(_INPUTS, 2):
            expected = run(program, value)[line.target]
            if expected is None or abs(expected) > LARGEST:
                return None
            pair.append(Check(line.target, value, expected))
        if pair[0].expected == pair[1].expected:
            return None
        checks += pair
    return tuple(checks)


def _break(correct: Program, shape: Shape, rng: random.Random) -> Program | None:
    """Put bugs in: a compensating pair first if there are several, then random ones on other lines."""
    broken = list(correct)
    if shape.bugs > 1:
        readers = (index for index in range(shape.shared, len(correct)) if correct[index].left == correct[0].target)
        shift = rng.choice([-4, -3, -2, -1, 1, 2, 3, 4])
        hidden = _shifted(correct[0], shift)
        for reader in readers:
            hiding = _shifted(correct[reader], -shift)
            if hidden is not None and hiding is not None:
                broken[0], broken[reader] = hidden, hiding
                break
        else:
            return None
    untouched = [index for index, line in enumerate(correct) if broken[index] == line]
    missing = shape.bugs - (len(correct) - len(untouched))
    for index in rng.sample(untouched, missing):
        broken[index] = _mutated(correct[index], shape, rng)
    return tuple(broken)


def _shifted(line: Line, shift: int) -> Line | None:
    """Return a line of the form name + digit whose result is greater by `shift`; None if there is none."""
    if line.operator not in ("+", "-") or line.right is None or not line.right.isdigit():
        return None
    digit = int(line.right) + (shift if line.operator == "+" else -shift)
    return replace(line, right=str(digit)) if digit in _DIGITS else None


def _mutated(line: Line, shape: Shape, rng: random.Random) -> Line:
    """Return a line with another digit or, at levels with several bugs, another operator."""
    operators = [operator for operator in shape.operators if operator != line.operator]
    if line.right is None or line.right.isalpha() or (shape.bugs > 1 and rng.random() < 0.4):
        return replace(line, operator=rng.choice(operators))
    return replace(line, right=str(rng.choice([digit for digit in _DIGITS if str(digit) != line.right])))


def _is_good(correct: Program, broken: Program, checks: Sequence[Check], shape: Shape) -> bool:
    """Return whether something fails and, with several bugs, something passes that the next mend would break."""
    before = passes(broken, checks)
    return not all(before) and (shape.bugs == 1 or bool(swaps(broken, correct, checks)))
