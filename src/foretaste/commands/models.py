"""`foretaste models`: what is cached on this machine, and what can be named."""

from __future__ import annotations

from dataclasses import dataclass

from foretaste.commands.arguments import parse

EXAMPLES = """\
  foretaste models
  FORETASTE_CACHE=/data/models foretaste models"""


@dataclass(frozen=True)
class ModelsArguments:
    """List the models that can be named in `--model`, and which of them are on this machine."""


def run(arguments: list[str]) -> None:
    """Print the models."""
    parse(ModelsArguments, arguments, command="models", examples=EXAMPLES)
