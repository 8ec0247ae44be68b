"""evaluate() against the plain computation: no sharing, no padding, transformers' own forward."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_nano

from foretaste.config import ModelConfig
from foretaste.errors import ModelError
from foretaste.models import actor_critic, fast_training, loading
from foretaste.models.actor_critic import ActorCritic, TokenSequence


def sequences(shared: int = 20, count: int = 4) -> list[TokenSequence]:
    draw = random.Random(0)
    prefix = [draw.randrange(5, 700) for _ in range(shared)]
    made = []
    for index in range(count):
        own = [draw.randrange(5, 700) for _ in range(3 + 4 * index)]
        mask = [False] * (shared + 1) + [draw.random() < 0.6 for _ in own[2:]] + [True]
        made.append(TokenSequence(prefix + own, mask))
    return made


def plainly(model: ActorCritic, sequence: TokenSequence) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities, entropies and values of one sequence, from whole forward passes."""
    ids = torch.tensor([list(sequence.tokens)])
    out = model.policy(input_ids=ids, output_hidden_states=True)
    at = torch.tensor([i for i, sampled in enumerate(sequence.action_mask) if sampled])
    log = out.logits[0, at - 1].log_softmax(-1)
    entering = ids if model.critic.reads_tokens else out.hidden_states[model.critic.start].detach()
    values = model.critic.head.value(model.critic.head(model.critic(entering).last_hidden_state[0, at - 1]))
    return log[torch.arange(len(at)), ids[0, at]], -(log.exp() * log).sum(-1), values


def gradients(model: ActorCritic) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("shared", [20, 0])
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_evaluate_equals_the_plain_computation_and_its_gradient(
    nano: ActorCritic, shared: int, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor_critic, "CHUNK", 7)
    monkeypatch.setattr(fast_training, "SCORE_BYTES", 7 * 4 * nano.language_model.config.vocab_size)
    if not fast:
        monkeypatch.setattr(fast_training, "supports", lambda *_: False)
    assert fast_training.supports(nano) == fast
    made = sequences(shared)
    evaluation = nano.evaluate(made)
    count = len(evaluation.logprobs_N)
    assert count == sum(sum(s.action_mask) for s in made)
    weights = torch.randn(3, count, generator=torch.Generator().manual_seed(0))
    results = (evaluation.logprobs_N, evaluation.entropy_N, evaluation.values_N)
    sum((w * r).sum() for w, r in zip(weights, results, strict=True)).backward()  # type: ignore[union-attr]
    shared_gradients = gradients(nano)
    expected = [torch.cat(parts) for parts in zip(*(plainly(nano, s) for s in made), strict=True)]
    sum((w * r).sum() for w, r in zip(weights, expected, strict=True)).backward()  # type: ignore[union-attr]
    plain_gradients = gradients(nano)
    for result, wanted in zip(results, expected, strict=True):
        assert wanted.std() > 0.005
        torch.testing.assert_close(result, wanted, atol=2e-5, rtol=1e-5)
    assert shared_gradients.keys() == plain_gradients.keys()
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(shared_gradients[name], gradient, atol=1e-4 * gradient.abs().max().item(), rtol=1e-3)


def test_the_prefix_is_computed_once(tower: ActorCritic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_training, "supports", lambda *_: False)
    seen: list[int] = []
    tower.decoder.layers[0].register_forward_hook(
        lambda module, arguments, output: seen.append(output.shape[0] * output.shape[1])
    )
    tower.evaluate(sequences(200, 4))
    assert sum(seen) == 200 + 4 * 14


def test_value_loss_never_reaches_the_policy(nano: ActorCritic) -> None:
    evaluation = nano.evaluate(sequences())
    count = len(evaluation.values_N)
    nano.value_loss(evaluation.value_logits, torch.ones(count), torch.ones(count)).backward()
    assert all(parameter.grad is None for parameter in nano.policy_parameters())
    inner = [p for name, p in nano.critic.named_parameters() if "layers.0" in name]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in inner)
    shared = {id(p) for p in nano.policy_parameters()} & {id(p) for p in nano.critic_parameters()}
    assert not shared


def test_policy_loss_never_reaches_the_critic(nano: ActorCritic) -> None:
    nano.evaluate(sequences()).logprobs_N.sum().backward()
    assert all(parameter.grad is None for parameter in nano.critic_parameters())
    assert all(parameter.grad is not None for parameter in nano.policy_parameters())


def test_values_alone_equal_values_with_the_policy(nano: ActorCritic) -> None:
    alone, both = nano.evaluate(sequences(), policy=False), nano.evaluate(sequences())
    assert alone.logprobs_N.numel() == 0
    torch.testing.assert_close(alone.values_N, both.values_N, atol=1e-6, rtol=0)
    without = nano.evaluate(sequences(), values=False)
    assert without.values_N.numel() == 0
    torch.testing.assert_close(without.logprobs_N, both.logprobs_N, atol=1e-6, rtol=0)


def test_sequences_without_actions_are_passed_over(tower: ActorCritic) -> None:
    made = sequences()
    idle = TokenSequence([1, 2, 3], [False] * 3)
    with_idle = tower.evaluate([made[0], idle, *made[1:]])
    torch.testing.assert_close(with_idle.logprobs_N, tower.evaluate(made).logprobs_N, atol=1e-5, rtol=0)
    assert tower.evaluate([idle]).values_N.numel() == 0


def test_an_action_without_anything_before_it_is_refused(tower: ActorCritic) -> None:
    with pytest.raises(ModelError, match="nothing comes before it"):
        tower.evaluate([TokenSequence([5, 6], [True, True])])


def test_the_seed_decides_the_weights() -> None:
    one, same, other = (ActorCritic.load(ModelConfig(name="nano"), seed=seed) for seed in (3, 3, 4))
    pairs = list(zip(one.parameters(), same.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_what_loading_a_policy_draws_leaves_the_critic_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ActorCritic.load(ModelConfig(name="nano"), seed=3)
    load = loading.policy

    def converting(config: ModelConfig, seed: int) -> tuple[Any, Any, Path | None]:
        torch.rand(7)  # as the first conversion of an embedded model does
        return load(config, seed)

    monkeypatch.setattr(loading, "policy", converting)
    after = ActorCritic.load(ModelConfig(name="nano"), seed=3)
    pairs = zip(before.critic.parameters(), after.critic.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_lora_trains_the_adapter_alone() -> None:
    model = make_nano(critic_layers=2, lora_rank=4)
    evaluation = model.evaluate(sequences())
    (evaluation.logprobs_N.sum() + evaluation.values_N.sum()).backward()
    trained = sum(p.numel() for p in model.policy_parameters())
    assert 0 < trained < 0.1 * sum(p.numel() for p in model.policy.parameters())
    assert all("lora" in name for name, p in model.policy.named_parameters() if p.grad is not None)


@pytest.mark.parametrize("layers", [0, -2])
def test_critic_layers_are_checked(layers: int) -> None:
    with pytest.raises(ModelError, match="critic_layers"):
        ActorCritic.load(ModelConfig(name="nano", critic_layers=layers))


@pytest.mark.parametrize("device", ["cuda:7", "tpuu"])
def test_a_missing_device_is_named(device: str) -> None:
    with pytest.raises(ModelError, match=f"Device '{device}' is not available"):
        ActorCritic.load(ModelConfig(name="nano", device=device))
