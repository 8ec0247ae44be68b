"""Optional copies of a run's metrics in TensorBoard, Weights & Biases or trackio.

The ledger always has the metrics; these writers are for people who already watch such a board.
Each package is imported only when a recipe names it. Metric names: docs/metrics.md.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from foretaste.errors import ConfigError, unknown

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}
"""Each writer, and the package that it needs."""

PROJECT = "foretaste"
"""Project under which the hosted boards group runs."""


class MetricWriter(Protocol):
    """Takes the metrics of a run, step by step."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the metrics of one step."""
        ...

    def close(self) -> None:
        """Write what is pending; the writer is not used afterwards."""
        ...


class TensorBoardWriter:
    """Event files in `<folder>/tensorboard`; show them with `tensorboard --logdir <folder>`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._board = _import("torch.utils.tensorboard", writer="tensorboard")
        self._writer: Any = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one step; a resumed run's first step hides what an abandoned attempt wrote from there on."""
        if self._writer is None:
            self._writer = self._board.SummaryWriter(str(self._folder), purge_step=step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class BoardWriter:
    """Weights & Biases or trackio: both have `init`, `log` and `finish`."""

    def __init__(self, package: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Start, or go on with, the board's run of the folder's name. Logging in is the package's own matter."""
        self._board = _import(package, writer=package)
        settings: dict[str, Any] = {"project": PROJECT, "name": folder.name, "config": dict(config), "resume": "allow"}
        if package == "wandb":
            settings |= {"id": folder.name, "dir": str(folder)}
        self._board.init(**settings)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._board.log(dict(values), step=step)

    def close(self) -> None:
        self._board.finish()


def open_writers(
    names: Sequence[str], folder: str | Path, *, config: Mapping[str, Any] | None = None
) -> list[MetricWriter]:
    """Open the named writers for the run whose files lie in `folder`, which is named after the run.

    Raises: ConfigError for a name that is no writer, or whose package is not installed.
    """
    for name in names:
        if name not in PACKAGES:
            raise ConfigError(unknown("writer", name, PACKAGES))
    return [
        TensorBoardWriter(Path(folder)) if name == "tensorboard" else BoardWriter(name, Path(folder), config or {})
        for name in dict.fromkeys(names)
    ]


def _import(module: str, *, writer: str) -> Any:
    """Import a writer's module, or raise ConfigError that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"The writer {writer!r} needs the package {PACKAGES[writer]!r}, which cannot be imported ({error}). "
            f"Install it with: pip install 'foretaste[{writer}]', or leave {writer!r} out of `writers`"
        ) from error
