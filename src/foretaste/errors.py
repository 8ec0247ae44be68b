"""The errors a user can meet, and how their messages are built.

Every message says what was wrong, what was received, what is accepted and the next step.
Code raises these at the boundary that failed; `cli.py` prints them without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ForetasteError(Exception):
    """Base of every error that a user can cause or repair."""

    exit_code = 2
    """What the command line returns; commands whose 2 means something else set another."""


class ConfigError(ForetasteError):
    """A recipe, flag or argument that cannot be used."""


class EnvError(ForetasteError):
    """An environment that breaks its contract, or cannot be found."""


class ModelError(ForetasteError):
    """A model, tokenizer or checkpoint that cannot be found, loaded or used."""


class RunError(ForetasteError):
    """A run that cannot start, continue or be written."""


class LedgerError(ForetasteError):
    """A ledger that cannot be opened, is locked, or was tampered with."""


class DeployError(ForetasteError):
    """A deployment whose store cannot be used, whose log was tampered with, or that refuses a change."""


class Terminated(KeyboardInterrupt):
    """The process was told to end by a signal other than Ctrl-C; handled wherever an interruption is."""

    def __init__(self, number: int, said: str = "") -> None:
        super().__init__(said)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What shells expect of a process that a signal ended."""
        return 128 + self.number


def interrupted(error: KeyboardInterrupt, said: str) -> KeyboardInterrupt:
    """Return the same kind of interruption with the next step in words."""
    return Terminated(error.number, said) if isinstance(error, Terminated) else KeyboardInterrupt(said)


def unknown(kind: str, received: str, accepted: Iterable[str], *, see: str = "") -> str:
    """Return "Unknown env 'maez'. Did you mean 'maze'? ..." for a name that is not in `accepted`.

    `see` names where the full list is found; without it the list itself is printed.
    """
    names = sorted(accepted)
    close = difflib.get_close_matches(received, names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown {kind} {received!r}.{hint} All: {see or ', '.join(names) or 'none'}"
