"""The shape of one answer, for families of reasoning-gym whose grader takes more than one answer or runs the reply.

Some graders evaluate the reply as Python (`eval`, SymPy's `parse_expr`, which evaluates too): text of
a model must never get there unless it is plainly a grid, a row of moves or an arithmetic expression.
Others stop reading after the first answer and pay for "5 or 6". A reply of another shape is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_LONGEST_EXPRESSION = 400
_NAMES = "exp|log|ln|sqrt|sin|cos|tan|asin|acos|atan|sinh|cosh|tanh|sec|csc|cot|[A-Za-z]"
_EXPRESSION = re.compile(rf"(?:(?<![A-Za-z])(?:{_NAMES})(?![A-Za-z])|\d+(?:\.\d+)?|[+\-*/() ])+", re.ASCII)
_EXPONENT = r"\s*\*\*\s*(?:\d{1,2}(?!\d)|\(\s*-?\d{1,2}\s*(?:/\s*\d{1,2}\s*)?\))"
_POWER_OF_SYMBOL = re.compile(rf"(?<![A-Za-z])[A-Za-z]{_EXPONENT}", re.ASCII)
_POWER_OF_BRACKET = re.compile(rf"\((?=[^()]*[A-Za-z])(?:(?!\*\*)[^()])*\){_EXPONENT}", re.ASCII)


def _is_expression(text: str) -> bool:
    """One expression with single-letter symbols; powers only of a symbol or a bracket with one, and never a tower.

    Numbers to large powers would keep SymPy busy for hours.
    """
    if len(text) > _LONGEST_EXPRESSION or not _EXPRESSION.fullmatch(text):
        return False
    return "**" not in _POWER_OF_BRACKET.sub("x", _POWER_OF_SYMBOL.sub("x", text))


def _full(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda text: compiled.fullmatch(text) is not None


def _is_arithmetic(text: str) -> bool:
    return len(text) <= _LONGEST_EXPRESSION and "**" not in text and _ARITHMETIC(text)


_ARITHMETIC = _full(r"[0-9+\-*/(). ]+")
_GRID = _full(r"[0-9\s]+")
_ROW_OR_LIST = _full(r"[0-9\s,\[\]\-]+")

SHAPES: dict[str, Callable[[str], bool]] = {
    "binary_matrix": _ROW_OR_LIST,
    "countdown": _is_arithmetic,
    "intermediate_integration": _is_expression,
    "kakurasu": _GRID,
    "n_queens": _full(r"[Q_ \n]+"),
    "polynomial_multiplication": _is_expression,
    "prime_factorization": _full(r"\d{1,20}(?:\s*×\s*\d{1,20})*"),
    "puzzle24": _is_arithmetic,
    "simple_integration": _is_expression,
    "sokoban": _full(r"[LRUD]+"),
    "spiral_matrix": _ROW_OR_LIST,
    "string_insertion": _full(r"[A-Z]+"),
    "survo": _GRID,
}
"""Family -> whether a text has the shape of one answer of it."""
