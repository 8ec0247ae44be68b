"""The quick training path against transformers' own forward, for every shape that it says it computes."""

from __future__ import annotations

import ctypes
import random
from typing import Any

import pytest
import torch
import transformers
from test_actor_critic import gradients, plainly, sequences

from foretaste.config import ModelConfig
from foretaste.models import fast_layout, fast_training, kernels, nano, trunk
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.models.conversation import ChatTemplate
from foretaste.models.fast_decode import FastDecoder

SHAPE: dict[str, Any] = {
    "vocab_size": 1024,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
    "max_position_embeddings": 512,
}
KINDS = ["Llama", "Qwen2", "Qwen3", "Mistral"]


def tiny(kind: str, *, lora_rank: int = 0, critic_layers: int = 2, **settings: Any) -> ActorCritic:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SHAPE, **settings})
    policy = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * (0.5 if "bias" in name else 0.2))
    words = nano.tokenizer()
    model = ActorCritic(
        ModelConfig(critic_layers=critic_layers, lora_rank=lora_rank), policy, words, ChatTemplate(words)
    )
    with torch.no_grad():
        model.critic.head.linear.weight.normal_(std=0.2)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model.eval()


def agrees(model: ActorCritic, shared: int, made: list[TokenSequence] | None = None) -> None:
    assert fast_training.supports(model)
    made = made or sequences(shared)
    evaluation = model.evaluate(made)
    results = (evaluation.logprobs_N, evaluation.entropy_N, evaluation.values_N)
    weights = torch.randn(3, len(results[0]), generator=torch.Generator().manual_seed(0))
    sum((w * r).sum() for w, r in zip(weights, results, strict=True)).backward()  # type: ignore[union-attr]
    fast = gradients(model)
    expected = [torch.cat(parts) for parts in zip(*(plainly(model, s) for s in made), strict=True)]
    sum((w * r).sum() for w, r in zip(weights, expected, strict=True)).backward()  # type: ignore[union-attr]
    plain = gradients(model)
    for result, wanted in zip(results, expected, strict=True):
        assert wanted.std() > 0.005
        torch.testing.assert_close(result, wanted, atol=2e-5, rtol=1e-5)
    assert fast.keys() == plain.keys()
    for name, gradient in plain.items():
        bound = 1e-4 * max(gradient.abs().max().item(), 1e-3)
        torch.testing.assert_close(fast[name], gradient, atol=bound, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [20, 0])
def test_every_shape_agrees_with_transformers(kind: str, shared: int) -> None:
    agrees(tiny(kind, tie_word_embeddings=shared > 0), shared)


def attempts(prefix: int) -> list[TokenSequence]:
    """Three attempts at each of two prompts of their own length, in turn, and one at a prompt that nobody shares."""
    draw = random.Random(1)

    def words(count: int) -> list[int]:
        return [draw.randrange(5, 700) for _ in range(count)]

    beginning, prompts = words(prefix), [words(11), words(14)]
    made = []
    for turn in range(3):
        for prompt in prompts:
            answer = words(2 + 2 * turn)
            mask = [False] * (prefix + len(prompt)) + [True] * len(answer)
            made.append(TokenSequence(beginning + prompt + answer, mask))
    return [*made, TokenSequence(beginning + words(9), [False] * (prefix + 4) + [True] * 5)]


@pytest.mark.parametrize("prefix", [20, 0])
def test_a_prompt_is_read_once_for_all_attempts_at_it(prefix: int) -> None:
    made = attempts(prefix)
    agrees(tiny("Llama"), prefix, made)
    there = fast_layout.arrange(trunk.pack(made, torch.device("cpu")))
    assert [(node.sequences, node.width) for node in there.nodes if node.sequences > 1] == [(3, 6), (3, 6)]
    assert there.shared == prefix + 10 + 13
    assert there.end == there.shared + 2 * 3 * 6 + 8
    assert len(there.tokens_M) % 32 == 0
    assert there.tokens_M[there.end - 8 : there.end].tolist() == list(made[-1].tokens[prefix:-1])


def test_biases_everywhere_and_a_separate_critic() -> None:
    agrees(tiny("Llama", attention_bias=True, mlp_bias=True, critic_layers=-1), 20)


def test_an_adapter_agrees_and_is_trained_alone() -> None:
    model = tiny("Llama", lora_rank=3)
    agrees(model, 20)
    model.evaluate(sequences()).logprobs_N.sum().backward()
    assert all("lora" in name for name, p in model.policy.named_parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_shape_is_decoded_quickly_too(kind: str) -> None:
    model = tiny(kind, tie_word_embeddings=True)
    assert FastDecoder.supports(model, 512)
    made = sequences(20)
    decoder = FastDecoder(model)
    decoder.begin()
    decoder.admit()
    decoder.extend([made[0].tokens[:20]])
    for _ in made:
        decoder.admit(0, 20)
    decoder.drop(0)
    order = [made[-1], *made[:-1]]
    logits_BV, values_B = decoder.extend([list(s.tokens[20:-1]) for s in order])
    with torch.no_grad():
        for row, sequence in enumerate(order):
            logprob = plainly(model, sequence)[0][-1], plainly(model, sequence)[2][-1]
            torch.testing.assert_close(
                logits_BV[row].log_softmax(-1)[sequence.tokens[-1]], logprob[0], atol=2e-5, rtol=1e-5
            )
            torch.testing.assert_close(values_B[row], logprob[1], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"hidden_act": "gelu"}, {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}]
)
def test_a_shape_that_differs_takes_the_plain_path(settings: dict[str, Any]) -> None:
    if "rope_parameters" in settings:
        settings["rope_parameters"]["rope_theta"] = 1e4
    assert not fast_training.supports(tiny("Llama", **settings))


def test_an_attention_window_within_reach_takes_the_plain_path() -> None:
    model = tiny("Mistral", sliding_window=64)
    assert fast_training.supports(model, 64)
    assert not fast_training.supports(model, 65)


def test_without_a_compiler_the_plain_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels.library.cache_clear()
    monkeypatch.setenv("CC", "no-such-compiler")
    model = tiny("Llama")
    assert not fast_training.supports(model)
    assert len(model.evaluate(sequences()).logprobs_N) > 0
    kernels.library.cache_clear()
    monkeypatch.undo()
    assert isinstance(kernels.library(torch.float32), ctypes.CDLL)


def test_a_second_backward_pass_is_refused() -> None:
    loss = tiny("Llama").evaluate(sequences()).logprobs_N.sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        loss.backward()
