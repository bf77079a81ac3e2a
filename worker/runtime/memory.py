"""The C library's memory, for a process through which large bodies pass.

glibc takes a block from its heap once a block of that size was freed, up to 32 MiB. Bodies of megabytes then leave
holes between small objects, and a process that holds 60 MB of them keeps 400. Blocks with pages of their own do not.
"""

import ctypes
from typing import Any, Final

LARGE: Final = 256 * 1024
"""Bytes from which on a block has pages of its own."""

_M_MMAP_THRESHOLD: Final = -3
"""Of `mallopt` (malloc.h); a fixed value ends glibc's own adjustment."""


def give_back_large_blocks() -> bool:
    """Returns the memory of a large block to the system when it is freed; False where the C library has no say."""
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, LARGE) == 1
