"""Draw weights from a seed, whatever other threads of the process do meanwhile.

PyTorch's initialisers draw from one random stream of the process, and transformers sets the default type of numbers
of the process while it loads. So models are made one at a time: two runs in two threads would otherwise take numbers
from one another, and neither could be repeated.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_LOCK = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` inside, one thread at a time, and leave the process's stream as it was."""
    with _LOCK, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
