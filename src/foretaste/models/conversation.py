"""Token-in, token-out chats: what a tokenizer's chat template puts before, between and after turns.

A conversation is only ever extended: prompt, sampled tokens, observation tokens, sampled tokens ...
Nothing is decoded and tokenised again, so what the sampler saw is what training sees. That is only
faithful if the template itself extends: `ChatTemplate` checks this when it is built and refuses
templates that rewrite earlier turns (for example by dropping their reasoning). Next: `sampler.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from foretaste.errors import ModelError
from foretaste.records import Message

FALLBACK_TEMPLATE = (
    "{% for message in messages %}"
    "### {{ message['role'] }}\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}### assistant\n{% endif %}"
)
"""For tokenizers without a chat template (base models): headed sections, answers closed by the end-of-text token."""

_QUESTION, _ANSWER, _OBSERVATION = "first-question", "sampled-answer", "next-observation"
_REASONED = "<think>because</think>" + _ANSWER


class ChatTemplate:
    """The chat template of a tokenizer, split into the pieces that extend a conversation."""

    def __init__(self, tokenizer: Any) -> None:
        """Derive the pieces from the template.

        Raises: ModelError if the template rewrites earlier turns, or nothing marks the end of an answer.
        """
        self.tokenizer = tokenizer
        self._name = str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
        self._template: str | None = None if tokenizer.chat_template else FALLBACK_TEMPLATE
        self._takes_system = self._renders([Message("system", "be brief"), Message("user", _QUESTION)])
        self._special = re.compile("|".join(re.escape(text) for text in tokenizer.all_special_tokens) or r"(?!)")
        self._check_extends()
        self._between, self._after, self._trims = self._pieces()
        closing = self._encode(self._between)
        special = set(tokenizer.all_special_ids)
        ends = {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()
        if closing and closing[0] in special:
            ends.add(closing[0])
        if not ends:
            raise ModelError(
                f"The tokenizer {self._name!r} has no end-of-text token and its template closes answers with none, "
                "so an answer could never end. Set `eos_token` in its tokenizer_config.json."
            )
        self.end_ids: frozenset[int] = frozenset(int(end) for end in ends)

    def start(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a whole prompt, up to and including the mark after which the policy answers."""
        return self._encode(self._render([Message(role, self._defuse(content)) for role, content in messages]))

    def follow(self, observation: str, *, ended: bool) -> list[int]:
        """Return the tokens between the end of an action and the start of the next one.

        `ended` says that the action sampled its end token; otherwise the token that closes the answer
        is among the returned ones (it is an observation then: the policy did not choose it).
        """
        observation = self._defuse(observation)
        if self._trims:
            observation = observation.strip()
        tokens = self._encode(self._between + observation + self._after)
        return tokens[1:] if ended and tokens[0] in self.end_ids else tokens

    def text(self, tokens: Sequence[int]) -> str:
        """Return an action as text: without the end token, other special tokens dropped."""
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def piece(self, token: int) -> str:
        """Return one token as text, for people to read; special tokens are shown by name."""
        return self.tokenizer.decode([token], clean_up_tokenization_spaces=False)

    def action(self, text: str) -> list[int]:
        """Return an answer given as text as the tokens that a policy would have sampled, its end included."""
        end = self._encode(self._between)[0]
        return [*self._encode(self._defuse(text)), end if end in self.end_ids else min(self.end_ids)]

    def _render(self, messages: Sequence[Message], *, prompt: bool = True) -> str:
        """Render as text; a system message joins the first user message where the template has no place for it."""
        merged = list(messages)
        if len(merged) > 1 and merged[0].role == "system" and not getattr(self, "_takes_system", True):
            merged = [Message(merged[1].role, f"{merged[0].content}\n\n{merged[1].content}"), *merged[2:]]
        return self.tokenizer.apply_chat_template(
            [message._asdict() for message in merged],
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=prompt,
        )

    def _renders(self, messages: Sequence[Message]) -> bool:
        from jinja2.exceptions import TemplateError

        try:
            self._render(messages)
        except TemplateError:
            return False
        return True

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _defuse(self, text: str) -> str:
        """Part special tokens that occur in content with a blank, so that no text can forge a turn."""
        return self._special.sub(lambda found: f"{found[0][:1]} {found[0][1:]}", text)

    def _check_extends(self) -> None:
        """Every longer conversation must start with the rendering of the shorter one and its answer."""
        for answer in (_ANSWER, _REASONED):
            messages = [Message("user", _QUESTION)]
            before = self._render(messages)
            for turn in range(2):
                messages = [*messages, Message("assistant", answer), Message("user", f"{_OBSERVATION} {turn}")]
                after = self._render(messages)
                if not after.startswith(before + answer):
                    expected = before + answer
                    at = next(i for i, c in enumerate(expected) if after[i : i + 1] != c)
                    raise ModelError(
                        f"The chat template of {self._name!r} rewrites earlier turns: after a follow-up question the "
                        f"conversation should still begin with {expected[max(0, at - 30) : at + 30]!r} there, but "
                        f"reads {after[max(0, at - 30) : at + 30]!r}. Training needs a template that only appends; "
                        "put one into the model's folder as chat_template.jinja and name that folder."
                    )
                before = after

    def _pieces(self) -> tuple[str, str, bool]:
        """Return the text between answer and observation, the text after it, and whether content is trimmed."""
        whole = self._render([Message("user", _QUESTION), Message("assistant", _ANSWER), Message("user", _OBSERVATION)])
        rest = whole.split(_ANSWER, 1)[1]
        between, after = rest.split(_OBSERVATION, 1)
        blanks = f"  {_OBSERVATION}\n"
        padded = self._render([Message("user", _QUESTION), Message("assistant", _ANSWER), Message("user", blanks)])
        return between, after, padded.split(_ANSWER, 1)[1] != between + blanks + after
