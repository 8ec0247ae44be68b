"""Sample many conversations at once, over many turns, without computing anything twice.

Continuous batching: a finished conversation leaves its row at once and the next one enters; every pass
feeds every live row, one sampled token to most and a prompt or an observation to some. Keys and values
stay between the turns of a conversation. The prompt prefix that the first conversations share is
computed once. Each conversation draws from its own random stream, so that what it samples does not
depend on the others (up to rounding of the matrix products).

`drawing.py` draws tokens; `decode.py` and `fast_decode.py` run the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from foretaste.config import SamplingConfig
from foretaste.errors import ModelError
from foretaste.models.actor_critic import ActorCritic
from foretaste.models.decode import Decoder, PlainDecoder
from foretaste.models.drawing import draw, uniforms
from foretaste.models.fast_decode import FastDecoder
from foretaste.records import Action, Conversation

MIN_SHARED = 8
"""Shorter shared prefixes are not kept apart."""


class Next(NamedTuple):
    """What a conversation does after an action."""

    tokens: list[int]
    """Observation tokens to append (see `ChatTemplate.follow`)."""
    generate: bool = True
    """False: only read V of the state after them, then let the conversation go."""


@dataclass(slots=True)
class _Row:
    """A live conversation; `pending` are tokens that the model has not read yet."""

    conversation: Conversation
    pending: list[int]
    first: bool = True
    starting: bool = True
    generate: bool = True
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


OnAction = Callable[[Conversation, Action], Next | None]
OnState = Callable[[Conversation, float], bool]
OnValue = Callable[[Conversation, float], None]


class Sampler:
    """Samples actions, log-probabilities and values from an `ActorCritic`; a `Policy` too."""

    def __init__(self, actor_critic: ActorCritic, config: SamplingConfig, *, plain: bool = False) -> None:
        """Take the fast decode path where the model's shape allows it; `plain` forbids it."""
        self.actor_critic = actor_critic
        self.config = config
        limit = getattr(actor_critic.language_model.config, "max_position_embeddings", None)
        self.max_context = min(config.max_context, limit or config.max_context)
        """Tokens at which a conversation is full: the configured number, or fewer if the model has fewer positions."""
        fast = not plain and FastDecoder.supports(actor_critic, self.max_context)
        self._decoder: Decoder = FastDecoder(actor_critic) if fast else PlainDecoder(actor_critic)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.actor_critic.source

    def act(self, conversations: list[Conversation]) -> list[Action]:
        """Return one action per conversation, in order, and append its tokens to the conversation.

        A conversation without tokens gets them from its messages. Each call reads contexts anew (shared
        prefixes once); use `run` for many turns.
        """
        for conversation in conversations:
            if not conversation.tokens:
                conversation.tokens.extend(self.actor_critic.template.start(conversation.messages))
        actions: dict[int, Action] = {}
        self.run(iter(conversations), lambda conversation, action: actions.update({id(conversation): action}))
        return [actions[id(conversation)] for conversation in conversations]

    def run(
        self,
        conversations: Iterator[Conversation],
        on_action: OnAction,
        *,
        on_state: OnState | None = None,
        on_value: OnValue | None = None,
    ) -> None:
        """Sample until the iterator is empty and every conversation has ended.

        Takes at most `config.concurrent` at once, and the next one only when a row is free.
        `on_action(conversation, action)` follows each turn; `Next` continues, None ends.
        `on_state(conversation, V)` runs before each turn but the first; False gives the conversation up.
        `on_value(conversation, V)` receives V for `Next(generate=False)`.

        Limits: `max_new_tokens` cuts an action (`Action.cut`, no end token is forged). A conversation that is
        full (`max_context` tokens) has its action cut too. If it is continued after that, or with an
        observation that leaves no room for an action, as much of the observation as fits is read, V there
        goes to `on_value`, and the conversation is let go: the best value there is of a truncated episode.

        Raises: ModelError for an empty prompt, or one that leaves no room for an action.
        """
        rows: list[_Row] = []
        waiting = self._take(conversations, self.config.concurrent)
        prefix = self._shared_prefix(waiting)
        self._decoder.begin(prefix)
        while True:
            for conversation in waiting:
                shares = len(prefix) > 0 and conversation.tokens[: len(prefix)] == prefix
                shares = shares and len(conversation.tokens) > len(prefix)
                self._decoder.admit(shares)
                rows.append(_Row(conversation, conversation.tokens[len(prefix) if shares else 0 :]))
            if not rows:
                return
            logits_BV, values_B = self._decoder.extend([row.pending for row in rows])
            leaving = self._advance(rows, logits_BV, values_B.tolist(), on_action, on_state, on_value)
            for index in reversed(leaving):
                self._decoder.drop(index)
                rows[index] = rows[-1]
                rows.pop()
            waiting = self._take(conversations, self.config.concurrent - len(rows))

    def _advance(
        self,
        rows: list[_Row],
        logits_BV: Tensor,
        values: list[float],
        on_action: OnAction,
        on_state: OnState | None,
        on_value: OnValue | None,
    ) -> list[int]:
        """Sample one token in every row that generates; return the rows that leave, ascending."""
        seeds = [row.conversation.sample_seed for row in rows]
        drawn = draw(
            logits_BV, self.config.temperature, uniforms(seeds, [len(row.conversation.tokens) for row in rows])
        )
        tokens, logprobs = drawn[0].tolist(), drawn[1].tolist()
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
            ended = token in self.actor_critic.template.end_ids
            full = len(conversation.tokens) >= self.max_context
            if (ended or full or len(row.tokens) >= self.config.max_new_tokens) and not self._turn(
                row, on_action, cut=not ended
            ):
                leaving.append(index)
        return leaving

    def _turn(self, row: _Row, on_action: OnAction, *, cut: bool) -> bool:
        """Hand the finished action over and take up the observation; False if the conversation ends."""
        text = self.actor_critic.template.text(row.tokens)
        action = Action(text, tuple(row.tokens), tuple(row.logprobs), tuple(row.values), cut)
        then = on_action(row.conversation, action)
        if then is None:
            return False
        room = self.max_context - len(row.conversation.tokens)
        observation = list(then.tokens[:room])
        row.conversation.tokens.extend(observation)
        row.pending.extend(observation)
        row.generate = then.generate and len(then.tokens) < room
        row.first, row.starting = False, True
        row.tokens, row.logprobs, row.values = [], [], []
        return True

    def _take(self, conversations: Iterator[Conversation], count: int) -> list[Conversation]:
        """Return up to `count` further conversations, their prompts checked."""
        taken: list[Conversation] = []
        while len(taken) < count and (conversation := next(conversations, None)) is not None:
            if not 0 < len(conversation.tokens) < self.max_context:
                raise ModelError(
                    f"The prompt of conversation {conversation.key!r} has {len(conversation.tokens)} tokens; accepted: "
                    f"1 to {self.max_context - 1} (sampling.max_context = {self.max_context}, an action needs room). "
                    "Show fewer worked examples or raise max_context."
                )
            taken.append(conversation)
        return taken

    @staticmethod
    def _shared_prefix(conversations: list[Conversation]) -> list[int]:
        """Return what the prompts have in common, leaving each at least one token of its own."""
        if len(conversations) < 2:
            return []
        prompts = [conversation.tokens for conversation in conversations]
        first, last = min(prompts), max(prompts)
        limit = min(map(len, prompts)) - 1
        shared = next((i for i in range(limit) if first[i] != last[i]), limit)
        return first[:shared] if shared >= MIN_SHARED else []
