"""A checkpoint leaves the shadow only with the sealed exam's PASS, which is the real `foretaste exam`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from deploy_helpers import wait_for

from foretaste.deploy import examination
from foretaste.deploy.analysis import Finding, Verdict
from foretaste.deploy.examination import Examination
from foretaste.deploy.settings import ExamConfig
from foretaste.deploy.stages import Decision, Stage
from foretaste.errors import ConfigError

PAPER = 'name = "tiny"\nthreshold = 0.5\nlooks = 2\n\n[[families]]\nenv = "route"\nitems = 30\nregisters = ["plain"]\n'


def sat(exam: Examination, checkpoint: str, path: str) -> Finding:
    def ended() -> Finding | None:
        found = exam.finding(checkpoint, path)
        if "is being sat" not in found.reason:
            return found
        assert found.verdict is Verdict.INCONCLUSIVE
        return None

    return wait_for(ended, 60)


@pytest.fixture
def exam(tmp_path: Path) -> Examination:
    (tmp_path / "tiny.toml").write_text(PAPER, encoding="utf-8")
    made = Examination.of(ExamConfig(paper="tiny.toml"), tmp_path, tmp_path / "deployment")
    assert made is not None
    return made


def test_a_promotion_waits_for_a_pass_and_each_checkpoint_sits_once(exam: Examination, tmp_path: Path) -> None:
    shadow = Stage("shadow", "c1")
    promote = Decision("promote", "all is well", Stage("canary", "c1", 0.1))
    waiting = exam.held_against(promote, shadow, "oracle")
    assert (waiting.kind, waiting.stage) == ("inconclusive", shadow)
    assert sat(exam, "c1", "oracle").verdict is Verdict.SUCCESS
    passed = exam.held_against(promote, shadow, "oracle")
    assert (passed.kind, passed.stage) == ("promote", promote.stage)
    assert "PASS" in passed.reason
    again = Examination.of(ExamConfig(paper="tiny.toml"), tmp_path, tmp_path / "deployment")  # the server was restarted
    assert again is not None
    assert again.finding("c1", "nothing that could sit").verdict is Verdict.SUCCESS
    kept = json.loads((tmp_path / "deployment" / "exams" / "verdicts.json").read_text())
    assert list(kept) == ["c1"]


def test_only_leaving_the_shadow_is_examined(exam: Examination) -> None:
    onwards = Decision("promote", "well", Stage("canary", "c1", 0.5, step=1))
    assert exam.held_against(onwards, Stage("canary", "c1", 0.1), "oracle") is onwards
    hold = Decision("hold", "too early", Stage("shadow", "c1"))
    assert exam.held_against(hold, Stage("shadow", "c1"), "oracle") is hold
    assert exam.finding("c1", "oracle").reason == "tiny is being sat"  # nobody had sat until now
    exam.close()


def test_what_cannot_be_sat_is_said_and_tried_again_after_a_restart(
    exam: Examination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = "import sys; sys.exit(print('Error: no model', sys.argv[4], file=sys.stderr) or 3)"
    monkeypatch.setattr(examination, "FORETASTE", (sys.executable, "-c", refuses))
    found = sat(exam, "c2", "no-such-model")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason == "it could not be sat (exit code 3): Error: no model no-such-model"
    assert not (tmp_path / "deployment" / "exams" / "verdicts.json").exists()


def test_a_stopped_sitting_is_no_verdict_and_may_be_sat_again(
    exam: Examination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "FORETASTE", (sys.executable, "-c", "import time; time.sleep(60)"))
    assert exam.finding("c3", "x").reason == "tiny is being sat"
    exam.stop()
    monkeypatch.setattr(examination, "FORETASTE", (sys.executable, "-c", "import sys; sys.exit(1)"))
    assert sat(exam, "c3", "x").verdict is Verdict.FAILURE


def test_a_paper_that_is_none_is_refused_at_the_start(tmp_path: Path) -> None:
    assert Examination.of(ExamConfig(), tmp_path, tmp_path) is None
    with pytest.raises(ConfigError, match="no-such-paper"):
        Examination.of(ExamConfig(paper="no-such-paper"), tmp_path, tmp_path)
