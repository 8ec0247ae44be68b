"""The embedded model itself (fetched once on a fresh machine): chat, agreement in bfloat16, learning signal."""

from __future__ import annotations

import pytest
import torch
from model_helpers import play

from foretaste.config import ModelConfig, SamplingConfig
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.fast_decode import FastDecoder
from foretaste.models.sampler import Sampler
from foretaste.records import Conversation, Message


@pytest.fixture(scope="module")
def smollm2() -> ActorCritic:
    return ActorCritic.load(ModelConfig(name="smollm2-135m"))


def test_it_answers_a_question_and_ends(smollm2: ActorCritic) -> None:
    question = Conversation("q", [Message("user", "What is the capital of France?")])
    [action] = Sampler(smollm2, SamplingConfig(temperature=0.0, max_new_tokens=16)).act([question])
    assert "Paris" in action.text
    assert not action.cut
    assert smollm2.tokenizer.convert_ids_to_tokens(action.tokens[-1]) == "<|im_end|>"


def test_sampler_and_training_agree_within_bfloat16(
    smollm2: ActorCritic, record_property: pytest.RecordProperty
) -> None:
    assert FastDecoder.supports(smollm2, 2048)
    with torch.no_grad():
        smollm2.critic.head.linear.weight.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    played = play(smollm2, count=6, concurrent=4, turns=2, max_new_tokens=10)
    with torch.no_grad():
        evaluation = smollm2.evaluate(played.sequences())
    sampled = torch.tensor(played.flat("logprobs"))
    gap = (sampled - evaluation.logprobs_N).abs()
    for name, value in {"max": gap.max(), "p99.9": gap.quantile(0.999), "mean": gap.mean()}.items():
        record_property(name, value.item())
    assert sampled.std() > 1.0
    assert gap.max() < 0.8
    assert gap.mean() < 0.1
    values = torch.tensor(played.flat("values"))
    assert values.std() > 0.02
    assert (values - evaluation.values_N).abs().max() < 0.05


def test_value_gradient_stays_out_of_the_policy_in_bfloat16(smollm2: ActorCritic) -> None:
    played = play(smollm2, count=2, turns=1, max_new_tokens=4)
    evaluation = smollm2.evaluate(played.sequences(), policy=False)
    count = len(evaluation.values_N)
    smollm2.value_loss(evaluation.value_logits, torch.ones(count), torch.ones(count)).backward()
    assert all(parameter.grad is None for parameter in smollm2.policy_parameters())
    assert all(torch.isfinite(p.grad).all() for p in smollm2.critic_parameters() if p.grad is not None)
    assert smollm2.critic.decoder.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0
    smollm2.zero_grad()
