"""Token-in, token-out chats: what a tokenizer's chat template puts before, between and after turns.

A conversation is only ever extended: prompt, sampled tokens, observation tokens, sampled tokens ...
Nothing is decoded and tokenised again, so what the sampler saw is what training sees. That is only
faithful if the template itself extends: `ChatTemplate` checks this when it is built and refuses
templates that rewrite earlier turns (for example by dropping their reasoning). `chat/` renders and
tokenises. Next: `sampler.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

from foretaste.errors import ModelError
from foretaste.models.chat.control_tokens import TokenText
from foretaste.models.chat.rendering import Rendering
from foretaste.records import Message, well_formed

_QUESTION, _ANSWER, _OBSERVATION = "first-question", "sampled-answer", "next-observation"
_REASONED = "<think>because</think>" + _ANSWER


class _Pieces(NamedTuple):
    """The text that a template puts around what is said."""

    lead: str
    """Blanks between the mark after which the assistant answers and its answer; they are part of the answer."""
    tail: str
    """Blanks between an answer and the token that closes it."""
    closer: str | None
    """The control token that closes an answer; None if the template has none there."""
    between: str
    """All text between an answer and the next observation."""
    after: str
    """All text between an observation and the next answer's lead."""
    trims: bool
    """Whether blanks around content are dropped."""


class ChatTemplate:
    """The chat template of a tokenizer, split into the pieces that extend a conversation."""

    def __init__(self, tokenizer: Any) -> None:
        """Derive the pieces from the template.

        Raises: ModelError if the template cannot be rendered, rewrites earlier turns, or nothing marks the end of an
        answer.
        """
        self.tokenizer = tokenizer
        self._render = Rendering(tokenizer)
        self.notes = self._render.notes
        """What a user should know of how this template is used, one sentence each."""
        self._name = self._render.name
        self._text = TokenText(tokenizer)
        lead = self._check_extends()
        said = [Message("system", "instructions"), Message("user", _QUESTION), Message("assistant", _ANSWER)]
        self._text.learn(self._render([*said, *_asked()]))
        self._pieces = self._find_pieces(lead)
        self._first = self._own_beginning() if self._render.fallback else []
        closer, last = self._pieces.closer, _token_id(tokenizer, "eos_token")
        ends = [self._text.ids[closer]] if closer else []
        ends += [last] if last is not None else []
        if not ends:
            raise ModelError(
                f"The tokenizer {self._name!r} has no end-of-text token and its template closes answers with none, "
                "so an answer could never end. Set `eos_token` in its tokenizer_config.json."
            )
        self._end = ends[0]
        self.end_ids: frozenset[int] = frozenset(ends)
        """Tokens that end an action: what the template closes answers with, and the end-of-text token."""

    def ending_also_at(self, declared: Iterable[Any]) -> Self:
        """Return this template with further end tokens, as a model's generation settings list them.

        Left out are numbers that are no control token (settings may come from another tokenizer), and tokens that
        open turns.
        """
        controls = set(self._text.ids.values())
        opening = set(self.start(_asked())) | {_token_id(self.tokenizer, name) for name in ("bos_token", "unk_token")}
        more = {end for end in declared if isinstance(end, int) and end in controls - opening}
        if more <= self.end_ids:
            return self
        other = copy.copy(self)
        other.end_ids = self.end_ids | more
        return other

    def start(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a whole prompt, up to and including the mark after which the policy answers.

        Raises: ModelError if the template refuses these messages.
        """
        said = [Message(role, self._content(content)) for role, content in messages]
        return [*self._first, *self._text.encode(self._render(said))]

    def follow(self, observation: str, *, ended: bool) -> list[int]:
        """Return the tokens between the end of an action and the start of the next one.

        `ended` says that the action sampled its end token; otherwise the token that closes the answer
        is among the returned ones (it is an observation then: the policy did not choose it).
        """
        observation, pieces = self._content(observation), self._pieces
        if pieces.trims:
            observation = observation.strip()
        rest = observation + pieces.after
        if pieces.closer is None or (not ended and pieces.tail):
            return self._text.follow(_ANSWER, pieces.between + rest)
        tokens = self._text.encode(pieces.between.removeprefix(pieces.tail) + rest)
        return tokens[1:] if ended else tokens

    def text(self, tokens: Sequence[int]) -> str:
        """Return an action as text: without the end token and the blanks that the template puts around answers.

        Any other control token is shown by name: whoever judges the action must see what was written.
        """
        said = list(tokens)
        if said and said[-1] in self.end_ids:
            said.pop()
        text = self.tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text.removeprefix(self._pieces.lead).removesuffix(self._pieces.tail if len(said) < len(tokens) else "")

    def piece(self, token: int) -> str:
        """Return one token as text, for people to read; special tokens are shown by name."""
        return self.tokenizer.decode([token], clean_up_tokenization_spaces=False)

    def action(self, text: str) -> list[int]:
        """Return an answer given as text as the tokens that it has in a conversation, its end included."""
        said = self._pieces.lead + self._content(text) + (self._pieces.tail if self._pieces.closer else "")
        return [*self._text.follow(self._pieces.after, said), self._end]

    def plain(self, text: str) -> list[int]:
        """Return the tokens of text that no template surrounds, without any control token."""
        return self._text.encode(self._content(text))

    def _content(self, text: str) -> str:
        return self._text.mark(well_formed(text))

    def _check_extends(self) -> str:
        """Every longer conversation must start with the shorter one and its answer; return the answers' lead."""
        leads: set[str] = set()
        for answer in (_ANSWER, _REASONED):
            messages = [Message("user", _QUESTION)]
            before = self._render(messages)
            for turn in range(2):
                messages = [*messages, Message("assistant", answer), Message("user", f"{_OBSERVATION} {turn}")]
                after = self._render(messages)
                rest = after.removeprefix(before) if after.startswith(before) else ""
                lead = rest[: len(rest) - len(rest.lstrip())]
                leads.add(lead)
                if not after.startswith(before + lead + answer) or len(leads) > 1:
                    raise self._rewrites(before + min(leads, key=len) + answer, after)
                before = after
        return leads.pop()

    def _rewrites(self, expected: str, after: str) -> ModelError:
        at = next((i for i, c in enumerate(expected) if after[i : i + 1] != c), len(expected))
        return ModelError(
            f"The chat template of {self._name!r} rewrites earlier turns: after a follow-up question the "
            f"conversation should still begin with {expected[max(0, at - 30) : at + 30]!r} there, but "
            f"reads {after[max(0, at - 30) : at + 30]!r}. Training needs a template that only appends; "
            "put one into the model's folder as chat_template.jinja and name that folder."
        )

    def _find_pieces(self, lead: str) -> _Pieces:
        said = [Message("user", _QUESTION), Message("assistant", _ANSWER)]
        rest = self._render([*said, *_asked()]).split(_ANSWER, 1)[1]
        between, after = rest.split(_OBSERVATION, 1)
        blanks = f"  {_OBSERVATION}\n"
        padded = self._render([*said, Message("user", blanks)])
        trims = padded.split(_ANSWER, 1)[1] != between + blanks + after
        tail, closer = self._text.leading_control(between) or ("", None)
        return _Pieces(lead, tail, closer, between, after, trims)

    def _own_beginning(self) -> list[int]:
        """Return what the tokenizer itself puts before a text: base models have read it before every one."""
        bare = self.tokenizer.encode(_QUESTION, add_special_tokens=False)
        whole = self.tokenizer.encode(_QUESTION)
        at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        return whole[:at]


def _asked() -> list[Message]:
    return [Message("user", _OBSERVATION)]


def _token_id(tokenizer: Any, name: str) -> int | None:
    """Return the id of a named token of the tokenizer; None if it has no such token, or an empty one."""
    return getattr(tokenizer, f"{name}_id", None) if getattr(tokenizer, name, None) else None
