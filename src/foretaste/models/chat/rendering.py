"""Render messages by a tokenizer's chat template, in the way that the template takes them.

Templates differ: some take content as a list of parts, some have no place for a system message, some put it beside
the newest question. `Rendering` finds out once, and says what it did in `notes`. Next: `conversation.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foretaste.errors import ModelError
from foretaste.records import Message

FALLBACK_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '### ' + message['role'] + '\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '### assistant\\n' }}{% endif %}"
)
"""For tokenizers without a chat template (base models): headed sections, answers closed by the end-of-text token.

Line breaks are written as expressions, since the engine drops one that follows a statement.
"""

_SYSTEM, _QUESTION, _ANSWER, _NEXT = "instructions-first", "some-question", "some-answer", "another-question"


class Rendering:
    """A chat template and how it is called."""

    def __init__(self, tokenizer: Any) -> None:
        """Find out how the template takes content and system messages.

        Raises: ModelError if it cannot be rendered, or does not show what a user says.
        """
        self.tokenizer = tokenizer
        self.name = str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
        self.notes: tuple[str, ...] = ()
        """What a user should know of how this template is used, one sentence each."""
        self.fallback = not tokenizer.chat_template
        self._template: str | None = FALLBACK_TEMPLATE if self.fallback else None
        self._parts = False
        self._takes_system = True
        self._parts = self._needs_parts()
        self._takes_system = self._keeps_system()
        if not self._takes_system:
            self.notes = (
                f"the chat template of {self.name!r} has no place for a system message: instructions are the "
                "beginning of the first user message",
            )

    def __call__(self, messages: Sequence[Message], *, prompt: bool = True) -> str:
        """Return the text of a conversation; with `prompt`, up to the mark after which the assistant answers.

        Raises: ModelError naming what the template says of these messages.
        """
        try:
            return self._render(self._folded(messages), prompt=prompt)
        except Exception as error:  # templates are programs: anything may come out of one
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(
                f"The chat template of {self.name!r} cannot be rendered for the roles "
                f"{', '.join(message.role for message in messages)}: {type(error).__name__}: {reason[:300]}. Accepted: "
                "a template that renders user and assistant messages in turn. Next: put one into the model's folder as "
                "chat_template.jinja, and name that folder"
            ) from error

    def _folded(self, messages: Sequence[Message]) -> list[Message]:
        """Let a system message join the first user message where the template has no place for it."""
        merged = list(messages)
        if self._takes_system or not merged or merged[0].role != "system":
            return merged
        if len(merged) == 1 or merged[1].role != "user":
            return [Message("user", merged[0].content), *merged[1:]]
        return [Message("user", f"{merged[0].content}\n\n{merged[1].content}"), *merged[2:]]

    def _render(self, messages: Sequence[Message], *, prompt: bool = True) -> str:
        given: list[dict[str, Any]] = [
            {"role": role, "content": [{"type": "text", "text": content}] if self._parts else content}
            for role, content in messages
        ]
        return self.tokenizer.apply_chat_template(
            given, chat_template=self._template, tokenize=False, add_generation_prompt=prompt
        )

    def _needs_parts(self) -> bool:
        """Return whether content must be a list of parts to be shown."""
        asked = [Message("user", _QUESTION)]
        plain = self._shown(asked)
        if plain is not None and _QUESTION in plain:
            return False
        self._parts = True
        parts = self._shown(asked)
        self._parts = False
        if parts is not None and _QUESTION in parts:
            return True
        if plain is None:
            self(asked)  # raises what the template raised
        raise ModelError(
            f"The chat template of {self.name!r} leaves out what a user says: a question is rendered as {plain!r}. "
            "Accepted: a template that shows the content of messages, as text or as parts of the type 'text'. Next: "
            "put one into the model's folder as chat_template.jinja, and name that folder"
        )

    def _keeps_system(self) -> bool:
        """Return whether a system message is rendered, once and where later turns leave it."""
        first = [Message("system", _SYSTEM), Message("user", _QUESTION)]
        later = [*first, Message("assistant", _ANSWER), Message("user", _NEXT)]
        before, after = self._shown(first), self._shown(later)
        return before is not None and after is not None and _SYSTEM in before and after.startswith(before)

    def _shown(self, messages: Sequence[Message]) -> str | None:
        try:
            return self._render(messages)
        except Exception:  # templates are programs: anything may come out of one
            return None
