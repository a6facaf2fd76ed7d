"""How the C library treats freed memory."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_ONE_GIB = 1 << 30


def keep_freed_memory() -> None:
    """Let the process keep what it frees, up to 1 GiB, instead of giving it back to the system.

    A training step on the CPU frees and asks for the same large blocks over and over, and glibc has the system
    clear each one anew: a quarter of the time of a step with a small net. Does nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _ONE_GIB)
        mallopt(_M_TRIM_THRESHOLD, _ONE_GIB)
