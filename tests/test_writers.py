"""Metric writers: TensorBoard for real, and what is said where a package is missing."""

import sys
import warnings
from pathlib import Path

import pytest

from foretaste.errors import ConfigError
from foretaste.writers import open_writers


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read TensorBoard's event files back, as its own pages do."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        name: [(event.step, event.value) for event in accumulator.Scalars(name)]
        for name in accumulator.Tags()["scalars"]
    }


def test_tensorboard_reads_back_what_was_written(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # raised inside TensorBoard itself
        (writer,) = open_writers(["tensorboard"], tmp_path)
        writer.write(1, {"train/success": 0.25, "value/loss": 0.5})
        writer.write(2, {"train/success": 0.5})
        writer.close()
        assert scalars(tmp_path / "tensorboard") == {"train/success": [(1, 0.25), (2, 0.5)], "value/loss": [(1, 0.5)]}


def test_a_resumed_run_hides_the_steps_of_the_abandoned_attempt(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for steps, value in (((1, 2, 3), 0.25), ((2, 3), 0.5)):
            (writer,) = open_writers(["tensorboard"], tmp_path)
            for step in steps:
                writer.write(step, {"train/success": value})
            writer.close()
        assert scalars(tmp_path / "tensorboard")["train/success"] == [(1, 0.25), (2, 0.5), (3, 0.5)]


def test_no_writer_is_the_usual_case(tmp_path: Path) -> None:
    assert open_writers([], tmp_path) == []


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module = "torch.utils.tensorboard" if name == "tensorboard" else name
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"'{name}' needs the package .* pip install 'foretaste\[{name}\]'"):
        open_writers([name], tmp_path)


def test_an_unknown_writer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown writer 'tensorbord'\. Did you mean 'tensorboard'\?"):
        open_writers(["tensorbord"], tmp_path)
