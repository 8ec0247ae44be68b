"""`foretaste deploy`, `serve` and `audit` at the command line."""

from __future__ import annotations

import sqlite3
import tomllib
from pathlib import Path

import pytest

from foretaste.cli import main
from foretaste.config import from_dict
from foretaste.deploy.settings import DeployConfig, TakeoverConfig, check

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init_writes_a_commented_file_of_the_defaults(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "init"]) == 0
    text = (folder / "deploy.toml").read_text(encoding="utf-8")
    assert text == (ROOT / "examples" / "deploy.toml").read_text(encoding="utf-8")
    config = from_dict(DeployConfig, tomllib.loads(text))
    waits = TakeoverConfig(maturity_seconds=60.0)  # what suits an endpoint that judges; the file says so
    assert config == DeployConfig(takeover=waits)
    check(config)
    commented = "\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines())
    from_dict(DeployConfig, tomllib.loads(commented.split("\n", 8)[8]))  # what is commented out can be used too
    assert main(["deploy", "init"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_person_steers_a_deployment_without_a_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str, code: int = 0) -> str:
        assert main(list(arguments)) == code
        found = capsys.readouterr()
        return found.out if code in (0, 1) else " ".join(found.err.split())

    said("deploy", "init")
    assert "no server runs" in said("deploy", "status")
    assert "share_ceiling = 0.25" in said("deploy", "cap", "share_ceiling", "0.25")
    assert "Did you mean 'tokens_per_day'" in said("deploy", "cap", "tokens_a_day", "5", code=2)
    assert "accepted: true or false" in said("deploy", "cap", "may_serve", "perhaps", code=2)
    made = said("deploy", "key", "create", "ada").split()
    assert made[-1].startswith("ft-")
    assert made[-1] not in said("deploy", "key", "list")
    assert "revoked" in said("deploy", "key", "revoke", made[2])
    assert "Unknown scope 'root'" in said("deploy", "key", "create", "eve", "--scope", "root", code=2)
    assert "held" in said("deploy", "hold")
    assert "no checkpoint to promote" in said("deploy", "promote", code=2)
    assert "no foretaste checkpoint" in said("deploy", "try", ".", code=2)
    assert "KILL" in said("deploy", "kill")
    assert (folder / "KILL").exists()
    assert "KILLED" in said("deploy", "status")
    said("deploy", "kill", "--lift")
    assert not (folder / "KILL").exists()
    assert "Did you mean 'deploy promote'" in said("deploy", "promot", code=2)
    assert "No deployment at" in said("serve", "elsewhere.toml", code=2)
    head = said("audit", "head").strip()
    assert "intact" in said("audit", "verify", "--head", head)
    with sqlite3.connect(folder / "deployment" / "deploy.sqlite") as direct:
        direct.execute("UPDATE deploy_events SET actor = 'person:nobody' WHERE seq = 2")
    direct.close()
    assert "entry 2 (cap by person:nobody" in said("audit", "verify", code=1)


def test_the_kill_needs_neither_a_store_nor_valid_settings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "deploy.toml").write_text('[store]\nurl = "gone"\n[servr]\n', encoding="utf-8")
    assert main(["deploy", "kill"]) != 0  # it cannot be recorded ...
    assert (folder / "KILL").exists()  # ... and works all the same
    assert "the file KILL is there" in capsys.readouterr().out


def test_unknown_settings_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "deploy.toml").write_text("[incumbent]\nmodle = 'x'\n", encoding="utf-8")
    assert main(["deploy", "status"]) == 2
    assert "Did you mean 'model'" in capsys.readouterr().err
