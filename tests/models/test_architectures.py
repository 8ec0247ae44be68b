"""What is sampled is what is trained, for every architecture that loads; what cannot be is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from architectures import folder
from model_helpers import play

from foretaste.config import ModelConfig, SamplingConfig
from foretaste.errors import ModelError
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.models.pretrained import probe
from foretaste.models.sampler import Next, Sampler
from foretaste.records import Action, Conversation

WINDOW = {"sliding_window": 12}
MLA: dict[str, Any] = {
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "v_head_dim"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim"), 8),
    "num_key_value_heads": 4,
    "head_dim": None,
}
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-mqa-biases-wide-heads": ("Llama", {"num_key_value_heads": 1, "attention_bias": True, "head_dim": 32}),
    "llama-tied-odd-vocabulary": ("Llama", {"tie_word_embeddings": True, "vocab_size": 1031}),
    "llama-scaled-positions": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 2e4}}),
    "llama-dynamic-positions": (
        "Llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
    ),
    "qwen2": ("Qwen2", {}),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "max_window_layers": 2, **WINDOW}),
    "qwen3": ("Qwen3", {}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral-window": ("Mistral", WINDOW),
    "ministral-window": ("Ministral", WINDOW),
    "gemma": ("Gemma", {}),
    "gemma2-window": ("Gemma2", {"query_pre_attn_scalar": 16, **WINDOW}),
    "gemma2": ("Gemma2", {"query_pre_attn_scalar": 16}),
    "gemma3-window": ("Gemma3Text", {"query_pre_attn_scalar": 16, **WINDOW}),
    "gpt2": ("GPT2", {}),
    "neox": ("GPTNeoX", {"num_key_value_heads": None}),
    "phi-partial-rotary": ("Phi", {}),
    "phi3-window": ("Phi3", WINDOW),
    "olmo2": ("Olmo2", {}),
    "olmo3-window": ("Olmo3", WINDOW),
    "granite": ("Granite", {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5}),
    "cohere": ("Cohere", {"logit_scale": 0.25}),
    "cohere2-window": ("Cohere2", {"logit_scale": 0.25, **WINDOW}),
    "llama4-chunks": ("Llama4Text", {"attention_chunk_size": 8, "intermediate_size_mlp": 96, "num_local_experts": 2}),
    "smollm3-no-positions": ("SmolLM3", {}),
    "starcoder2-window": ("Starcoder2", WINDOW),
    "bloom-alibi": ("Bloom", {}),
    "falcon-alibi": ("Falcon", {"alibi": True, "new_decoder_architecture": False, "num_kv_heads": 4}),
    "mpt-alibi": ("Mpt", {}),
    "opt": ("OPT", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "opt-projected": ("OPT", {"ffn_dim": 96, "word_embed_proj_dim": 32, "do_layer_norm_before": False}),
    "gpt-oss-sinks-window": ("GptOss", {"num_local_experts": 4, "num_experts_per_tok": 2, **WINDOW}),
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
    "qwen3-moe": ("Qwen3Moe", {"num_experts": 4, **EXPERTS}),
    "deepseek2": ("DeepseekV2", {"n_routed_experts": 4, "first_k_dense_replace": 1, **EXPERTS, **MLA}),
    "deepseek3-dense-first": (
        "DeepseekV3",
        {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 3, **EXPERTS, **MLA},
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


def loaded(made: Path, shape: str, **settings: Any) -> ActorCritic:
    """A tiny random model; its critic's values differ from position to position."""
    kind, over = SHAPES[shape]
    model = ActorCritic.load(ModelConfig(folder(made / shape, kind, **over), dtype="float32", **settings))
    with torch.no_grad():
        model.critic.head.linear.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(2))
    return model


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_sampled_is_what_is_trained(made: Path, shape: str) -> None:
    """Uneven prompts, several turns, four conversations at a time; one of them reads a long observation."""
    model = loaded(made, shape, critic_layers=2)
    played = play(model, 5, concurrent=4, turns=3, max_new_tokens=4, long=("1", 60))
    with torch.no_grad():
        evaluation = model.evaluate(played.sequences())
        logits = [model.policy(torch.tensor([c.tokens])).logits[0].log_softmax(-1) for c in played.conversations]
    logprobs, values = torch.tensor(played.flat("logprobs")), torch.tensor(played.flat("values"))
    assert logprobs.std() > 0.1
    assert values.std() > 1e-3
    torch.testing.assert_close(logprobs, evaluation.logprobs_N, atol=1e-4, rtol=0)
    torch.testing.assert_close(values, evaluation.values_N, atol=1e-4, rtol=0)
    own = [
        found[at - 1, token]
        for found, sequence in zip(logits, played.sequences(), strict=True)
        for at, (token, sampled) in enumerate(zip(*sequence, strict=True))
        if sampled
    ]
    torch.testing.assert_close(logprobs, torch.stack(own), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", ["gemma2-window", "deepseek3-dense-first", "smollm3-no-positions", "opt-projected"])
@pytest.mark.parametrize("layers", [1, 3, -1])
def test_a_new_critic_sees_what_the_policy_sees(made: Path, shape: str, layers: int) -> None:
    """Its layers are those of the policy: windows, positions and experts by their numbers included."""
    found = probe.differences(loaded(made, shape, critic_layers=layers))
    assert set(found) == {f"the {one} in {where}" for one in ("policy", "critic") for where in ("training", "sampling")}
    assert max(found.values()) < 1e-4


def test_a_checkpoint_brings_the_critic_of_layers_that_differ_back(made: Path, tmp_path: Path) -> None:
    from foretaste.models import checkpoint

    model = loaded(made, "deepseek3-dense-first", critic_layers=2)
    again = checkpoint.load(checkpoint.save(model, tmp_path / "a").path)
    sequences = [TokenSequence(list(range(30, 60)), [False] * 20 + [True] * 10)]
    assert again.critic_restored
    assert torch.equal(again.evaluate(sequences).values_N, model.evaluate(sequences).values_N)


RECURRENT: dict[str, tuple[str, dict[str, Any]]] = {
    "Mamba": ("recurrent", {"state_size": 8}),
    "Rwkv": ("recurrent", {}),
    "Jamba": ("recurrent", {}),
    "RecurrentGemma": ("recurrent", {}),
    "Qwen3Next": ("recurrent", {}),
    "FalconH1": ("hybrid", {}),
    "Lfm2": ("conv", {"layer_types": ["conv", "full_attention", "conv", "full_attention"], "num_hidden_layers": 4}),
    "DeepseekV32": ("indexed_attention", {}),
    "Gemma3nText": ("keys and values of earlier layers", {}),
}


@pytest.mark.parametrize("kind", RECURRENT)
def test_layers_without_plain_keys_and_values_are_refused_before_weights_are_read(kind: str, tmp_path: Path) -> None:
    cause, over = RECURRENT[kind]
    getattr(transformers, f"{kind}Config")(**over).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=rf"{cause}[^!]*Accepted: causal language models"):
        ActorCritic.load(ModelConfig(str(tmp_path)))


def test_an_architecture_that_computes_something_else_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that counts positions by itself, whatever it is told, is right alone and wrong in a batch."""
    from transformers.models.olmo2.modeling_olmo2 import Olmo2Model

    own = Olmo2Model.forward

    def forward(
        self: Any, input_ids: Any = None, position_ids: Any = None, inputs_embeds: Any = None, **more: Any
    ) -> Any:
        given = input_ids if input_ids is not None else inputs_embeds
        cache = more.get("past_key_values")
        begin = 0 if cache is None else cache.get_seq_length()
        position_ids = torch.arange(begin, begin + given.shape[1])[None]
        return own(self, input_ids, position_ids=position_ids, inputs_embeds=inputs_embeds, **more)

    loaded(made, "olmo2")
    monkeypatch.setattr(Olmo2Model, "forward", forward)
    with pytest.raises(ModelError, match=r"Olmo2ForCausalLM cannot be trained.*the policy in sampling by \d+%"):
        loaded(made, "olmo2")


def test_a_layer_whose_work_depends_on_its_number_is_right_or_refused(tmp_path: Path) -> None:
    scaled = folder(tmp_path / "gpt2", "GPT2", scale_attn_by_inverse_layer_idx=True)
    assert (
        max(probe.differences(ActorCritic.load(ModelConfig(scaled, dtype="float32", critic_layers=2))).values()) < 1e-4
    )
    scales_embeddings_itself = folder(tmp_path / "ctrl", "CTRL", dff=96)
    with pytest.raises(ModelError, match=r"CTRLLMHeadModel cannot be trained.*the critic in training by \d+%"):
        ActorCritic.load(ModelConfig(scales_embeddings_itself, dtype="float32", critic_layers=2))
    assert ActorCritic.load(ModelConfig(scales_embeddings_itself, dtype="float32", critic_layers=-1))


def test_a_window_counts_tokens_where_others_read_much(made: Path) -> None:
    """A gap that a long observation of another conversation leaves is no part of a window."""
    model = loaded(made, "mistral-window", critic_layers=1)
    conversations = [Conversation(str(i), [], sample_seed=i) for i in range(3)]
    for index, conversation in enumerate(conversations):
        conversation.tokens = [20 + index, *range(30, 40 + 3 * index)]
    seen: dict[str, list[float]] = {}
    masks = {c.key: [False] * len(c.tokens) for c in conversations}

    def on_action(conversation: Conversation, action: Action) -> Next | None:
        seen.setdefault(conversation.key, []).extend(action.logprobs)
        masks[conversation.key] += [True] * len(action.tokens)
        if len(seen[conversation.key]) >= 12:
            return None
        more = list(range(50, 120)) if conversation.key == "0" else [60]
        masks[conversation.key] += [False] * len(more)
        return Next(more)

    Sampler(model, SamplingConfig(max_new_tokens=4)).run(iter(conversations), on_action)
    found = model.evaluate([TokenSequence(c.tokens, masks[c.key]) for c in conversations]).logprobs_N.detach()
    torch.testing.assert_close(torch.tensor([x for c in conversations for x in seen[c.key]]), found, atol=1e-4, rtol=0)
