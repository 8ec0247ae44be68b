"""What this machine can do at most: matrix products in bfloat16, and reading memory."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch


class Machine(NamedTuple):
    """Measured limits; the fastest of several tries."""

    processor: str
    threads: int
    bf16_gflops: float
    """Billions of floating-point operations a second, product of two 2,048 x 2,048 matrices."""
    read_gbytes: float
    """Billions of bytes a second, summing up 256 MB that no cache holds."""
    copy_gbytes: float
    """Billions of bytes a second, read and written, copying within memory that was touched before."""


def measure(threads: int) -> Machine:
    """Measure for about two seconds."""
    torch.set_num_threads(threads)
    a = torch.randn(2048, 2048).to(torch.bfloat16)
    numbers = torch.ones(1 << 25, dtype=torch.int64)
    copied = torch.empty_like(numbers)
    size = numbers.numel() * numbers.element_size()
    return Machine(
        processor(),
        threads,
        2 * 2048**3 / _fastest(lambda: a @ a) / 1e9,
        size / _fastest(numbers.sum) / 1e9,
        2 * size / _fastest(lambda: copied.copy_(numbers)) / 1e9,
    )


def better(one: Machine, other: Machine) -> Machine:
    """Return the higher limit of each kind: what slows a measurement down is no limit."""
    pairs = zip(one[2:], other[2:], strict=True)
    return Machine(one.processor, one.threads, *(max(pair) for pair in pairs))


def threads() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fastest(work: Callable[[], object], tries: int = 12) -> float:
    work()
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
