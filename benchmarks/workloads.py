"""What is sampled in the benchmarks: conversations as token ids, the same for every side.

Standard library only, since peers import it in environments of their own. `rows.py` says which row uses which.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

CONCURRENT = 64
"""Conversations in flight at a time, on every side."""


class Turn(NamedTuple):
    """An action of a fixed length, and what the environment says after it (nothing: the conversation ends)."""

    new_tokens: int
    observation: list[int]


class Talk(NamedTuple):
    """One conversation."""

    prompt: list[int]
    turns: list[Turn]


def _tokens(draw: random.Random, count: int) -> list[int]:
    """Return ordinary tokens of SmolLM2's vocabulary of 49,152, without the special ones at its start."""
    return [draw.randrange(1000, 49000) for _ in range(count)]


def short(seed: int, count: int = CONCURRENT) -> list[Talk]:
    """Short prompts of 16 to 32 tokens, 32 new tokens each."""
    draw = random.Random(f"short {seed}")
    return [Talk(_tokens(draw, draw.randrange(16, 33)), [Turn(32, [])]) for _ in range(count)]


def shared(seed: int, count: int = CONCURRENT) -> list[Talk]:
    """Groups of 8 with the same prompt of 256 tokens, 32 new tokens each."""
    draw = random.Random(f"shared {seed}")
    prompts = [_tokens(draw, 256) for _ in range(-(-count // 8))]
    return [Talk(prompts[index // 8], [Turn(32, [])]) for index in range(count)]


def multi_turn(seed: int, count: int = CONCURRENT) -> list[Talk]:
    """8 turns of 16 new tokens; prompts of 32 to 64 tokens, observations of 8 to 40."""
    draw = random.Random(f"multi-turn {seed}")
    talks = []
    for _ in range(count):
        observations = [_tokens(draw, draw.randrange(8, 41)) for _ in range(7)]
        talks.append(Talk(_tokens(draw, draw.randrange(32, 65)), [Turn(16, one) for one in [*observations, []]]))
    return talks


def uneven(seed: int, count: int = 3 * CONCURRENT) -> list[Talk]:
    """Three times as many conversations as fit; lengths geometric with mean 32, at most 256."""
    draw = random.Random(f"uneven {seed}")
    talks = []
    for _ in range(count):
        length = 1
        while length < 256 and draw.random() > 1 / 32:
            length += 1
        talks.append(Talk(_tokens(draw, draw.randrange(16, 33)), [Turn(length, [])]))
    return talks


WORKLOADS: dict[str, Callable[..., list[Talk]]] = {
    "short": short,
    "shared": shared,
    "multi-turn": multi_turn,
    "uneven": uneven,
}
QUICK_COUNT = 16
"""Conversations of a workload with `--quick`."""


def talks(name: str, seed: int, *, quick: bool) -> list[Talk]:
    """Return the conversations of a workload; each seed has its own, so that no cache of an earlier run helps."""
    return WORKLOADS[name](seed, QUICK_COUNT) if quick else WORKLOADS[name](seed)


def new_tokens(conversations: list[Talk]) -> int:
    """Return how many tokens are sampled in all."""
    return sum(turn.new_tokens for talk in conversations for turn in talk.turns)


# One whole training step --------------------------------------------------------------------------

STEP_GROUPS, STEP_GROUP_SIZE, STEP_NEW_TOKENS = 8, 8, 32
STEP_INSTRUCTIONS = "You tell short stories."
_THINGS = ["river", "lamp", "horse", "letter", "garden", "train", "mountain", "clock", "bridge", "storm", "key"]


def step_questions(count: int, *, seed: int = 0) -> list[str]:
    """Return prompts of a training step; each is answered by a group of attempts."""
    draw = random.Random(f"step {seed}")
    return [f"Write a story about a {a} and a {b}." for a, b in (draw.sample(_THINGS, 2) for _ in range(count))]


def step_reward(text: str) -> float:
    """Return an arbitrary reward that differs within a group: the share of vowels in the text."""
    return sum(letter in "aeiou" for letter in text) / max(1, len(text))
