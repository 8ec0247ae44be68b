"""What surrounds vLLM, with a server in its place that samples by the weights it was given: turns, values, limits."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
import torch
from conftest import make_nano
from fake_server import FakeServer
from model_helpers import conversations, play
from torch import Tensor

from foretaste.config import SamplingConfig
from foretaste.errors import ModelError
from foretaste.models import vllm_sampler
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.models.drawing import stream_seed
from foretaste.models.sampler import Sampler
from foretaste.models.turns import Next
from foretaste.models.vllm_sampler import VllmSampler, dense_weights
from foretaste.models.vllm_server import Answer
from foretaste.records import Action, Conversation


def engine(model: ActorCritic, config: SamplingConfig) -> VllmSampler:
    return VllmSampler(model, config, server=FakeServer(model, config, config.max_context))


def server_of(sampler: VllmSampler) -> FakeServer:
    assert isinstance(sampler._server, FakeServer)
    return sampler._server


@pytest.mark.parametrize("pass_tokens", [8192, 1])
def test_log_probabilities_and_values_of_many_turns_are_those_of_training(
    nano: ActorCritic, pass_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_sampler, "PASS_TOKENS", pass_tokens)
    played = play(nano, engine=engine)
    with torch.no_grad():
        evaluation = nano.evaluate(played.sequences())
    values = torch.tensor(played.flat("values"))
    assert values.std() > 0.01
    torch.testing.assert_close(torch.tensor(played.flat("logprobs")), evaluation.logprobs_N, atol=2e-5, rtol=0)
    torch.testing.assert_close(values, evaluation.values_N, atol=2e-5, rtol=0)
    assert {len(actions) for actions in played.actions.values()} == {3}


def test_values_at_turn_starts_and_after_the_end_are_those_of_training(nano: ActorCritic) -> None:
    played = play(nano, engine=engine)
    assert sorted(played.finals) == ["1", "3", "5", "7"]
    for conversation in played.conversations:
        first_values = [action.values[0] for action in played.actions[conversation.key][1:]]
        assert played.states[conversation.key] == pytest.approx(first_values, abs=2e-5)
        if conversation.key in played.finals:
            whole = TokenSequence([*conversation.tokens, 0], [False] * len(conversation.tokens) + [True])
            expected = nano.evaluate([whole]).values_N.item()
            assert played.finals[conversation.key] == pytest.approx(expected, abs=2e-5)


def test_values_are_those_that_the_plain_sampler_reads_of_the_same_tokens(tower: ActorCritic) -> None:
    [one] = conversations(tower, 1)
    prompt = list(one.tokens)
    [action] = engine(tower, SamplingConfig(max_new_tokens=6)).act([one])
    again = Conversation("again", [])
    again.tokens = list(prompt)
    read: list[float] = []
    for token in action.tokens:
        step = Conversation("step", [], sample_seed=1)
        step.tokens = list(again.tokens)
        [found] = Sampler(tower, SamplingConfig(max_new_tokens=1), plain=True).act([step])
        read.append(found.values[0])
        again.tokens.append(token)
    assert list(action.values) == pytest.approx(read, abs=2e-5)


@pytest.mark.parametrize("temperature", [0.5, 0.0])
def test_temperature_reaches_the_check_of_what_was_sampled(
    tower: ActorCritic, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_sampler, "APART", 1e-4)
    played = play(tower, temperature=temperature, engine=engine)
    with torch.no_grad():
        evaluation = tower.evaluate(played.sequences(), temperature=temperature or 1.0)
    torch.testing.assert_close(torch.tensor(played.flat("logprobs")), evaluation.logprobs_N, atol=5e-5, rtol=0)


def test_what_is_sampled_repeats_and_does_not_depend_on_the_batch(tower: ActorCritic) -> None:
    together, alone = play(tower, concurrent=8, engine=engine), play(tower, concurrent=1, engine=engine)
    assert [c.tokens for c in together.conversations] == [c.tokens for c in alone.conversations]
    assert len({tuple(c.tokens) for c in alone.conversations}) == len(alone.conversations)


def test_every_action_has_a_seed_of_its_conversation_and_position(tower: ActorCritic) -> None:
    sampler = engine(tower, SamplingConfig(max_new_tokens=3))
    made = conversations(tower, 2)
    starts = [(c.sample_seed, len(c.tokens)) for c in made]
    turns = dict.fromkeys("01", 0)

    def on_action(conversation: Conversation, action: Action) -> Next | None:
        turns[conversation.key] += 1
        return Next([7, 8]) if turns[conversation.key] < 2 else None

    sampler.run(iter(made), on_action)
    seeds = [asked.seed for asked in server_of(sampler).asked]
    assert seeds[:2] == [stream_seed(*start) for start in starts]
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**62 for seed in seeds)


def test_an_end_token_ends_an_action_and_a_limit_cuts_it(tower: ActorCritic) -> None:
    [cut] = engine(tower, SamplingConfig(max_new_tokens=5)).act(conversations(tower, 1))
    assert (cut.cut, len(cut.tokens)) == (True, 5)
    tower.template.end_ids = frozenset({cut.tokens[2]})
    [ended] = engine(tower, SamplingConfig(max_new_tokens=5)).act(conversations(tower, 1))
    assert not ended.cut
    assert ended.tokens == cut.tokens[: cut.tokens.index(cut.tokens[2]) + 1]
    assert len(ended.values) == len(ended.logprobs) == len(ended.tokens)


def test_a_full_conversation_is_cut_and_its_value_given(tower: ActorCritic) -> None:
    [conversation] = conversations(tower, 1)
    room = len(conversation.tokens) + 4
    actions: list[Action] = []
    values: list[float] = []

    def on_action(_: Conversation, action: Action) -> Next:
        actions.append(action)
        return Next([7, 8, 9])

    sampler = engine(tower, SamplingConfig(max_new_tokens=20, max_context=room))
    sampler.run(iter([conversation]), on_action, on_value=lambda _, value: values.append(value))
    assert [action.cut for action in actions] == [True]
    assert len(conversation.tokens) == room
    whole = TokenSequence([*conversation.tokens, 0], [False] * room + [True])
    assert values == [pytest.approx(tower.evaluate([whole]).values_N.item(), abs=2e-5)]


@pytest.mark.parametrize("size", [5, 30])
def test_an_observation_that_leaves_no_room_ends_the_conversation_with_a_value(tower: ActorCritic, size: int) -> None:
    [conversation] = conversations(tower, 1)
    sampler = engine(tower, SamplingConfig(max_new_tokens=3, max_context=len(conversation.tokens) + 8))
    values: list[float] = []
    asked = lambda *_: Next(list(range(10, 10 + size)))  # noqa: E731
    sampler.run(iter([conversation]), asked, on_value=lambda _, value: values.append(value))
    assert len(values) == 1
    assert conversation.tokens[-5:] == [10, 11, 12, 13, 14]


def test_a_state_that_is_given_up_is_not_sampled(tower: ActorCritic) -> None:
    turns = dict.fromkeys("0123", 0)

    def on_action(conversation: Conversation, action: Action) -> Next | None:
        turns[conversation.key] += 1
        return Next(tower.template.follow("go", ended=not action.cut)) if turns[conversation.key] < 3 else None

    sampler = engine(tower, SamplingConfig(max_new_tokens=3))
    made = conversations(tower, 4)
    sampler.run(iter(made), on_action, on_state=lambda conversation, _: conversation.key != "2")
    assert turns == {"0": 3, "1": 3, "2": 1, "3": 3}


def test_conversations_are_taken_only_when_there_is_room(tower: ActorCritic) -> None:
    taken: list[str] = []
    finished: list[str] = []

    def supply():
        for conversation in conversations(tower, 6):
            assert len(taken) - len(finished) < 2
            taken.append(conversation.key)
            yield conversation

    sampler = engine(tower, SamplingConfig(max_new_tokens=3, concurrent=2))
    sampler.run(supply(), lambda conversation, _: finished.append(conversation.key))
    assert sorted(finished) == sorted(taken) == list("012345")
    assert server_of(sampler).most == 2


class Uneven(VllmSampler):
    """The first conversation's actions are the shortest."""

    def limit(self, conversation: Conversation) -> int:
        return 2 if conversation.key == "0" else 7


def test_one_that_has_ended_goes_on_while_others_still_decode(tower: ActorCritic) -> None:
    config = SamplingConfig(max_new_tokens=1)
    sampler = Uneven(tower, config, server=FakeServer(tower, config))
    tower.template.end_ids = frozenset()
    order: list[tuple[str, int]] = []

    def on_action(conversation: Conversation, action: Action) -> Next | None:
        order.append((conversation.key, len(action.tokens)))
        return Next([5]) if len(order) < 3 else None

    sampler.run(iter(conversations(tower, 2)), on_action)
    assert order == [("0", 2), ("0", 2), ("0", 2), ("1", 7)]


def test_weights_are_handed_over_exactly_when_the_policy_has_changed(tower: ActorCritic) -> None:
    sampler = engine(tower, SamplingConfig(max_new_tokens=4))
    server = server_of(sampler)
    sampler.act(conversations(tower, 2))
    sampler.act(conversations(tower, 2))
    assert server.events == ["begin", "load", "begin"]
    sampler.rest()
    with torch.no_grad():
        for parameter in tower.critic_parameters():
            parameter.mul_(0.9)
    sampler.act(conversations(tower, 2))
    assert server.events[3:] == ["rest", "begin"]
    with torch.no_grad():
        tower.policy_parameters()[-1].mul_(0.7)
    fresh = conversations(tower, 2)
    lengths = [len(c.tokens) for c in fresh]
    actions = sampler.act(fresh)
    assert server.events[5:] == ["begin", "load"]
    masks = [[i >= n for i in range(len(c.tokens))] for c, n in zip(fresh, lengths, strict=True)]
    evaluation = tower.evaluate([TokenSequence(c.tokens, mask) for c, mask in zip(fresh, masks, strict=True)])
    sampled = torch.tensor([x for action in actions for x in action.logprobs])
    torch.testing.assert_close(sampled, evaluation.logprobs_N.detach(), atol=2e-5, rtol=0)
    values = torch.tensor([x for action in actions for x in action.values])
    torch.testing.assert_close(values, evaluation.values_N.detach(), atol=2e-5, rtol=0)


def test_lora_adapters_are_handed_over_merged() -> None:
    model = make_nano(critic_layers=1, lora_rank=2)
    with torch.no_grad():
        for name, parameter in model.policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    played = play(model, engine=engine)
    with torch.no_grad():
        evaluation = model.evaluate(played.sequences())
    torch.testing.assert_close(torch.tensor(played.flat("logprobs")), evaluation.logprobs_N, atol=2e-5, rtol=0)


def test_a_shared_weight_is_handed_over_once_and_biases_too() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=16, n_positions=8))
    named = dict(dense_weights(model))
    assert named.keys() == dict(model.named_parameters()).keys()
    assert "transformer.h.0.attn.c_attn.bias" in named


class Deaf(FakeServer):
    """Takes no weights after the first."""

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        if "load" not in self.events:
            super().load(weights)


def test_a_server_with_other_weights_is_found_out_in_the_first_pass(tower: ActorCritic) -> None:
    config = SamplingConfig(max_new_tokens=8)
    sampler = VllmSampler(tower, config, server=Deaf(tower, config))
    sampler.act(conversations(tower, 4))
    with torch.no_grad():
        for parameter in tower.policy_parameters():
            if parameter.dim() > 1:
                parameter.mul_(-1.5)
    with pytest.raises(ModelError, match="not those of the policy"):
        sampler.act(conversations(tower, 4))


class Diverged(FakeServer):
    """What vLLM answers when logits are not finite."""

    def step(self) -> list[Answer]:
        return [answer._replace(logprobs=[math.nan] * len(answer.tokens)) for answer in super().step()]


def test_log_probabilities_that_are_no_numbers_end_the_run(tower: ActorCritic) -> None:
    config = SamplingConfig(max_new_tokens=2)
    with pytest.raises(ModelError, match="not finite"):
        VllmSampler(tower, config, server=Diverged(tower, config)).act(conversations(tower, 1))


def test_what_is_being_sampled_is_dropped_if_a_callback_fails(tower: ActorCritic) -> None:
    config = SamplingConfig(concurrent=3)
    sampler = Uneven(tower, config, server=FakeServer(tower, config))

    def on_action(conversation: Conversation, action: Action) -> Next:
        assert len(server_of(sampler).live) == 2
        raise RuntimeError("environment")

    with pytest.raises(RuntimeError, match="environment"):
        sampler.run(iter(conversations(tower, 3)), on_action)
    assert not server_of(sampler).live
    assert len(sampler.act(conversations(tower, 2))) == 2


@pytest.mark.parametrize("tokens", [[], [5] * 40])
def test_a_prompt_that_leaves_no_room_is_refused(tower: ActorCritic, tokens: list[int]) -> None:
    conversation = Conversation("x", [])
    conversation.tokens.extend(tokens)
    with pytest.raises(ModelError, match="accepted: 1 to 39"):
        engine(tower, SamplingConfig(max_context=40)).run(iter([conversation]), lambda *_: None)
