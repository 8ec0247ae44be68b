"""What sampling a turn means, whatever engine draws the tokens: limits, observations, and what ends a conversation.

`Engine` is the interface that rollouts drive. `sampler.py` implements it with this process's own decoders,
`vllm_sampler.py` with vLLM; `engines.py` chooses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from foretaste.config import SamplingConfig
from foretaste.errors import ModelError
from foretaste.models.actor_critic import ActorCritic
from foretaste.records import Action, Conversation


class Next(NamedTuple):
    """What a conversation does after an action."""

    tokens: list[int]
    """Observation tokens to append (see `ChatTemplate.follow`)."""
    generate: bool = True
    """False: only read V of the state after them, then let the conversation go."""


OnAction = Callable[[Conversation, Action], Next | None]
Ended = Callable[[], list[tuple[Conversation, Action]]]
OnEnded = Callable[[Ended], None]
OnState = Callable[[Conversation, float], bool]
OnValue = Callable[[Conversation, float], None]


def context_limit(actor_critic: ActorCritic, config: SamplingConfig) -> int:
    """Return how many tokens a conversation may have: the configured number, or the model's positions if fewer."""
    limit = getattr(actor_critic.decoder.config, "max_position_embeddings", None)
    return min(config.max_context, limit or config.max_context)


class Engine(ABC):
    """Samples actions, log-probabilities and values from an `ActorCritic`; a `Policy` too."""

    def __init__(self, actor_critic: ActorCritic, config: SamplingConfig) -> None:
        """Note what is sampled, and how."""
        self.actor_critic = actor_critic
        self.config = config
        self.max_context = context_limit(actor_critic, config)
        """Tokens at which a conversation is full: the configured number, or fewer if the model has fewer positions."""

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

    @abstractmethod
    def run(
        self,
        conversations: Iterator[Conversation],
        on_action: OnAction,
        *,
        on_state: OnState | None = None,
        on_value: OnValue | None = None,
        on_ended: OnEnded | None = None,
    ) -> None:
        """Sample until the iterator is empty and every conversation has ended.

        Takes at most `config.concurrent` at once, and the next one only when a row is free.
        `on_action(conversation, action)` follows each turn; `Next` continues, None ends.
        `on_state(conversation, V)` runs before each turn but the first; False gives the conversation up.
        `on_value(conversation, V)` receives V for `Next(generate=False)`.
        `on_ended(ended)` runs before the `on_action` calls of one pass; `ended()` tells all that come, so that whoever
        answers them can begin to work on all at once.

        Limits: `max_new_tokens` cuts an action (`Action.cut`, no end token is forged). A conversation that is
        full (`max_context` tokens) has its action cut too. If it is continued after that, or with an
        observation that leaves no room for an action, as much of the observation as fits is read, V there
        goes to `on_value`, and the conversation is let go: the best value there is of a truncated episode.

        Raises: ModelError for an empty prompt, or one that leaves no room for an action.
        """

    @abstractmethod
    def rest(self) -> None:
        """Give memory back that sampling alone needs, until the next `run`: before learning, which needs more."""

    def limit(self, conversation: Conversation) -> int:
        """Return how many tokens the next action of a conversation may have."""
        return self.config.max_new_tokens

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
            self.actor_critic.check_tokens(conversation.tokens)
            taken.append(conversation)
        return taken

    def _hand_over(
        self,
        conversation: Conversation,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        values: Sequence[float],
        on_action: OnAction,
        *,
        cut: bool,
    ) -> Next | None:
        """Hand a finished action over and append the observation to the conversation, as far as there is room.

        Returns what of the observation was appended, and whether an action may follow; None if the conversation ends.
        """
        then = on_action(conversation, self._action(tokens, logprobs, values, cut=cut))
        if then is None:
            return None
        room = self.max_context - len(conversation.tokens)
        observation = list(then.tokens[:room])
        self.actor_critic.check_tokens(observation)
        conversation.tokens.extend(observation)
        return Next(observation, generate=then.generate and len(then.tokens) < room)

    def _action(
        self, tokens: Sequence[int], logprobs: Sequence[float], values: Sequence[float], *, cut: bool
    ) -> Action:
        """Return what was sampled as an action."""
        text = self.actor_critic.template.text(tokens)
        return Action(text, tuple(tokens), tuple(logprobs), tuple(values), cut)
