"""Seeds by split that can never meet: the split is written into the top bits of every seed.

An environment may read the split back (`split_of`) to draw held-out words and frames, so that
"fresh" means more than another shuffle of the same sentences.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal, get_args

from foretaste.errors import ConfigError, unknown

Split = Literal["train", "practice", "sealed", "example"]
"""train: learned from. practice: held out, public. sealed: exams. example: worked examples in prompts."""

SPLITS: tuple[Split, ...] = get_args(Split)
_BITS = 60


def seed_for(split: Split, index: int, *, secret: str = "") -> int:
    """Return the seed of item `index` of a split: a keyed hash, with the split in bits 60 and 61.

    Different indices give unrelated 60-bit values, never neighbours: some generators draw item i
    from seed + i, so neighbouring seeds share items.
    """
    if split not in SPLITS:
        raise ConfigError(unknown("split", split, SPLITS))
    digest = hashlib.blake2b(f"{split}:{index}".encode(), key=secret.encode()[:64], digest_size=8).digest()
    return (SPLITS.index(split) << _BITS) | (int.from_bytes(digest, "big") >> (64 - _BITS))


def seeds(split: Split, *, secret: str = "", start: int = 0) -> Iterator[int]:
    """Yield the seeds of a split without end, from item `start` on."""
    index = start
    while True:
        yield seed_for(split, index, secret=secret)
        index += 1


def split_of(seed: int) -> Split:
    """Return the split that a seed belongs to; a small hand-written seed counts as train."""
    return SPLITS[(seed >> _BITS) & 3]
