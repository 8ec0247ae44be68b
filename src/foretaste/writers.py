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

    def __init__(self, folder: Path, *, from_step: int = 0) -> None:
        """`from_step`: on a resumed run, TensorBoard hides the events of later steps of the earlier attempt."""
        board = _import("torch.utils.tensorboard", writer="tensorboard")
        self._writer = board.SummaryWriter(str(folder / "tensorboard"), purge_step=from_step + 1 if from_step else None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class BoardWriter:
    """Weights & Biases or trackio: both have `init`, `log` and `finish`."""

    def __init__(self, package: str, *, run: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Start or go on with the board's run of the same name. Logging in is the package's own matter."""
        self._board = _import(package, writer=package)
        settings: dict[str, Any] = {"project": PROJECT, "name": run, "config": dict(config), "resume": "allow"}
        if package == "wandb":
            settings |= {"id": run, "dir": str(folder)}
        self._board.init(**settings)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._board.log(dict(values), step=step)

    def close(self) -> None:
        self._board.finish()


class AllWriters:
    """Several writers as one; none at all is the usual case."""

    def __init__(self, writers: Sequence[MetricWriter]) -> None:
        self.writers = list(writers)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for writer in self.writers:
            writer.write(step, values)

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


def open_writers(
    names: Sequence[str], *, run: str, folder: str | Path, config: Mapping[str, Any], from_step: int = 0
) -> AllWriters:
    """Open the named writers for a run whose files lie in `folder`; `from_step` is where it resumes.

    Raises: ConfigError for a name that is no writer, or whose package is not installed.
    """
    for name in names:
        if name not in PACKAGES:
            raise ConfigError(unknown("writer", name, PACKAGES))
    return AllWriters(
        [
            TensorBoardWriter(Path(folder), from_step=from_step)
            if name == "tensorboard"
            else BoardWriter(name, run=run, folder=Path(folder), config=config)
            for name in dict.fromkeys(names)
        ]
    )


def _import(module: str, *, writer: str) -> Any:
    """Import a writer's module, or raise ConfigError that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"The writer {writer!r} needs the package {PACKAGES[writer]!r}, which cannot be imported ({error}). "
            f"Install it with: pip install 'foretaste[{writer}]', or leave {writer!r} out of `writers`"
        ) from error
