"""Sample with vLLM: tokens and log-probabilities from there, values in a pass of our own over each finished turn.

Every turn is a request with the whole context, which vLLM's prefix cache spares it reading again. Turns end at
different times: one that has ended gets its observation and goes on while others still decode. An action is drawn
from a seed of its conversation and of the position where it begins, so a run with the same seeds, on the same machine,
repeats. Weights that have changed since they were last handed over are handed over at the beginning of a run, and what
vLLM then says of the first tokens is held against our own reading.

`vllm_server.py` talks to vLLM. `turns.py` says what a turn is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from foretaste.config import SamplingConfig
from foretaste.errors import ModelError
from foretaste.models.actor_critic import ActorCritic, TokenSequence
from foretaste.models.drawing import diverged, stream_seed
from foretaste.models.fast_layers import merged
from foretaste.models.turns import Engine, OnAction, OnEnded, OnState, OnValue
from foretaste.models.vllm_server import Answer, TokenServer, VllmServer
from foretaste.records import Conversation

PASS_TOKENS = 8192
"""Tokens, padding included, of a pass that reads values."""
APART = 1.0
"""Median difference of log-probabilities that no rounding makes: vLLM has other weights, or computes another model."""


class VllmSampler(Engine):
    """Samples with vLLM; the values are our own."""

    def __init__(self, actor_critic: ActorCritic, config: SamplingConfig, *, server: TokenServer | None = None) -> None:
        """Start vLLM, or use `server` in its place. Raises: ModelError as `VllmServer` does."""
        super().__init__(actor_critic, config)
        self._server: TokenServer = server or VllmServer(actor_critic, config, self.max_context)
        self._versions: list[int] = []
        self._believed = False
        self._numbers = itertools.count()

    def run(
        self,
        conversations: Iterator[Conversation],
        on_action: OnAction,
        *,
        on_state: OnState | None = None,
        on_value: OnValue | None = None,
        on_ended: OnEnded | None = None,
    ) -> None:
        """See `Engine.run`.

        Raises, besides: ModelError if vLLM's log-probabilities are not those of the policy.
        """
        self._server.begin()
        self._refresh()
        live: dict[str, Conversation] = {}
        try:
            while True:
                for conversation in self._take(conversations, self.config.concurrent - len(live)):
                    self._ask(conversation, live)
                if not live:
                    return
                ended = [(live.pop(answer.key), answer) for answer in self._server.step()]
                for conversation in self._advance(ended, on_action, on_state, on_value, on_ended):
                    self._ask(conversation, live)
        finally:
            self._server.drop(list(live))

    def rest(self) -> None:
        """See `Engine.rest`."""
        self._server.rest()

    def _refresh(self) -> None:
        """Hand the policy's weights over if any has changed since the last time; the critic's stay here."""
        versions = [parameter._version for parameter in self.actor_critic.policy.parameters()]
        if versions != self._versions:
            self._server.load(dense_weights(self.actor_critic.language_model))
            self._versions, self._believed = versions, False

    def _ask(self, conversation: Conversation, live: dict[str, Conversation]) -> None:
        """Let the next action of a conversation be sampled."""
        key, position = str(next(self._numbers)), len(conversation.tokens)
        limit = max(1, min(self.limit(conversation), self.max_context - position))
        self._server.ask(key, conversation.tokens, limit=limit, seed=stream_seed(conversation.sample_seed, position))
        live[key] = conversation

    def _advance(
        self,
        ended: Sequence[tuple[Conversation, Answer]],
        on_action: OnAction,
        on_state: OnState | None,
        on_value: OnValue | None,
        on_ended: OnEnded | None,
    ) -> list[Conversation]:
        """Hand over the actions that have ended; return the conversations that go on with another."""
        going: list[Conversation] = []
        final: list[Conversation] = []
        read = self._values_of(ended)
        if on_ended is not None:
            ends = self.actor_critic.template.end_ids
            on_ended(
                lambda: [
                    (item, self._action(said.tokens, said.logprobs, values, cut=said.tokens[-1] not in ends))
                    for (item, said), values in zip(ended, read, strict=True)
                ]
            )
        for (conversation, answer), values in zip(ended, read, strict=True):
            cut = answer.tokens[-1] not in self.actor_critic.template.end_ids
            then = self._hand_over(conversation, answer.tokens, answer.logprobs, values, on_action, cut=cut)
            if then is not None:
                (going if then.generate else final).append(conversation)
        if on_value is not None:
            for conversation, value in zip(final, self._states(final), strict=True):
                on_value(conversation, value)
        if on_state is None:
            return going
        states = zip(going, self._states(going), strict=True)
        return [conversation for conversation, value in states if on_state(conversation, value)]

    def _values_of(self, ended: Sequence[tuple[Conversation, Answer]]) -> list[list[float]]:
        """Append each action to its conversation; return the value before each of its tokens."""
        sequences: list[TokenSequence] = []
        for conversation, answer in ended:
            if not all(map(math.isfinite, answer.logprobs)):
                raise diverged()
            context = len(conversation.tokens)
            conversation.tokens.extend(answer.tokens)
            sequences.append(TokenSequence(conversation.tokens, [False] * context + [True] * len(answer.tokens)))
        return self._read(sequences, [answer.logprobs for _, answer in ended])

    def _states(self, conversations: Sequence[Conversation]) -> list[float]:
        """Return V of the states that conversations are in: the value before a token that nobody reads."""
        sequences = [TokenSequence([*c.tokens, c.tokens[-1]], [False] * len(c.tokens) + [True]) for c in conversations]
        return [value for [value] in self._read(sequences)]

    @torch.no_grad()
    def _read(
        self, sequences: Sequence[TokenSequence], logprobs: Sequence[Sequence[float]] | None = None
    ) -> list[list[float]]:
        """Return the values of each sequence's action tokens. The first pass after a hand-over checks `logprobs`."""
        found: list[list[float]] = [[] for _ in sequences]
        for rows in _passes([len(sequence.tokens) for sequence in sequences]):
            checked = logprobs is not None and not self._believed
            evaluation = self.actor_critic.evaluate(
                [sequences[row] for row in rows], temperature=self.config.temperature or 1.0, policy=checked
            )
            if checked and logprobs is not None:
                self._compare(evaluation.logprobs_N, [x for row in rows for x in logprobs[row]])
            counts = [sum(sequences[row].action_mask) for row in rows]
            for row, values in zip(rows, evaluation.values_N.float().cpu().split(counts), strict=True):
                found[row] = values.tolist()
        return found

    def _compare(self, ours_N: Tensor, theirs: Sequence[float]) -> None:
        apart = (ours_N.float().cpu() - torch.tensor(theirs)).abs().median().item()
        if not apart <= APART:
            raise ModelError(
                f"vLLM's log-probabilities of {len(theirs)} sampled tokens are not those of the policy: they differ by "
                f"{apart:.2f} in the median, and rounding makes no more than {APART}. vLLM computes "
                f"{type(self.actor_critic.language_model).__name__} otherwise or did not take all its weights; set "
                'sampling.engine = "auto"'
            )
        self._believed = True


def dense_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a causal LM in the names of its checkpoint, layer by layer, LoRA adapters merged.

    A weight that two layers share comes once, by its first name.
    """
    inside: tuple[str, ...] = ()
    seen: set[int] = set()
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            continue
        prefix = f"{name}." if name else ""
        if hasattr(module, "base_layer"):
            inside = (*inside, prefix)
            weight, bias = merged(module)
            yield f"{prefix}weight", weight
            if bias is not None:
                yield f"{prefix}bias", bias
            continue
        for own, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{prefix}{own}", parameter.detach()


def _passes(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Part sequences, by their lengths, so that each part, padded, has at most PASS_TOKENS tokens, or one sequence."""
    part: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if part and lengths[row] * (len(part) + 1) > PASS_TOKENS:
            yield part
            part = []
        part.append(row)
    if part:
        yield part
