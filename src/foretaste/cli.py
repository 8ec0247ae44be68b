"""The command `foretaste`: find the subcommand, call one function, print errors as one message.

A subcommand is a row of `COMMANDS`; its module under `commands/` is imported only when it is
called, and imports what is heavy (torch, environments) only when it has something to do. So every
`--help` is instant. To add one, write `commands/<name>.py` with `run(arguments)` and add a row.
"""

from __future__ import annotations

import importlib
import io
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from foretaste.errors import ForetasteError, Terminated, unknown
from foretaste.stopping import terminable


class Command(NamedTuple):
    """One subcommand: where its `run(arguments) -> exit code or None` lives, and one line of help."""

    module: str
    help: str
    function: str = "run"
    own_signals: bool = False
    """Whether it handles SIGTERM and SIGHUP itself."""


COMMANDS: dict[str, Command] = {
    "envs": Command("foretaste.commands.envs", "list the environments with a sample each; check your own"),
    "train": Command("foretaste.commands.train", "train a model on an environment, from a recipe or from flags"),
    "exam": Command("foretaste.commands.exam", "examine a policy on sealed items, with a verdict; compare two"),
    "serve": Command(
        "foretaste.commands.serve", "serve a learner beside an incumbent, OpenAI-compatible", own_signals=True
    ),
    "deploy": Command("foretaste.commands.deploy", "set up and steer a deployment: stages, kill switch, keys, caps"),
    "audit": Command("foretaste.commands.audit", "verify and show a deployment's audit log"),
    "report": Command("foretaste.commands.report", "write a run's report.html anew from the ledger"),
    "runs": Command("foretaste.commands.runs", "list the runs of a ledger"),
    "lab": Command("foretaste.commands.lab", "run studies: a claim in, a verdict out; sweeps and laws of scale"),
    "doctor": Command("foretaste.commands.doctor", "bug or dead end? probe the trainer; advise a way of learning"),
    "think": Command("foretaste.commands.think", "spend more tokens an item and let the value function choose"),
    "models": Command("foretaste.commands.models", "list the models that are cached and that can be named"),
}

EXAMPLES = """\
  foretaste envs                          what can be learned
  foretaste train recipes/quick.toml      half a minute: a tiny model on a short game
  foretaste train --env maze --model nano --steps 20
  foretaste train --resume latest         go on with an interrupted run
  foretaste report --open                 look at the latest run"""

OK, FAILED, INTERRUPTED = 0, 1, 130
"""Exit codes: done; a check found faults; Ctrl-C. Errors carry their own (`ForetasteError.exit_code`)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    `--debug`, anywhere, shows the traceback of an error.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    _write_whatever_it_takes()
    try:
        return _dispatch(given)
    except ForetasteError as error:
        if debug:
            traceback.print_exc()
        _print_error(str(error))
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        if debug:
            traceback.print_exc()
        print(f"\nInterrupted. {interrupt}".rstrip(), file=sys.stderr)
        return interrupt.exit_code if isinstance(interrupt, Terminated) else INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe (`foretaste envs | head`) has seen enough
        sys.stderr.close()
        return OK


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        print(help_text())
        return OK
    if given[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(version("foretaste"))
        return OK
    name, rest = given[0], given[1:]
    if name not in COMMANDS:
        raise ForetasteError(unknown("flag" if name.startswith("-") else "command", name, COMMANDS))
    command = COMMANDS[name]
    run = getattr(importlib.import_module(command.module), command.function)
    if command.own_signals:
        return run(rest) or OK
    with terminable():
        return run(rest) or OK


def help_text() -> str:
    """Return what `foretaste --help` prints."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items())
    return (
        "usage: foretaste COMMAND [OPTIONS]\n\n"
        "Train language-model agents that know early whether they are going wrong.\n\n"
        f"commands:\n{rows}\n\n"
        f"examples:\n{EXAMPLES}\n\n"
        "foretaste COMMAND --help shows the options of a command; --debug shows tracebacks; --version the version."
    )


def _write_whatever_it_takes() -> None:
    """Let a terminal or pipe that cannot show a letter show "?" in its place, rather than end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _print_error(message: str) -> None:
    """Print "Error: message" to stderr; rich is imported only now, since most runs have no error."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, highlight=False)
    console.print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
