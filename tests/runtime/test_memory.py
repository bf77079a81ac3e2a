"""Bodies of megabytes leave no memory behind, although small objects came between them."""

import platform
import subprocess
import sys
from typing import Final

import pytest

BODIES: Final = """
from worker.runtime.memory import give_back_large_blocks

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

assert give_back_large_blocks()
before, kept = resident(), []
for _ in range(20):
    held = []
    for _ in range(20):
        held.append(b"x" * (2 * 1024 * 1024))
        kept.append(bytearray(1000))
    del held
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other ways")
def test_what_large_bodies_took_goes_back_to_the_system() -> None:
    """Forty megabytes stay without the call."""
    left = int(subprocess.check_output([sys.executable, "-c", BODIES], text=True))

    assert left < 8 * 1024 * 1024
