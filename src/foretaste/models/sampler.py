"""Sample many conversations at once, over many turns, without computing anything twice.

Continuous batching: a finished conversation leaves its row at once and the next one enters; every pass
feeds every live row, one sampled token to most and a prompt or an observation to some. Keys and values
stay between the turns of a conversation. What a prompt has in common with that of a live row is not read
again: instructions and worked examples, or the whole prompt of a group. Each conversation draws from its
own random stream, so that what it samples does not depend on the others (up to rounding of the matrix
products).

`drawing.py` draws tokens; `decode.py` and `fast_decode.py` run the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from foretaste.config import SamplingConfig
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.decode import Decoder, PlainDecoder
from foretaste.models.drawing import draw, uniforms
from foretaste.models.fast_decode import FastDecoder
from foretaste.models.turns import Engine, Next, OnAction, OnEnded, OnState, OnValue
from foretaste.records import Action, Conversation

__all__ = ["Next", "Sampler"]

MIN_SHARED = 8
"""Fewer shared tokens are read again."""


@dataclass(slots=True)
class _Row:
    """A live conversation; `pending` are tokens that the model has not read yet."""

    conversation: Conversation
    prompt: Array
    pending: list[int]
    first: bool = True
    starting: bool = True
    generate: bool = True
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


Array = NDArray[np.int64]


class Sampler(Engine):
    """Samples with this process's own decoders; values are read along with the tokens."""

    def __init__(self, actor_critic: ActorCritic, config: SamplingConfig, *, plain: bool = False) -> None:
        """Take the fast decode path where the model's shape allows it; `plain` forbids it."""
        super().__init__(actor_critic, config)
        fast = not plain and FastDecoder.supports(actor_critic, self.max_context)
        self._decoder: Decoder = FastDecoder(actor_critic) if fast else PlainDecoder(actor_critic)

    def run(
        self,
        conversations: Iterator[Conversation],
        on_action: OnAction,
        *,
        on_state: OnState | None = None,
        on_value: OnValue | None = None,
        on_ended: OnEnded | None = None,
    ) -> None:
        """See `Engine.run`."""
        rows: list[_Row] = []
        held: list[Conversation] = []
        leaving: list[int] = []
        self._decoder.begin()
        while True:
            room = self.config.concurrent - len(rows) + len(leaving) - len(held)
            held = self._admit(rows, [*held, *self._take(conversations, room)])
            for index in reversed(leaving):
                self._decoder.drop(index)
                rows[index] = rows[-1]
                rows.pop()
            if not rows:
                return
            logits_BV, values_B = self._decoder.extend([row.pending for row in rows])
            leaving = self._advance(rows, logits_BV, values_B.tolist(), on_action, on_state, on_value, on_ended)

    def rest(self) -> None:
        """See `Engine.rest`."""
        self._decoder.rest()

    def _admit(self, rows: list[_Row], arriving: list[Conversation]) -> list[Conversation]:
        """Give conversations rows, each going on from the row that has read most of its prompt.

        Returns those that had better wait for the next pass, since another that arrived with them reads more of it.
        """
        there, held = len(rows), []
        for conversation in arriving:
            prompt = np.array(conversation.tokens)
            read = [(_common(row.prompt, prompt), index) for index, row in enumerate(rows[:there])]
            shared, source = max(read, default=(0, 0))
            if max((_common(row.prompt, prompt) for row in rows[there:]), default=0) >= shared + MIN_SHARED:
                held.append(conversation)
                continue
            shared = shared if shared >= MIN_SHARED else 0
            self._decoder.admit(source if shared else None, shared)
            rows.append(_Row(conversation, prompt, conversation.tokens[shared:]))
        return held

    def _advance(
        self,
        rows: list[_Row],
        logits_BV: Tensor,
        values: list[float],
        on_action: OnAction,
        on_state: OnState | None,
        on_value: OnValue | None,
        on_ended: OnEnded | None,
    ) -> list[int]:
        """Sample one token in every row that generates; return the rows that leave, ascending."""
        seeds = [row.conversation.sample_seed for row in rows]
        drawn = draw(
            logits_BV, self.config.temperature, uniforms(seeds, [len(row.conversation.tokens) for row in rows])
        )
        tokens, logprobs = drawn[0].tolist(), drawn[1].tolist()
        if on_ended is not None:
            on_ended(lambda: self._ended(rows, tokens, logprobs, values, gated=on_state is not None))
        leaving: list[int] = []
        for index, row in enumerate(rows):
            conversation, value = row.conversation, values[index]
            if not row.generate:
                if on_value is not None:
                    on_value(conversation, value)
                leaving.append(index)
                continue
            gated = row.starting and not row.first and on_state is not None
            row.starting = False
            if gated and on_state is not None and not on_state(conversation, value):
                leaving.append(index)
                continue
            token = tokens[index]
            row.tokens.append(token)
            row.logprobs.append(logprobs[index])
            row.values.append(value)
            row.pending = [token]
            conversation.tokens.append(token)
            if self._ends(row, token) and not self._turn(
                row, on_action, cut=token not in self.actor_critic.template.end_ids
            ):
                leaving.append(index)
        return leaving

    def _ends(self, row: _Row, token: int, *, more: int = 0) -> bool:
        """Return whether an action ends with its token; `more`: tokens that its row will have taken up by then."""
        ended = token in self.actor_critic.template.end_ids
        full = len(row.conversation.tokens) + more >= self.max_context
        return ended or full or len(row.tokens) + more >= self.limit(row.conversation)

    def _ended(
        self, rows: list[_Row], tokens: list[int], logprobs: list[float], values: list[float], *, gated: bool
    ) -> list[tuple[Conversation, Action]]:
        """Return the actions that end with the tokens just drawn, but for those that a gate may still stop."""
        found: list[tuple[Conversation, Action]] = []
        for row, token, logprob, value in zip(rows, tokens, logprobs, values, strict=True):
            asked = gated and row.starting and not row.first
            if not row.generate or asked or not self._ends(row, token, more=1):
                continue
            drawn, cut = (*row.tokens, token), token not in self.actor_critic.template.end_ids
            action = self._action(drawn, (*row.logprobs, logprob), (*row.values, value), cut=cut)
            found.append((row.conversation, action))
        return found

    def _turn(self, row: _Row, on_action: OnAction, *, cut: bool) -> bool:
        """Hand the finished action over and take up the observation; False if the conversation ends."""
        then = self._hand_over(row.conversation, row.tokens, row.logprobs, row.values, on_action, cut=cut)
        if then is None:
            return False
        row.pending.extend(then.tokens)
        row.generate = then.generate
        row.first, row.starting = False, True
        row.tokens, row.logprobs, row.values = [], [], []
        return True


def _common(read: Array, prompt: Array) -> int:
    """Return how many tokens two prompts begin with in common, leaving the second one at least one of its own."""
    size = min(len(read), len(prompt) - 1)
    differs = read[:size] != prompt[:size]
    at = int(differs.argmax()) if size else 0
    return at if size and differs[at] else size
