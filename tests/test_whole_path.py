"""From one call to a checkpoint that transformers loads and a report: command line, README and examples."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

import foretaste
from foretaste.cli import main
from foretaste.envs.check import check_env
from foretaste.ledger import Ledger
from foretaste.models import nano

ROOT = Path(__file__).parents[1]
TINY: dict[str, Any] = {
    "model": foretaste.ModelConfig(name="nano"),
    "sampling": foretaste.SamplingConfig(max_new_tokens=4),
    "algorithm": foretaste.AlgorithmConfig(value_pretraining_episodes=6, value_pretraining_passes=1),
    "held_out": foretaste.HeldOutConfig(items=6),
    "steps": 1,
    "episodes_per_step": 6,
}


@pytest.fixture(autouse=True)
def small_nano(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nano of half the width: what it learns is of no matter here."""
    monkeypatch.setitem(nano.SHAPES, "nano", nano.SHAPES["nano"]._replace(width=64, inner=160))


def run_files(runs_folder: Path) -> tuple[str, Path]:
    """Return the id and folder of the only run."""
    with Ledger.open(runs_folder, create=False) as ledger:
        (run,) = ledger.runs("train")
    return run.id, runs_folder / run.id


def test_train_prints_the_table_and_leaves_report_and_summary_that_report_rebuilds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--env guess --model nano --steps 1 --episodes-per-step 6 --held-out.items 6 --sampling.max-new-tokens 4"
    more = f"--env.examples 0 --algorithm.value-pretraining-episodes 6 --runs-folder {tmp_path}"
    assert main(["train", *flags.split(), *more.split()]) == 0
    output = capsys.readouterr().out
    run, folder = run_files(tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["n_items"] == 6
    assert {"success_before", "success_after", "success_before_interval", "success_after_interval"} <= set(summary)
    assert summary["episodes"] >= 6
    assert "6 fresh held-out items" in output
    assert f"{summary['sampled_tokens']:,}" in output
    assert str(folder / "report.html") in output
    assert "<html" in (folder / "report.html").read_text()[:2000]

    (folder / "summary.json").unlink()
    (folder / "report.html").unlink()
    assert main(["report", run, "--runs-folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize("page", ["README.md", "docs/your-own.md"])
def test_an_environment_shown_in_the_documentation_is_sound_trains_and_can_be_loaded(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(code) == 1
    whole = foretaste.TrainConfig
    settings = {**TINY, "runs_folder": str(tmp_path)}
    monkeypatch.setattr(foretaste, "TrainConfig", lambda **given: whole(**{**settings, **given}))
    names: dict[str, Any] = {"__name__": "readme"}
    exec(code[0], names)
    (shown,) = [one for one in names.values() if isinstance(one, type) and issubclass(one, foretaste.TextEnv)]
    assert check_env(shown) == []
    assert names["checkpoint"].run == run_files(tmp_path)[0]
    loaded = names.get("model") or AutoModelForCausalLM.from_pretrained(names["checkpoint"].path)
    assert loaded.num_parameters() > 0


def run_example(example: Path, tmp_path: Path):
    """Import an example by its path and return what its `main` returns."""
    specification = importlib.util.spec_from_file_location(example.stem, example)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.main(str(tmp_path))


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
EXAMS = [file for file in EXAMPLES if "exam" in file.stem]


@pytest.mark.parametrize("example", [file for file in EXAMPLES if file not in EXAMS], ids=lambda file: file.stem)
def test_an_example_runs_and_returns_a_checkpoint(example: Path, tmp_path: Path) -> None:
    checkpoint = run_example(example, tmp_path)
    assert (Path(checkpoint.path) / "critic.safetensors").is_file()
    assert (run_files(tmp_path)[1] / "report.html").is_file()


@pytest.mark.parametrize("example", EXAMS, ids=lambda file: file.stem)
def test_an_example_exam_ends_with_a_verdict_on_every_item(example: Path, tmp_path: Path) -> None:
    sitting = run_example(example, tmp_path)
    assert sitting.verdict.sentence()
    assert sum(sitting.results["failures"].values()) > 0
