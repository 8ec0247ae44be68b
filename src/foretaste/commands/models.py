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
    """Print the models that have names of their own, and what else can be named."""
    parse(ModelsArguments, arguments, command="models", examples=EXAMPLES)
    from foretaste.models.sources import cache_folder, known

    for source in known():
        print(f"{source.name}\n  {source.description}")
        print(f"  on this machine{f': {source.path}' if source.path else ''}" if source.cached else "  not fetched yet")
    print(
        "\nAlso: a folder (a foretaste checkpoint, or any causal language model that transformers saved), or the\n"
        f"name of one on the Hugging Face hub, such as owner/model. Cache: {cache_folder()}"
    )
