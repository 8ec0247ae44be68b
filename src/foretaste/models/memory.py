"""Keep memory that was once touched: fresh pages cost more than the arithmetic that fills them.

By default the C library hands big arrays back to the system when they are freed, and takes fresh, zeroed pages
for the next one: a million page faults a training step. Two settings of the process change that.

What is kept must not grow: PyTorch and oneDNN keep what they prepared for each shape of a matrix product, by default
for 1,024 shapes, half a megabyte each, and in training nearly every micro-batch has a length of its own.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

SWITCH = "FORETASTE_MEMORY"
"""Environment variable; "system" leaves the allocator as it is."""
SHAPES = 128
"""Shapes of matrix products that are kept prepared; a micro-batch of one length has some twenty."""
_CAPACITIES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
"""Environment variables that PyTorch and oneDNN read at their first product on a CPU."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of the parameters in glibc's malloc.h."""


@functools.cache
def keep_pages() -> bool:
    """Let this process keep freed memory, in huge pages; True if the C library took the setting.

    Only glibc on Linux is asked; elsewhere nothing changes but the number of prepared shapes.
    """
    if os.environ.get(SWITCH) == "system":
        return False
    for name in _CAPACITIES:
        os.environ.setdefault(name, str(SHAPES))
    if sys.platform != "linux":
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch reads it at its first large allocation
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))
