"""Items that belong to one split only, so that "held out" means a different item and not only another seed.

A generator that draws small items (a two-line program, a three-by-three maze) draws the same one
from many seeds. `belongs` assigns every item, by a hash of its text, to training (half of all items),
practice (a quarter) or sealed (a quarter); a generator draws again until the item is its split's own.
"""

from __future__ import annotations

import hashlib

from foretaste.envs.seeds import Split

_SHARES: dict[Split, tuple[int, ...]] = {"train": (0, 1), "example": (0, 1), "practice": (2,), "sealed": (3,)}


def belongs(item: str, split: Split) -> bool:
    """Return whether the item with this text is one that `split` may use.

    Worked examples come from training's share: what a prompt shows is never a held-out item.
    """
    return hashlib.blake2b(item.encode(), digest_size=1).digest()[0] % 4 in _SHARES[split]
