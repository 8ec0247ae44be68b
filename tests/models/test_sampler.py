"""The sampler against the trainer's forward pass, against itself, and its limits."""

from __future__ import annotations

import pytest
import torch
from model_helpers import conversations, play

from foretaste.config import SamplingConfig
from foretaste.errors import ModelError
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.models.sampler import Next, Sampler
from foretaste.records import Action, Conversation, Message

BOTH = pytest.mark.parametrize("plain", [True, False], ids=["plain", "fast"])


@BOTH
def test_sampler_agrees_with_training(nano: ActorCritic, plain: bool) -> None:
    played = play(nano, plain=plain)
    with torch.no_grad():
        evaluation = nano.evaluate(played.sequences())
    logprobs, values = torch.tensor(played.flat("logprobs")), torch.tensor(played.flat("values"))
    assert len(logprobs) > 100
    assert logprobs.std() > 0.3
    assert values.std() > 0.01
    torch.testing.assert_close(logprobs, evaluation.logprobs_N, atol=2e-5, rtol=0)
    torch.testing.assert_close(values, evaluation.values_N, atol=2e-5, rtol=0)


@BOTH
def test_values_at_turn_starts_and_after_the_end_are_those_of_training(nano: ActorCritic, plain: bool) -> None:
    played = play(nano, plain=plain)
    assert {key: len(values) for key, values in played.states.items()} == {c.key: 2 for c in played.conversations}
    assert sorted(played.finals) == ["1", "3", "5", "7"]
    for conversation in played.conversations:
        first_values = [action.values[0] for action in played.actions[conversation.key][1:]]
        assert played.states[conversation.key] == first_values
        if conversation.key in played.finals:
            whole = TokenSequence([*conversation.tokens, 0], [False] * len(conversation.tokens) + [True])
            expected = nano.evaluate([whole]).values_N.item()
            assert played.finals[conversation.key] == pytest.approx(expected, abs=2e-5)


def test_fast_path_samples_what_the_plain_path_samples(nano: ActorCritic) -> None:
    fast, plain = play(nano), play(nano, plain=True)
    assert [c.tokens for c in fast.conversations] == [c.tokens for c in plain.conversations]
    torch.testing.assert_close(torch.tensor(fast.flat("values")), torch.tensor(plain.flat("values")), atol=2e-5, rtol=0)


@BOTH
def test_what_is_sampled_does_not_depend_on_the_batch(tower: ActorCritic, plain: bool) -> None:
    together, alone = play(tower, plain=plain, concurrent=8), play(tower, plain=plain, concurrent=1)
    assert [c.tokens for c in together.conversations] == [c.tokens for c in alone.conversations]
    assert len({tuple(c.tokens) for c in alone.conversations}) == len(alone.conversations)


def test_temperature_reaches_the_logprobs(tower: ActorCritic) -> None:
    played = play(tower, temperature=0.5)
    with torch.no_grad():
        evaluation = tower.evaluate(played.sequences(), temperature=0.5)
    torch.testing.assert_close(torch.tensor(played.flat("logprobs")), evaluation.logprobs_N, atol=5e-5, rtol=0)


def test_a_new_weight_is_seen_by_the_next_run(tower: ActorCritic) -> None:
    sampler = Sampler(tower, SamplingConfig(max_new_tokens=6))
    sampler.act(conversations(tower, 3))
    with torch.no_grad():
        for parameter in [*tower.policy_parameters(), *tower.critic_parameters()]:
            if parameter.dim() > 1:
                parameter.mul_(0.7)
    fresh = conversations(tower, 3)
    lengths = [len(c.tokens) for c in fresh]
    actions = sampler.act(fresh)
    sequences = [
        TokenSequence(c.tokens, [i >= n for i in range(len(c.tokens))]) for c, n in zip(fresh, lengths, strict=True)
    ]
    evaluation = tower.evaluate(sequences)
    sampled = torch.tensor([x for action in actions for x in action.logprobs])
    torch.testing.assert_close(sampled, evaluation.logprobs_N.detach(), atol=2e-5, rtol=0)
    values = torch.tensor([x for action in actions for x in action.values])
    torch.testing.assert_close(values, evaluation.values_N.detach(), atol=2e-5, rtol=0)


def only_end(model: ActorCritic) -> ActorCritic:
    """Make the end token certain: its embedding answers every hidden state, which is made constant."""
    with torch.no_grad():
        embedding = model.language_model.get_input_embeddings().weight
        embedding.mul_(0.01)
        model.decoder.norm.weight.zero_()
    end = next(iter(model.template.end_ids))
    bias = torch.zeros(model.language_model.config.vocab_size)
    bias[end] = 50.0
    original = model.logits
    model.logits = lambda hidden: original(hidden) + bias  # type: ignore[method-assign]
    return model


def test_an_end_token_ends_an_action_and_a_limit_cuts_it(tower: ActorCritic) -> None:
    conversation = conversations(tower, 1)
    [cut] = Sampler(tower, SamplingConfig(max_new_tokens=5)).act(conversation)
    assert cut.cut
    assert len(cut.tokens) == 5
    assert not set(cut.tokens) & tower.template.end_ids
    [ended] = Sampler(only_end(tower), SamplingConfig(max_new_tokens=5), plain=True).act(conversations(tower, 1))
    assert not ended.cut
    assert set(ended.tokens) == set(tower.template.end_ids)
    assert ended.text == ""


@BOTH
def test_a_full_conversation_is_cut_and_its_value_given(tower: ActorCritic, plain: bool) -> None:
    [conversation] = conversations(tower, 1)
    room = len(conversation.tokens) + 4
    sampler = Sampler(tower, SamplingConfig(max_new_tokens=20, max_context=room), plain=plain)
    actions: list[Action] = []
    values: list[float] = []

    def on_action(_: Conversation, action: Action) -> Next:
        actions.append(action)
        return Next([7, 8, 9])

    sampler.run(iter([conversation]), on_action, on_value=lambda _, value: values.append(value))
    assert len(actions) == 1
    assert actions[0].cut
    assert len(conversation.tokens) == room
    whole = TokenSequence([*conversation.tokens, 0], [False] * room + [True])
    assert values == [pytest.approx(tower.evaluate([whole]).values_N.item(), abs=2e-5)]


def test_an_observation_that_does_not_fit_ends_the_conversation_with_a_value(tower: ActorCritic) -> None:
    [conversation] = conversations(tower, 1)
    room = len(conversation.tokens) + 8
    sampler = Sampler(tower, SamplingConfig(max_new_tokens=3, max_context=room))
    actions: list[Action] = []
    values: list[float] = []

    def on_action(_: Conversation, action: Action) -> Next:
        actions.append(action)
        return Next(list(range(10, 40)))

    sampler.run(iter([conversation]), on_action, on_value=lambda _, value: values.append(value))
    assert len(actions) == 1
    assert len(values) == 1
    assert conversation.tokens[-5:] == [10, 11, 12, 13, 14]


def test_a_state_that_is_given_up_is_not_sampled(tower: ActorCritic) -> None:
    made = conversations(tower, 4)
    turns = dict.fromkeys("0123", 0)

    def on_action(conversation: Conversation, action: Action) -> Next | None:
        turns[conversation.key] += 1
        return Next(tower.template.follow("go", ended=not action.cut)) if turns[conversation.key] < 3 else None

    Sampler(tower, SamplingConfig(max_new_tokens=3)).run(
        iter(made), on_action, on_state=lambda conversation, _: conversation.key != "2"
    )
    assert turns == {"0": 3, "1": 3, "2": 1, "3": 3}


def test_conversations_are_taken_only_when_there_is_room(tower: ActorCritic) -> None:
    taken: list[str] = []
    finished: list[str] = []

    def supply():
        for conversation in conversations(tower, 6):
            assert len(taken) - len(finished) < 2
            taken.append(conversation.key)
            yield conversation

    Sampler(tower, SamplingConfig(max_new_tokens=3, concurrent=2)).run(
        supply(), lambda conversation, _: finished.append(conversation.key)
    )
    assert sorted(finished) == sorted(taken) == list("012345")


def test_a_later_prompt_without_the_shared_prefix_is_sampled_too(tower: ActorCritic) -> None:
    made = conversations(tower, 3)
    other = Conversation("other", [Message("user", "quite another 12 beginning")], sample_seed=5)
    other.tokens.extend(tower.template.start(other.messages))
    made.append(other)
    length = len(other.tokens)
    actions: dict[str, Action] = {}
    Sampler(tower, SamplingConfig(max_new_tokens=4, concurrent=3)).run(
        iter(made), lambda conversation, action: actions.update({conversation.key: action})
    )
    sequence = TokenSequence(other.tokens, [i >= length for i in range(len(other.tokens))])
    evaluation = tower.evaluate([sequence])
    torch.testing.assert_close(
        torch.tensor(actions["other"].logprobs), evaluation.logprobs_N.detach(), atol=2e-5, rtol=0
    )


def fed(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the tokens of each pass."""
    counts: list[int] = []
    extend = sampler._decoder.extend

    def counted(tokens: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        counts.append(sum(map(len, tokens)))
        return extend(tokens)

    monkeypatch.setattr(sampler._decoder, "extend", counted)
    return counts


@BOTH
def test_the_prompt_of_a_group_is_read_once(tower: ActorCritic, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [[*range(100, 112), *range(200 + 50 * group, 215 + 50 * group)] for group in range(2)]
    made = [Conversation(str(i), [], sample_seed=i) for i in range(8)]
    for index, conversation in enumerate(made):
        conversation.tokens = list(prompts[index // 4])
    sampler = Sampler(tower, SamplingConfig(max_new_tokens=4), plain=plain)
    counts = fed(sampler, monkeypatch)
    actions = sampler.act(made)
    assert counts == [27, 1 + 3 + 15, 4 + 4, 4 + 4, 3 + 4, 3]
    masks = [[i >= len(prompts[k // 4]) for i in range(len(c.tokens))] for k, c in enumerate(made)]
    sequences = [TokenSequence(c.tokens, mask) for c, mask in zip(made, masks, strict=True)]
    evaluation = tower.evaluate(sequences)
    sampled = torch.tensor([x for action in actions for x in action.logprobs])
    torch.testing.assert_close(sampled, evaluation.logprobs_N.detach(), atol=2e-5, rtol=0)


@BOTH
def test_one_that_arrives_later_goes_on_from_a_row_that_is_leaving(
    tower: ActorCritic, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    [one] = conversations(tower, 1)
    made = [Conversation(str(i), [], sample_seed=i) for i in range(3)]
    for conversation in made:
        conversation.tokens = list(one.tokens)
    sampler = Sampler(tower, SamplingConfig(max_new_tokens=2, concurrent=1), plain=plain)
    counts = fed(sampler, monkeypatch)
    sampler.act(made)
    assert counts == [len(one.tokens), 1, 1, 1, 1, 1]


def test_a_limit_may_differ_from_conversation_to_conversation(tower: ActorCritic) -> None:
    class Growing(Sampler):
        def limit(self, conversation: Conversation) -> int:
            return 2 + int(conversation.key)

    tower.template.end_ids = frozenset()
    actions = Growing(tower, SamplingConfig(max_new_tokens=1)).act(conversations(tower, 3))
    assert [len(action.tokens) for action in actions] == [2, 3, 4]


@pytest.mark.parametrize("tokens", [[], [5] * 40])
def test_a_prompt_that_leaves_no_room_is_refused(tower: ActorCritic, tokens: list[int]) -> None:
    conversation = Conversation("x", [])
    conversation.tokens.extend(tokens)
    sampler = Sampler(tower, SamplingConfig(max_context=40))
    with pytest.raises(ModelError, match="accepted: 1 to 39"):
        sampler.run(iter([conversation]), lambda *_: None)
