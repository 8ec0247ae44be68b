"""The real vLLM, where it is installed: `python -m benchmarks.vllm_engine` runs these in an environment that has it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import make_nano
from model_helpers import conversations, play

from foretaste.config import SamplingConfig
from foretaste.errors import ModelError
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.engines import make_engine
from foretaste.models.turns import Engine

pytestmark = pytest.mark.filterwarnings("ignore")  # of vLLM and what it imports

MakeEngine = Callable[[ActorCritic, SamplingConfig], Engine]


@pytest.fixture
def vllm_engine() -> MakeEngine:
    pytest.importorskip("vllm")

    def make(model: ActorCritic, config: SamplingConfig) -> Engine:
        values = {name: getattr(config, name) for name in ("temperature", "max_new_tokens", "concurrent")}
        return make_engine(model, SamplingConfig(engine="vllm", max_context=512, **values))

    return make


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_tokens_log_probabilities_and_values_of_many_turns(vllm_engine: MakeEngine, temperature: float) -> None:
    model = make_nano(critic_layers=2)
    played = play(model, temperature=temperature, engine=vllm_engine)
    with torch.no_grad():
        evaluation = model.evaluate(played.sequences(), temperature=temperature or 1.0)
    torch.testing.assert_close(torch.tensor(played.flat("logprobs")), evaluation.logprobs_N, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.tensor(played.flat("values")), evaluation.values_N, atol=1e-4, rtol=0)
    assert {len(actions) for actions in played.actions.values()} == {3}
    assert sorted(played.finals) == ["1", "3", "5", "7"]
    if temperature:
        again = play(model, temperature=temperature, engine=vllm_engine)
        assert [c.tokens for c in again.conversations] == [c.tokens for c in played.conversations]


def test_an_end_token_stays_in_the_action_and_new_weights_are_taken_up(vllm_engine: MakeEngine) -> None:
    model = make_nano(critic_layers=1)
    model.template.end_ids = frozenset()
    engine = vllm_engine(model, SamplingConfig(max_new_tokens=6))
    [whole] = engine.act(conversations(model, 1))
    assert (whole.cut, len(whole.tokens)) == (True, 6)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(0.8)
    [other] = engine.act(conversations(model, 1))
    assert other.logprobs != whole.logprobs
    model.template.end_ids = frozenset({other.tokens[2]})
    [ended] = vllm_engine(model, SamplingConfig(max_new_tokens=6)).act(conversations(model, 1))
    assert not ended.cut
    assert ended.tokens == other.tokens[: other.tokens.index(other.tokens[2]) + 1]


def test_lora_adapters_are_taken_up_merged(vllm_engine: MakeEngine) -> None:
    pytest.importorskip("peft")
    model = make_nano(critic_layers=1, lora_rank=2)
    with torch.no_grad():
        for name, parameter in model.policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    played = play(model, engine=vllm_engine)
    with torch.no_grad():
        evaluation = model.evaluate(played.sequences())
    torch.testing.assert_close(torch.tensor(played.flat("logprobs")), evaluation.logprobs_N, atol=1e-4, rtol=0)


def test_a_model_with_too_narrow_heads_is_refused_with_vllms_own_reason(vllm_engine: MakeEngine) -> None:
    from foretaste.config import ModelConfig

    with pytest.raises(ModelError, match=r"cannot sample from 'nano-xs' .*head_dim=16"):
        vllm_engine(ActorCritic.load(ModelConfig("nano-xs")), SamplingConfig())
