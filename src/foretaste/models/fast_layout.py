"""Where the tokens of a quick training pass are: what sequences share has its columns once.

Columns hold, in this order: the beginning that all sequences share; what the members of each group (attempts at one
prompt) share after it; the sequences' own tokens, group by group, padded to the longest of the group; columns of no
meaning up to a multiple of 32, without which products are slower. `fast_training_layer.py` goes through the nodes.

Shape letters: M columns, N action tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foretaste.models.trunk import MIN_SHARED, Packed

COLUMNS = 32
"""The number of columns is a multiple of it."""


class Node(NamedTuple):
    """Sequences of the same width side by side, all of which go on from the same tokens."""

    first: int
    sequences: int
    width: int
    before: tuple[slice, ...]
    """The columns that they go on from, in order."""

    @property
    def columns(self) -> slice:
        """All its columns."""
        return slice(self.first, self.first + self.sequences * self.width)


class Arrangement(NamedTuple):
    """Nodes, those that others go on from first, and what is in their columns."""

    nodes: tuple[Node, ...]
    shared: int
    """Columns that others go on from."""
    end: int
    """The first column of no meaning."""
    tokens_M: Tensor
    positions_M: Tensor
    columns_N: Tensor
    """Where the hidden state before each action token is."""


def arrange(packed: Packed) -> Arrangement:
    """Find the groups and give everything its columns."""
    prefix = packed.prefix_1P[0].tolist()
    rows = packed.suffix_BS.tolist()
    lengths = (packed.mask_BT.sum(1) - len(prefix)).tolist()
    prompts = _prompts(packed, rows)
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(prompt if len(prompt) >= MIN_SHARED else (), []).append(row)
    loose = [row for prompt, members in groups.items() if not prompt or len(members) == 1 for row in members]
    groups = {prompt: members for prompt, members in groups.items() if prompt and len(members) > 1}
    groups |= {(): loose} if loose else {}
    tokens, positions = list(prefix), list(range(len(prefix)))
    root = (slice(0, len(prefix)),) if prefix else ()
    nodes = [Node(0, 1, len(prefix), ())] if prefix else []
    before = {}
    for prompt in groups:
        before[prompt] = root
        if prompt:
            nodes.append(Node(len(tokens), 1, len(prompt), root))
            before[prompt] = (*root, nodes[-1].columns)
            tokens += prompt
            positions += range(len(prefix), len(prefix) + len(prompt))
    shared = len(tokens)
    offsets_B = torch.zeros(len(rows), dtype=torch.long)
    for prompt, members in groups.items():
        width = max(lengths[row] for row in members) - len(prompt)
        nodes.append(Node(len(tokens), len(members), width, before[prompt]))
        for row in members:
            offsets_B[row] = len(tokens) - len(prompt)
            tokens += rows[row][len(prompt) : len(prompt) + width]
            positions += range(len(prefix) + len(prompt), len(prefix) + len(prompt) + width)
    padding = [0] * (-len(tokens) % COLUMNS)
    tokens_M, positions_M = torch.tensor([tokens + padding, positions + padding]).unbind()
    columns_N = offsets_B[packed.rows_N] + packed.columns_N
    return Arrangement(tuple(nodes), shared, len(tokens), tokens_M, positions_M, columns_N)


def _prompts(packed: Packed, rows: list[list[int]]) -> list[tuple[int, ...]]:
    """Return each sequence's own tokens before its first action token, but for the last one."""
    first_B = torch.full((len(rows),), packed.suffix_BS.shape[1]).scatter_reduce(
        0, packed.rows_N, packed.columns_N, "amin"
    )
    return [tuple(row[:first]) for row, first in zip(rows, first_B.tolist(), strict=True)]
