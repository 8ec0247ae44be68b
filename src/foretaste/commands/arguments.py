"""Command-line arguments from a dataclass, by tyro, with this project's help text and errors."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

from foretaste.errors import ConfigError, unknown

Arguments = TypeVar("Arguments")


def parse(
    kind: type[Arguments],
    arguments: Sequence[str],
    *,
    command: str,
    examples: str,
    default: Arguments | None = None,
) -> Arguments:
    """Read `arguments` into the dataclass `kind`, whose fields and docstrings become flags and help.

    `--help` prints the docstring and the examples, then exits. A value of the wrong type is
    explained by tyro, exit code 2.
    Raises: ConfigError for a flag or an argument that the command does not have.
    """
    values, rest = tyro.cli(
        kind,
        prog=f"foretaste {command}",
        description=f"{inspect.cleandoc(kind.__doc__ or '')}\n\nExamples:\n{examples}",
        args=list(arguments),
        default=tyro.MISSING_NONPROP if default is None else default,
        return_unknown_args=True,
        config=(tyro.conf.HelptextFromCommentsOff, tyro.conf.FlagCreatePairsOff),
    )
    if rest:
        wrong = next((item for item in rest if item.startswith("-")), rest[0])
        if wrong.startswith("-"):
            flags = [*flag_names(kind), "--help"]
            raise ConfigError(unknown("flag", wrong.partition("=")[0], flags, see=f"foretaste {command} --help"))
        raise ConfigError(f"Unexpected argument {wrong!r}. See: foretaste {command} --help")
    return values


def flag_names(kind: type, prefix: str = "") -> Iterator[str]:
    """Yield the flags of a dataclass, nested ones with their path: --env.id.

    A field annotated with an empty name (`tyro.conf.arg(name="")`) adds nothing to the path.
    """
    hints: dict[str, Any] = typing.get_type_hints(kind, include_extras=True)
    for name, hint in hints.items():
        extras = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
        bare = typing.get_args(hint)[0] if extras else hint
        if dataclasses.is_dataclass(bare):
            unnamed = any(getattr(extra, "name", None) == "" for extra in extras)
            yield from flag_names(typing.cast(type, bare), prefix if unnamed else f"{prefix}{name}.")
        elif tyro.conf.Positional not in extras:
            yield f"--{prefix}{name.replace('_', '-')}"
