"""Scenes that several model tests play: conversations, a two-sided exchange, and what training makes of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from foretaste.config import SamplingConfig
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.models.sampler import Next, Sampler
from foretaste.models.turns import Engine
from foretaste.records import Action, Conversation, Message


@dataclass
class Exchange:
    """What came out of `play`, by conversation key."""

    conversations: list[Conversation]
    actions: dict[str, list[Action]] = field(default_factory=dict)
    masks: dict[str, list[bool]] = field(default_factory=dict)
    states: dict[str, list[float]] = field(default_factory=dict)
    finals: dict[str, float] = field(default_factory=dict)

    def sequences(self) -> list[TokenSequence]:
        return [TokenSequence(c.tokens, self.masks[c.key]) for c in self.conversations]

    def flat(self, name: str) -> list[float]:
        return [x for c in self.conversations for action in self.actions[c.key] for x in getattr(action, name)]


def conversations(model: ActorCritic, count: int, *, seed: int = 0) -> list[Conversation]:
    draw = random.Random(seed)
    made = []
    for index in range(count):
        question = "what " + "door " * draw.randrange(6) + str(draw.randrange(1000))
        messages = [Message("system", "You answer with one word, and go on."), Message("user", question)]
        made.append(Conversation(str(index), messages, sample_seed=draw.randrange(2**40)))
        made[-1].tokens.extend(model.template.start(messages))
    return made


def play(
    model: ActorCritic,
    count: int = 8,
    *,
    plain: bool = False,
    concurrent: int = 5,
    turns: int = 3,
    max_new_tokens: int = 7,
    seed: int = 0,
    temperature: float = 1.0,
    engine: Callable[[ActorCritic, SamplingConfig], Engine] | None = None,
    long: tuple[str, int] = ("", 0),
) -> Exchange:
    """Conversations of several turns with observations of different lengths; odd ones end with a value.

    `long`: which conversation reads so many words more after its first turn.
    """
    config = SamplingConfig(concurrent=concurrent, temperature=temperature, max_new_tokens=max_new_tokens)
    sampler = engine(model, config) if engine else Sampler(model, config, plain=plain)
    out = Exchange(conversations(model, count, seed=seed))
    for conversation in out.conversations:
        out.actions[conversation.key] = []
        out.masks[conversation.key] = [False] * len(conversation.tokens)

    def on_action(conversation: Conversation, action: Action) -> Next | None:
        key, mask = conversation.key, out.masks[conversation.key]
        out.actions[key].append(action)
        mask += [True] * len(action.tokens)
        done = len(out.actions[key])
        text = "seen " * (done + int(key) % 4 + (long[1] if key == long[0] and done == 1 else 0))
        following = Next(model.template.follow(text, ended=not action.cut), generate=done < turns)
        if done == turns and int(key) % 2 == 0:
            return None
        mask += [False] * len(following.tokens)
        return following

    def on_state(conversation: Conversation, value: float) -> bool:
        out.states.setdefault(conversation.key, []).append(value)
        return True

    def on_value(conversation: Conversation, value: float) -> None:
        out.finals[conversation.key] = value

    sampler.run(iter(out.conversations), on_action, on_state=on_state, on_value=on_value)
    return out
