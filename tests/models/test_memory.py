"""Memory of a process that trains: what it keeps of products of ever other shapes does not grow."""

import json
import os
import platform
import subprocess
import sys

import pytest

PRODUCTS = """
import ctypes, json, sys
import torch
from foretaste.models import memory

class Found(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Found
torch.set_num_threads(1)
memory.keep_pages()
weight = torch.ones(512, 256, dtype=torch.bfloat16)
used = []
for columns in range(32, 32 + 3 * 200):
    weight @ torch.ones(256, columns, dtype=torch.bfloat16)
    found = mallinfo()
    used.append(found.uordblks + found.hblkhd)
print(json.dumps([used[199], used[399], used[599]]))
"""


def used(**environment: str) -> list[int]:
    """Return the bytes in use after 200, 400 and 600 products of different shapes, in a process of its own."""
    command = [sys.executable, "-c", PRODUCTS]
    cleared = {name: value for name, value in os.environ.items() if not name.endswith("CACHE_CAPACITY")}
    done = subprocess.run(command, capture_output=True, text=True, env=cleared | environment, check=True, timeout=120)
    return json.loads(done.stdout)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or platform.libc_ver()[1] < "2.33", reason="mallinfo2 is glibc's, from 2.33 on"
)
def test_what_is_kept_of_products_of_ever_other_shapes_does_not_grow() -> None:
    first, second, third = used()
    assert max(second, third) - first < 2e6
    grown = used(FORETASTE_MEMORY="system")
    if grown[2] - grown[0] > 20e6:  # a processor whose products keep nothing has nothing to bound
        assert third < grown[2] - 10e6
