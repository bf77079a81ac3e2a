"""A worker whose stacks are sampled: `python bench/flame_sampler.py run`, in the folder of the worker's checkout.

It imports nothing of the bench, because the checkout may be an older one. While the file BENCH_FLAME_WANTED exists,
the kernel interrupts whichever thread uses CPU, and that thread writes its stack to BENCH_FLAME_STACKS at once. A
thread that samples the others would wait for the interpreter's lock, and see most often those places that give it up.
"""

import faulthandler
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

EVERY_S: Final = 0.001
"""Of CPU; the kernel's own tick may be longer, mostly 4 ms."""
LOOK_S: Final = 0.05


def switch(wanted: Path) -> None:
    """Starts and stops the sampling, for ever."""
    while True:
        every_s = EVERY_S if wanted.exists() else 0.0
        if (every_s > 0) != (signal.getitimer(signal.ITIMER_PROF)[1] > 0):
            signal.setitimer(signal.ITIMER_PROF, every_s, every_s)
        time.sleep(LOOK_S)


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    stacks = Path(os.environ["BENCH_FLAME_STACKS"]).open("a")  # noqa: SIM115  # as long as the process
    faulthandler.register(signal.SIGPROF, file=stacks, all_threads=False)
    watched = Path(os.environ["BENCH_FLAME_WANTED"])
    threading.Thread(target=switch, args=(watched,), name="sampler", daemon=True).start()
    runpy.run_module("worker", run_name="__main__", alter_sys=True)
