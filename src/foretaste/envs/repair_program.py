"""The little language of `repair`, and its evaluator: straight lines of whole-number arithmetic.

    line     := name "=" operand [operator operand]
    operator := + - * min max
    operand  := name, or a whole number of at most three digits

There are no loops, calls, strings or attributes, so a program of n lines costs at most n operations.
Values beyond `LARGEST` count as no value, as does everything computed from an unknown name. Text
written by a model is matched against a pattern and interpreted here; it never reaches Python's own
`eval` or `exec`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LARGEST = 10**6
"""Greatest absolute value of a result."""
INPUT = "a"
"""Name of the input."""
_LONGEST_TEXT = 200

OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "min": min,
    "max": max,
}
_NAME = r"[a-z][a-z0-9_]{0,7}"
_OPERAND = rf"(?:-?[0-9]{{1,3}}|{_NAME})"
_LINE = re.compile(
    rf"({_NAME})\s*=\s*({_OPERAND})(?:(?:\s*([-+*])\s*|\s+(min|max)\s+)({_OPERAND}))?", re.IGNORECASE | re.ASCII
)
_EDIT = re.compile(r"(?:line\s+)?([0-9]{1,2})\s*[:.)]?\s+(.*)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """One assignment; `operator` and `right` are None for a plain copy."""

    target: str
    left: str
    operator: str | None = None
    right: str | None = None

    def __str__(self) -> str:
        if self.operator is None:
            return f"{self.target} = {self.left}"
        return f"{self.target} = {self.left} {self.operator} {self.right}"


Program = tuple[Line, ...]


def parse_line(text: str) -> Line | None:
    """Return the line that a text is, or None if it is none."""
    if len(text) > _LONGEST_TEXT:
        return None
    match = _LINE.fullmatch(text.strip().lower())
    if match is None:
        return None
    target, left, symbol, word, right = match.groups()
    names = [target, *(operand for operand in (left, right) if operand and operand[0].isalpha())]
    if any(name in OPERATORS for name in names):
        return None
    return Line(target, _canonical(left), symbol or word, None if right is None else _canonical(right))


def parse_edit(text: str) -> tuple[int, Line] | None:
    """Return (line number counted from 1, new line) for a text such as "2: x = p + 3", or None."""
    if len(text) > _LONGEST_TEXT:  # the pattern's time grows with the square of a run of blanks
        return None
    match = _EDIT.fullmatch(text.strip(" \t\r\n`"))
    if match is None:
        return None
    line = parse_line(match[2])
    return None if line is None else (int(match[1]), line)


def run(program: Sequence[Line], value: int) -> dict[str, int | None]:
    """Return every name's value after running a program on an input; None where there is no value."""
    values: dict[str, int | None] = {INPUT: value}
    for line in program:
        values[line.target] = _result(line, values)
    return values


def _result(line: Line, values: Mapping[str, int | None]) -> int | None:
    left = _value(line.left, values)
    if line.operator is None or line.right is None or left is None:
        return left
    right = _value(line.right, values)
    if right is None:
        return None
    result = OPERATORS[line.operator](left, right)
    return result if abs(result) <= LARGEST else None


def _value(operand: str, values: Mapping[str, int | None]) -> int | None:
    return values.get(operand) if operand[0].isalpha() else int(operand)


def _canonical(operand: str) -> str:
    """Return a number without leading zeros, a name as it is; equal programs have equal text."""
    return operand if operand[0].isalpha() else str(int(operand))
