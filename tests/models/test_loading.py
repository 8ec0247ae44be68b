"""Models that cannot be trained as they are: a clear error that names the file, the weights or the setting."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import folder
from tokenizers import AddedToken

from foretaste.config import ModelConfig, SamplingConfig
from foretaste.errors import ModelError
from foretaste.models import checkpoint, nano
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.models.sampler import Next, Sampler
from foretaste.records import Conversation, Message


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in two files of weights, with an index."""
    import transformers

    where = tmp_path_factory.mktemp("sound") / "model"
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder(where, "Llama"))
    (where / "model.safetensors").unlink()
    model.save_pretrained(where, max_shard_size="300KB")
    return where


@pytest.fixture
def model(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def shards(model: Path) -> list[Path]:
    return sorted(model.glob("model-*.safetensors"))


def cut(model: Path) -> str:
    file = shards(model)[0]
    file.write_bytes(file.read_bytes()[:-100])
    return f"{file.name} is damaged or was cut off"


def empty(model: Path) -> str:
    shards(model)[1].write_bytes(b"")
    return f"{shards(model)[1].name} is empty"


def shard_gone(model: Path) -> str:
    gone = shards(model)[-1]
    gone.unlink()
    return f"{gone.name} is missing"


def index_damaged(model: Path) -> str:
    (model / "model.safetensors.index.json").write_text('{"weight_map": {')
    return "model.safetensors.index.json is damaged"


def pickle_cut(model: Path) -> str:
    for file in model.glob("model*"):
        file.unlink()
    torch.save({"a": torch.zeros(3)}, model / "pytorch_model.bin")
    (model / "pytorch_model.bin").write_bytes((model / "pytorch_model.bin").read_bytes()[:-40])
    return "pytorch_model.bin is damaged or was cut off"


def tokenizer_damaged(model: Path) -> str:
    (model / "tokenizer.json").write_text("{")
    return "cannot be loaded"


@pytest.mark.parametrize("damage", [cut, empty, shard_gone, index_damaged, pickle_cut, tokenizer_damaged])
def test_a_damaged_file_is_named(model: Path, damage: Callable[[Path], str]) -> None:
    expected = damage(model)
    with pytest.raises(ModelError) as raised:
        ActorCritic.load(ModelConfig(str(model)))
    assert expected in str(raised.value)
    assert "Next:" in str(raised.value) or "Accepted:" in str(raised.value)


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "bitsandbytes", "mxfp4", "compressed-tensors"])
def test_quantised_weights_are_refused_by_their_method(model: Path, method: str) -> None:
    change(model / "config.json", quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(ModelError, match=f"is quantised .*{method}.*Accepted: weights of float32"):
        ActorCritic.load(ModelConfig(str(model)))


def rewrite(model: Path, turn: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the weights and write them into one file."""
    from safetensors.torch import load_file, save_file

    weights = {name: value for file in shards(model) for name, value in load_file(file).items()}
    for file in (*shards(model), model / "model.safetensors.index.json"):
        file.unlink()
    turn(weights)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


LAYER = "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (lambda weights: weights.pop("lm_head.weight"), "are missing in its files: lm_head.weight"),
        (lambda weights: weights.pop(f"{LAYER}.weight"), f"are missing in its files: {LAYER}.weight"),
        (lambda weights: weights.update({f"{LAYER}.bias": torch.ones(64)}), f"have no place .*: {LAYER}.bias"),
        (lambda weights: weights.update({f"{LAYER}.weight": torch.ones(8, 8)}), f"have another shape: {LAYER}.weight"),
    ],
    ids=["output layer", "layer", "bias", "shape"],
)
def test_weights_that_do_not_fit_are_named(model: Path, turn: Callable[[Any], None], expected: str) -> None:
    rewrite(model, turn)
    with pytest.raises(ModelError, match=rf"is incomplete: weights {expected}.*Next: "):
        ActorCritic.load(ModelConfig(str(model)))


def test_a_head_beside_the_model_and_tables_of_old_files_are_no_fault(model: Path) -> None:
    more = {"v_head.summary.weight": torch.ones(1, 64), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    rewrite(model, lambda weights: weights.update(more))
    assert ActorCritic.load(ModelConfig(str(model)))


def longer(model: Path, template: str = nano.CHAT_TEMPLATE) -> None:
    """Add a token to the tokenizer and not to the model."""
    tokenizer = nano.tokenizer()
    tokenizer.add_tokens([AddedToken("<eot>", special=True, normalized=False)])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(model)


def test_a_template_with_a_token_that_has_no_embedding_is_refused(model: Path) -> None:
    longer(model, nano.CHAT_TEMPLATE.replace("<|end|>", "<eot>"))
    with pytest.raises(ModelError, match=r"no embedding for: '<eot>'.*1,024 rows.*resize_token_embeddings"):
        ActorCritic.load(ModelConfig(str(model)))


def test_a_token_without_embedding_that_does_not_come_up_is_no_fault(model: Path) -> None:
    """Published tokenizers have such tokens: that of images in a model of text alone."""
    longer(model)
    loaded = ActorCritic.load(ModelConfig(str(model)))
    sampler = Sampler(loaded, SamplingConfig(max_new_tokens=2))
    assert len(sampler.act([Conversation("0", [Message("user", "hi")])])[0].tokens) > 0
    prompt, plain = Conversation("1", []), Conversation("2", [])
    prompt.tokens, plain.tokens = [5, 6, 1024], [5, 6]
    with pytest.raises(ModelError, match="no embedding for"):
        sampler.act([prompt])
    with pytest.raises(ModelError, match="no embedding for"):
        sampler.run(iter([plain]), lambda *_: Next([1024]))
    with pytest.raises(ModelError, match="no embedding for"):
        loaded.evaluate([TokenSequence([5, 1024, 7], [False, False, True])])


def test_models_made_in_threads_are_those_made_alone() -> None:
    def drawn(seed: int) -> float:
        model = ActorCritic.load(ModelConfig("nano-xs"), seed=seed)
        return float(sum(parameter.detach().double().abs().sum() for parameter in model.parameters()))

    alone = [drawn(seed) for seed in range(4)]
    found: dict[int, float] = {}
    threads = [threading.Thread(target=lambda s=seed: found.update({s: drawn(s)})) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(4)] == alone


OLD_NAMES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}}, {"rope_theta": 1e5}),
    "llama, scaled": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 2e4}},
        {"rope_theta": 2e4, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    ),
    "neox": (
        "GPTNeoX",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 3e4, "partial_rotary_factor": 0.5}},
        {"rotary_emb_base": 3e4, "rotary_pct": 0.5},
    ),
    "gemma3": (
        "Gemma3Text",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
            }
        },
        {"rope_theta": 1e6, "rope_local_base_freq": 5e3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
}


@pytest.mark.parametrize("shape", OLD_NAMES)
def test_what_is_saved_has_the_names_that_older_programs_read(shape: str, tmp_path: Path) -> None:
    kind, settings, expected = OLD_NAMES[shape]
    model = ActorCritic.load(ModelConfig(folder(tmp_path / "model", kind, **settings), dtype="float32"))
    saved = Path(checkpoint.save(model, tmp_path / "saved").path)
    written = json.loads((saved / "config.json").read_text())
    assert {name: written.get(name) for name in expected} == expected
    assert written["torch_dtype"] == written["dtype"] == "float32"
    again = checkpoint.load(saved)
    assert again.language_model.config.rope_parameters == model.language_model.config.rope_parameters
    sequences = [TokenSequence(list(range(30, 60)), [False] * 20 + [True] * 10)]
    assert torch.equal(again.evaluate(sequences).logprobs_N, model.evaluate(sequences).logprobs_N)


def test_the_saved_tokenizer_names_a_class_of_both_versions(tmp_path: Path) -> None:
    model = ActorCritic.load(ModelConfig("nano-xs"))
    saved = Path(checkpoint.save(model, tmp_path / "saved").path)
    written = json.loads((saved / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert written["additional_special_tokens"] == ["<|system|>", "<|user|>", "<|assistant|>"]
    assert "extra_special_tokens" not in written
    again = checkpoint.load(saved)
    assert again.tokenizer.all_special_tokens == model.tokenizer.all_special_tokens
    assert again.template.end_ids == model.template.end_ids
