"""The process's memory goes back to the operating system when it is freed.

Arrow and the C library keep what they once had for their next allocation. A load frees and allocates tables of all
sizes in a dozen threads, so what each of them keeps adds up to more than is in use. What Arrow allocates inside itself,
to encode Parquet, never asks Python's pool: `kyra_etl/__init__.py` sets that one before Arrow is loaded.
"""

from __future__ import annotations

import ctypes

import pyarrow as pa

LARGE = 2**20
"""Bytes from which an allocation is mapped on its own, and unmapped when it is freed."""

ARENAS = 2
"""Heaps that the threads share."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3), from malloc.h."""


def give_back() -> None:
    """Let this process give back what it frees; where the C library is not GNU's, only Arrow is told."""
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_TRIM_THRESHOLD, LARGE), (_MMAP_THRESHOLD, LARGE), (_ARENA_MAX, ARENAS)):
            mallopt(parameter, value)


def trim() -> None:
    """Give back the free pages between what is in use; takes milliseconds."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
