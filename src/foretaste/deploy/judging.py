"""Was the learner's answer right? Comparators (against the incumbent's answer or a correction) and verifiers.

A comparator says how far two texts are the same answer, from 0 to 1; a verifier needs no second answer. Both can
be functions of the user's own, named `module:function`. One that raises judges nothing: the answer stays unjudged.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from foretaste.errors import ConfigError, unknown

logger = logging.getLogger(__name__)

Messages = Sequence[dict[str, Any]]
Comparator = Callable[[str, str], float | None]
Verifier = Callable[[Messages, str], float | None]


def load_function(spec: str, what: str) -> Callable[..., Any]:
    """Return the function that `module:function` names.

    Raises: ConfigError if there is none.
    """
    module_name, _, name = spec.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{what} = {spec!r} cannot be found ({error}); accepted: module:function") from error
    if not callable(found):
        raise ConfigError(f"{what} = {spec!r} is no function")
    return found


def comparator(name: str) -> Comparator | None:
    """Return the comparator of that name; None for "none".

    Raises: ConfigError for a name that is none.
    """
    built_in: dict[str, Comparator | None] = {"exact": exact, "json": same_json, "none": None}
    if name in built_in:
        return built_in[name]
    if ":" not in name:
        raise ConfigError(unknown("comparator", name, [*built_in, "module:function"]))
    return guarded(load_function(name, "takeover.comparator"), "comparator")


def verifier(spec: str | None) -> Verifier | None:
    """Return the verifier of that name, or none."""
    return None if spec is None else guarded(load_function(spec, "takeover.verifier"), "verifier")


def exact(one: str, other: str) -> float:
    """1 if two answers are equal up to upper case and blanks, else 0."""
    return float(plain_text(one) == plain_text(other))


def same_json(one: str, other: str) -> float | None:
    """1 if two answers hold equal JSON (fenced or not), else 0; None if the second is no JSON."""
    try:
        right = json.loads(_unfenced(other))
    except (ValueError, RecursionError):  # RecursionError: nested a thousand levels deep
        return None
    try:
        return float(json.loads(_unfenced(one)) == right)
    except (ValueError, RecursionError):
        return 0.0


def guarded(function: Callable[..., Any], what: str) -> Callable[..., float | None]:
    """Return a function that gives a number in [0, 1], or None where the given one fails to."""

    def judge(*arguments: Any) -> float | None:
        try:
            score = function(*arguments)
            if score is None or math.isnan(float(score)):  # no number is no judgement, and never a 0
                return None
            return min(1.0, max(0.0, float(score)))
        except Exception as error:  # the user's own code: whatever it raises must not touch a request
            logger.warning("The %s failed: %s", what, type(error).__name__)
            return None

    return judge


def plain_text(text: str) -> str:
    """Return a text without what makes two answers differ that say the same: upper case and blanks."""
    return " ".join(text.split()).casefold()


def _unfenced(text: str) -> str:
    fenced = re.fullmatch(r"\s*```\w*\n(.*?)\n?```\s*", text, re.DOTALL)
    return fenced[1] if fenced else text
