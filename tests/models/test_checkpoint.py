from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from conftest import make_nano
from transformers import AutoModelForCausalLM, AutoTokenizer

from foretaste.config import ModelConfig
from foretaste.errors import ModelError
from foretaste.models import checkpoint
from foretaste.models.actor_critic import ActorCritic, TokenSequence

SEQUENCES = [TokenSequence(list(range(30, 60)), [False] * 20 + [True] * 10)]


def test_a_checkpoint_brings_back_policy_and_critic(nano: ActorCritic, tmp_path: Path) -> None:
    saved = checkpoint.save(nano, tmp_path / "a", parents=("p",), run="r", step=3)
    loaded = checkpoint.load(saved.path)
    assert loaded.critic_restored
    assert loaded.source == "nano"
    before, after = nano.evaluate(SEQUENCES), loaded.evaluate(SEQUENCES)
    assert torch.equal(before.logprobs_N, after.logprobs_N)
    assert torch.equal(before.values_N, after.values_N)
    assert checkpoint.read(saved.path) == saved
    assert saved.parents == ("p",)
    again = checkpoint.save(loaded, tmp_path / "b")
    assert again.id == saved.id
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_critic_that_has_learned_keeps_its_values_and_a_new_one_starts_at_the_mean(tmp_path: Path) -> None:
    model = ActorCritic.load(ModelConfig("nano", critic_layers=2))
    never = checkpoint.load(checkpoint.save(model, tmp_path / "a").path)  # as a run without a critic saves it
    never.start_values(0.2)
    torch.testing.assert_close(never.evaluate(SEQUENCES).values_N, torch.full((10,), 0.2), atol=0.05, rtol=0)
    with torch.no_grad():
        never.critic.head.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    learned = checkpoint.load(checkpoint.save(never, tmp_path / "b").path)
    before = learned.evaluate(SEQUENCES).values_N
    for critic in (never, learned):
        critic.start_values(0.9)
        assert torch.equal(critic.evaluate(SEQUENCES).values_N, before)


def test_transformers_loads_the_folder(tower: ActorCritic, tmp_path: Path) -> None:
    folder = checkpoint.save(tower, tmp_path / "a").path
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([[9, 8, 7]])
    assert torch.equal(model(ids).logits, tower.policy(ids).logits)
    messages = [{"role": "user", "content": "go north 12"}]
    ours = tower.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True) == ours


def test_any_changed_weight_changes_the_id(tower: ActorCritic, tmp_path: Path) -> None:
    ids = {checkpoint.save(tower, tmp_path / "a").id}
    for parameter in (tower.policy_parameters()[3], tower.critic_parameters()[3]):
        with torch.no_grad():
            parameter.view(-1)[0] += 1e-3
        ids.add(checkpoint.save(tower, tmp_path / "a").id)
    assert len(ids) == 3


def test_a_critic_of_another_shape_starts_fresh(tower: ActorCritic, tmp_path: Path) -> None:
    folder = checkpoint.save(tower, tmp_path / "a").path
    assert ActorCritic.load(ModelConfig(name=folder, critic_layers=2)).critic_restored
    fresh = ActorCritic.load(ModelConfig(name=folder, critic_layers=1))
    assert not fresh.critic_restored
    torch.testing.assert_close(fresh.evaluate(SEQUENCES).logprobs_N, tower.evaluate(SEQUENCES).logprobs_N)


def test_lora_is_merged_into_the_saved_policy(tmp_path: Path) -> None:
    model = make_nano(critic_layers=2, lora_rank=4)
    with torch.no_grad():
        for parameter in model.policy_parameters():
            parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    folder = checkpoint.save(model, tmp_path / "a").path
    plain = ActorCritic.load(ModelConfig(name=folder, critic_layers=2))
    torch.testing.assert_close(
        plain.evaluate(SEQUENCES).logprobs_N, model.evaluate(SEQUENCES).logprobs_N, atol=1e-4, rtol=0
    )
    assert any("lora" in name for name, _ in model.policy.named_parameters())


def test_a_full_disk_is_named_and_the_older_checkpoint_stays(
    tower: ActorCritic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = checkpoint.save(tower, tmp_path / "a")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(tower.policy), "save_pretrained", full)
    with pytest.raises(ModelError, match="the disk is full"):
        checkpoint.save(tower, tmp_path / "a")
    assert checkpoint.content_id(tmp_path / "a") == saved.id
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_other_folders_are_refused(tower: ActorCritic, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no foretaste checkpoint"):
        checkpoint.load(tmp_path)
    folder = Path(checkpoint.save(tower, tmp_path / "a").path)
    card = json.loads((folder / "foretaste.json").read_text())
    assert card["model"] == "nano"
    (folder / "foretaste.json").write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        checkpoint.load(folder)
