"""What `import foretaste` offers that takes more than one part: train a model, then write its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretaste.config import TrainConfig
from foretaste.errors import RunError
from foretaste.ledger import Ledger
from foretaste.progress import Progress
from foretaste.records import Checkpoint, RunSummary, check_version

if TYPE_CHECKING:
    import gymnasium


def train(
    config: TrainConfig | None = None,
    *,
    env: Callable[[], gymnasium.Env[Any, Any]] | None = None,
    resume: str | None = None,
    progress: Progress | None = None,
    runs_folder: str | None = None,
) -> Checkpoint:
    """Train, write `report.html` and `summary.json` into the run's folder, and return the checkpoint.

    `env` is a class of text environments (a `TextEnv` or any Gymnasium env of text) that takes the
    place of `config.env.id`; `resume` goes on with an interrupted run of `runs_folder` (by default
    the config's) with the settings that it was started with.
    The checkpoint's `path` is a Hugging Face folder, with the critic beside the policy.

    Raises: ConfigError for settings that cannot be used; ModelError, EnvError or RunError when the
    model, the environment or the disk fails. What was saved by then can be resumed.
    """
    from foretaste.rl.train import train as train_loop

    checkpoint = train_loop(config, env=env, resume=resume, progress=progress, runs_folder=runs_folder)
    folder = Path(runs_folder or (config or TrainConfig()).runs_folder)
    if checkpoint.run is not None:
        with Ledger.open(folder, create=False) as ledger:
            write_results(ledger, checkpoint.run, folder / checkpoint.run)
    return checkpoint


def write_results(ledger: Ledger, run: str, folder: Path) -> Path:
    """Write the report and, for a finished run, `summary.json` from the ledger; return the report's path.

    Raises: RunError if the folder cannot be written.
    """
    from foretaste.report.exam_page import write_exam_report
    from foretaste.report.page import write_report, write_summary

    try:
        if ledger.run(run).kind == "exam":
            return write_exam_report(ledger, run, folder)
        folder.mkdir(parents=True, exist_ok=True)
        if ledger.records(run, "summary"):
            write_summary(ledger, run, folder)
        return Path(write_report(ledger, run, folder))
    except OSError as error:
        raise RunError(
            f"The results of {run} cannot be written to {folder}: {error}. Nothing learned is lost; "
            f"make room or choose another folder, then: foretaste report {run}"
        ) from error


def summary_of(ledger: Ledger, run: str) -> RunSummary:
    """Return the summary of a finished run.

    Raises: RunError if the run has not finished.
    """
    records = ledger.records(run, "summary")
    if not records:
        raise RunError(f"The run {run} has no summary: it has not finished. Go on: foretaste train --resume {run}")
    values = dict(records[-1].payload)
    check_version(values)
    values.pop("version", None)
    return RunSummary(**{name: _tuples(value) for name, value in values.items()})


def _tuples(value: Any) -> Any:
    """Return JSON lists as the tuples they were."""
    return tuple(value) if isinstance(value, list) else value
