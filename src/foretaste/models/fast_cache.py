"""Keys and values of many contexts, a tree: a row may go on from what another row has read.

What rows share (instructions, worked examples, the prompt of a group) is read and stored once. A row holds the
tokens that are its own; before them it sees the first tokens of its parent's context, and so on upwards. A row that
others go on from is kept until they are gone. `fast_decode.py` fills it, `decode_kernels.attend` reads it.

Shape letters: L layers, R rows, K key heads, S slots, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foretaste.models.decode_kernels import SLOTS

ROW_STEP = 8
"""Rows are added in steps of at least this many."""
SLOT_STEP = 2 * SLOTS
"""Slots are added in steps of at least this many."""


class Cache:
    """Rows of keys and values, alike in every layer. Buffers are kept, since touching fresh memory is slow."""

    def __init__(self, layers: int, key_heads: int, head_size: int) -> None:
        """Hold nothing yet."""
        self._shape = (layers, key_heads, head_size)
        self.give_up()

    def give_up(self) -> None:
        """Forget all rows, and give their memory back."""
        self.keys, self.values = torch.empty(0), torch.empty(0)
        """L R K S/SLOTS D SLOTS and L R K S D."""
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self.own: list[int] = []
        """Tokens of its own that each row holds."""
        self._parent: list[int] = []
        self._inherited: list[int] = []
        self._users: list[int] = []
        """The conversation itself, and the rows that go on from it."""
        self._free: list[int] = []
        self._tree: tuple[Tensor, Tensor] | None = None

    def open(self, source: int | None, shared: int) -> int:
        """Return a new row whose context starts with the first `shared` tokens of another's."""
        parent = -1 if source is None else source
        while parent >= 0 and shared <= self._inherited[parent]:
            parent = self._parent[parent]
        if not self._free:
            self._free.append(len(self.own))
            for column in (self.own, self._parent, self._inherited, self._users):
                column.append(0)
        row = self._free.pop()
        self.own[row], self._parent[row], self._users[row] = 0, parent, 1
        self._inherited[row] = shared if parent >= 0 else 0
        if parent >= 0:
            self._users[parent] += 1
        self._tree = None
        return row

    def close(self, row: int) -> None:
        """Let a row go as soon as no other goes on from it."""
        while row >= 0:
            self._users[row] -= 1
            if self._users[row]:
                return
            self.own[row] = 0
            self._free.append(row)
            row = self._parent[row]

    def position(self, row: int) -> int:
        """Return the position that the row's next token has."""
        return self._inherited[row] + self.own[row]

    def tree(self) -> tuple[Tensor, Tensor]:
        """Return each row's parent (-1: none) and how many tokens it inherits. Shapes: R, R."""
        if self._tree is None:
            self._tree = torch.tensor(self._parent), torch.tensor(self._inherited)
        return self._tree

    def append(self, rows: Sequence[int], counts: Sequence[int], like: Tensor) -> None:
        """Count tokens as held, and make room for them in tensors of the type of `like`."""
        for row, count in zip(rows, counts, strict=True):
            self.own[row] += count
        self._reserve(len(self.own), max(self.own), like)

    def _reserve(self, rows: int, slots: int, like: Tensor) -> None:
        layers, key_heads, size = self._shape
        kept = self.values.dim() == 5 and self.values.dtype == like.dtype
        have_rows, have_slots = (self.values.shape[1], self.values.shape[3]) if kept else (0, 0)
        if rows <= have_rows and slots <= have_slots:
            return
        rows = have_rows if rows <= have_rows else _ceil(max(rows, have_rows * 5 // 4), ROW_STEP)
        slots = have_slots if slots <= have_slots else _ceil(max(slots, have_slots * 5 // 4), SLOT_STEP)
        keys, values = self.keys, self.values
        self.keys = like.new_empty(layers, rows, key_heads, slots // SLOTS, size, SLOTS)
        self.values = like.new_empty(layers, rows, key_heads, slots, size)
        if kept:
            self.keys[:, :have_rows, :, : have_slots // SLOTS] = keys
            self.values[:, :have_rows, :, :have_slots] = values


def _ceil(count: int, step: int) -> int:
    return -(-count // step) * step
