"""Arguments in an environment's id: `lock?horizon=80&visibility=at+once` -> Lock(horizon=80, visibility="at once").

So a recipe, a study and the ledger name an environment completely by one string. Text becomes the type that the
constructor's annotation names; a blank is written `+` or `%20`, as in a web address.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl

from foretaste.errors import ConfigError, unknown

_WORDS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


def split_id(id: str) -> tuple[str, dict[str, str]]:
    """Return the id without its arguments, and the arguments as text.

    A dataset whose file name has a question mark is found as it is.
    Raises: ConfigError for arguments that are not `name=value`, or given twice.
    """
    name, mark, query = id.partition("?")
    if not mark or (id.startswith("dataset:") and Path(id.removeprefix("dataset:")).is_file()):
        return id, {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError as error:
        raise ConfigError(
            f"The arguments of env {id!r} cannot be read: {error}. Accepted: {name}?argument=value&other=value"
        ) from error
    twice = [key for key, _ in pairs if [other for other, _ in pairs].count(key) > 1]
    if twice:
        raise ConfigError(f"The env {id!r} gives {twice[0]!r} twice; give each argument once")
    return name, dict(pairs)


def arguments_of(
    create: Callable[..., Any], given: dict[str, str], title: str, *, taken: Sequence[str] = ("level",)
) -> dict[str, Any]:
    """Return `given` as values of the types that the constructor's annotations name.

    `taken` are arguments that come from elsewhere (`env.level`).
    Raises: ConfigError for an argument that the constructor does not have or a value of the wrong type.
    """
    if not given:
        return {}
    try:
        signature = inspect.signature(create)
        hints = typing.get_type_hints(create.__init__ if inspect.isclass(create) else create)
    except (TypeError, ValueError, NameError) as error:
        raise ConfigError(f"The arguments of env {title!r} cannot be told: {error}") from error
    simple = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [name for name, one in signature.parameters.items() if one.kind in simple and name not in taken]
    for name in given:
        if name in taken and name == "level":
            raise ConfigError(f"The level of env {title!r} is no argument of its id; set env.level")
        if name not in names:
            raise ConfigError(unknown(f"argument of env {title!r}:", name, names))
    return {name: _value(text, hints.get(name, str), f"{title}?{name}") for name, text in given.items()}


def _value(text: str, hint: Any, where: str) -> Any:
    """Return `text` as the annotated type; the first member of a union that accepts it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        kinds = [kind for kind in inner if kind is not type(None)]
        for kind in kinds[:-1]:
            try:
                return _value(text, kind, where)
            except ConfigError:
                continue
        return _value(text, kinds[-1], where)
    if origin is Literal:
        found = next((choice for choice in inner if str(choice) == text), None)
        if found is None:
            raise ConfigError(unknown(f"value of {where} =", text, map(str, inner)))
        return found
    try:
        if hint is bool:
            return _WORDS[text.lower()]
        if hint in (int, float):
            return hint(text)
    except (KeyError, ValueError) as error:
        accepted = {bool: "true or false", int: "a whole number", float: "a number"}[hint]
        raise ConfigError(f"{where} = {text!r} cannot be used; accepted: {accepted}") from error
    if hint in (str, Any):
        return text
    raise ConfigError(
        f"{where} takes {getattr(hint, '__name__', hint)}, which an id cannot carry; accepted in an id: text, "
        "numbers, true or false, and named choices"
    )
