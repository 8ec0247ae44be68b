"""Tokenise text of which some parts come from a template and others from people and environments.

A control token is one that a template marks turns with, or that ends a text. Written by the template it is that
token; in what a user or an environment says, the same letters are plain text, so that no content can forge a turn.
`TokenText.mark` marks such letters in content, templates carry the marks along, and `TokenText.encode` takes them
out again. Next: `rendering.py`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from typing import Any

MARK = "\uf6b5"
"""Stands inside a control token's letters in content; a character for private use, which no tokenizer knows."""

_ANCHORS = ("\n", "0", ".", "a", "|", "é")
"""Text that a continuation is tokenised behind, so that it does not look like the beginning of a text."""


class TokenText:
    """A tokenizer with its control tokens. `learn` adds those that a template writes."""

    def __init__(self, tokenizer: Any) -> None:
        """Take all tokens that the tokenizer itself calls special, but for empty and blank ones."""
        self.tokenizer = tokenizer
        self._added = {int(token): str(added) for token, added in tokenizer.added_tokens_decoder.items()}
        self._eats = {
            str(added): (bool(getattr(added, "lstrip", False)), bool(getattr(added, "rstrip", False)))
            for added in tokenizer.added_tokens_decoder.values()
        }
        named = set(tokenizer.all_special_tokens)
        special = {str(added) for added in tokenizer.added_tokens_decoder.values() if getattr(added, "special", False)}
        self._plain: Any = None
        self._take(named | special)

    def learn(self, rendered: str) -> None:
        """Count every token among the control tokens that was added to the vocabulary and stands in `rendered`."""
        self._take(set(self.ids) | {text for text in self._added.values() if text and text in rendered})

    def _take(self, texts: set[str]) -> None:
        whole = {str(text): self.tokenizer.convert_tokens_to_ids(str(text)) for text in texts if str(text).strip()}
        self.ids: dict[str, int] = {text: int(token) for text, token in whole.items() if isinstance(token, int)}
        """Text of each control token -> its id."""
        longest_first = sorted(self.ids, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(text) for text in longest_first) or r"(?!)")
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        self._counted = {token for token in self.ids.values() if token != unknown}

    def mark(self, content: str) -> str:
        """Return content with a mark inside everything that would be read as a control token."""
        content = content.replace(MARK, "\ufffd")
        return self._pattern.sub(lambda found: f"{found[0][:1]}{MARK}{found[0][1:]}", content)

    def leading_control(self, text: str) -> tuple[str, str] | None:
        """Return the blanks that `text` begins with and the control token after them; None if other text is there."""
        stripped = text.lstrip()
        found = self._pattern.match(stripped)
        return (text[: len(text) - len(stripped)], found[0]) if found else None

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a rendered text; marked letters become plain text."""
        if MARK not in text:
            tokens = self._encode(text)
            if self._controls(tokens) <= len(self._pattern.findall(text)):
                return tokens
        return list(self._apart(text))

    def follow(self, before: str, text: str) -> list[int]:
        """Return the tokens of `text` as they are where it goes on from `before`.

        Where the border itself would be merged into one token, the border is kept and `text` gets tokens of its own.
        """
        head, whole = self.encode(before), self.encode(before + text)
        if head and whole[: len(head)] == head:
            return whole[len(head) :]
        if text and self._pattern.match(text):
            return self.encode(text)
        return self._middle(self.encode, text)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _controls(self, tokens: Sequence[int]) -> int:
        return sum(token in self._counted for token in tokens)

    def _apart(self, text: str) -> Iterator[int]:
        """Yield the tokens of a text whose control tokens, marked ones excepted, are the template's."""
        ends = [found.span() for found in self._pattern.finditer(text)]
        at, strips = 0, False
        for start, end in [*ends, (len(text), len(text))]:
            control = text[start:end]
            stretch = text[at:start].lstrip() if strips else text[at:start]
            left, strips = self._eats.get(control, (False, False))
            stretch = stretch.rstrip() if left else stretch
            if stretch:
                yield from self._plainly(stretch, begins=at == 0)
            if control:
                yield self.ids[control]
            at = end

    def _plainly(self, stretch: str, *, begins: bool) -> list[int]:
        """Return tokens of a stretch without a single control token among them."""
        whole = stretch.replace(MARK, "")
        tokens: list[int] = []
        for pieces in ([whole], stretch.split(MARK), list(whole)):
            tokens = []
            for index, piece in enumerate(pieces):
                first = begins and index == 0
                tokens += self._split(piece) if first or not piece else self._middle(self._split, piece)
            if not self._controls(tokens):
                return tokens
        return [token for token in tokens if token not in self._counted]

    def _split(self, text: str) -> list[int]:
        """Tokenise with special tokens as plain text; in a copy, since the setting is one for all threads."""
        if self._plain is None:
            self._plain = copy.deepcopy(self.tokenizer)
        return self._plain.encode(text, add_special_tokens=False, split_special_tokens=True)

    def _middle(self, encode: Any, text: str) -> list[int]:
        """Return the tokens of a text that does not begin one: without the blank that some tokenizers put there."""
        for anchor in _ANCHORS:
            head, whole = encode(anchor), encode(anchor + text)
            if whole[: len(head)] == head:
                return whole[len(head) :]
        return encode(text)
