"""Stacks of a worker, out of the tracebacks that its threads wrote, and their folded form."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final

Stack = tuple[str, ...]
Stacks = Mapping[Stack, float]
"""Milliseconds of one request by stack, the outermost function first."""

LOOP: Final = "event loop"
OTHERS: Final = "other threads"
_FIRST_LINE: Final = "Stack (most recent call first):\n"
_FRAME: Final = re.compile(r'^  File "(.*)", line \d+ in (.*)$', re.MULTILINE)
_LIBRARY: Final = re.compile(r".*/(?:site-packages|python3\.\d+)/")
_SAMPLER: Final = "flame_sampler.switch"
_RUNNER: Final = "(asyncio) runners.run"


def sampled(dump: str, tree: str) -> "Counter[Stack]":
    """The number of samples by stack, of a worker whose checkout is the folder `tree`."""
    stacks = (_stack(_FRAME.findall(one), tree) for one in dump.split(_FIRST_LINE)[1:])
    return Counter(stack for stack in stacks if stack)


def scaled(samples: "Counter[Stack]", total: float) -> Stacks:
    """Every stack's part of this total."""
    each = total / samples.total()
    return {stack: count * each for stack, count in samples.items()}


def folded(stacks: Stacks) -> str:
    """One line a stack, `a;b;c 12`, in microseconds: other tools draw it as well."""
    return "".join(f"{';'.join(stack)} {ms * 1000:.0f}\n" for stack, ms in sorted(stacks.items()) if ms >= 0.0005)


def _stack(frames: Sequence[tuple[str, str]], tree: str) -> Stack:
    """From the first function above the loop on; nothing for the thread that switches the sampling."""
    names = [name_of(path, function, tree) for path, function in reversed(frames)]
    if _SAMPLER in names:
        return ()
    if _RUNNER not in names:
        return (OTHERS,)
    return tuple(shortened(names[names.index(_RUNNER) + 1 :])) or (LOOP,)


def shortened(names: Iterable[str]) -> list[str]:
    """Without comprehensions; of each library only the function that was called."""
    functions = [name for name in names if ".<" not in name]
    return [next(run) for _, run in groupby(functions, key=_library_or_itself)]


def _library_or_itself(name: str) -> str:
    return name.partition(")")[0] if name.startswith("(") else name


def name_of(path: str, function: str, tree: str) -> str:
    """`request/processor.process` for a function of the worker, `(aiohttp) client._request` for one of a library."""
    if path.startswith("<"):
        return f"(dataclasses) {function}"  # the library wrote its text
    path = path.removesuffix(".py")
    if found := _LIBRARY.match(path):
        package, _, module = path[found.end() :].partition("/")
        return f"({package}) {module or package}.{function}"
    return f"{path.removeprefix(f'{tree}/').removeprefix('worker/').rpartition('/bench/')[2]}.{function}"
