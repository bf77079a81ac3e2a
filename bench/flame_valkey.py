"""Stacks of Valkey's main thread, out of the times that the server itself tells.

SLOWLOG with a threshold of 0 has every command with its time, those inside a script before the script's own. It makes
the server slower, so it gives only the proportions: the sums are those of INFO, read while it was off.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench.flame_stacks import Stack, Stacks

LUA: Final = "Lua itself"
SEVERAL: Final = "several calls"
REST: Final = "sockets and the rest"
LONGEST: Final = 10
"""With 10, about as much is left as perf sees on a quiet machine."""
CLIENTS: Final = "the clients' commands"
SCRIPTS: Final = {"admission": ("admit", "settle", "report"), "queue": ("pop", "claim", "begin", "complete")}
"""Commands of ours that show which script a digest is."""

_OTHER_SCRIPTS: Final = "other scripts"
_OTHER_COMMANDS: Final = "other commands"
_OF_CLIENTS: Final = ("LPUSH", "XREAD")
_OF_BENCH: Final = ("INFO", "CONFIG", "SLOWLOG")
_CUT: Final = re.compile(rb"\.\.\. \((\d+) more arguments\)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One command of the SLOWLOG."""

    client: bytes
    words: Sequence[bytes]
    us: int

    @property
    def command(self) -> str:
        return self.words[0].decode().upper()

    @property
    def digest(self) -> bytes:
        return self.words[1]


@dataclass(frozen=True, slots=True)
class Spent:
    """The main thread's time for one request while nothing was logged."""

    cpu_ms: float
    commands_ms: Mapping[str, float]


def stacks_of(entries: Iterable[Entry], spent: Spent) -> Stacks:
    """Every command below the call of a script that made it, then what no command accounts for."""
    log = list(entries)
    logged = stacks_logged(log)
    sums: Counter[str] = Counter()
    for stack, us in logged.items():
        sums[stack[-1]] += us
    ms = dict(spent.commands_ms)
    ms[LUA] = ms.get("EVALSHA", 0.0) - sum(ms.get(name, 0.0) for name in _inside(logged))
    told = {stack: us * ms.get(stack[-1], 0.0) / sums[stack[-1]] for stack, us in logged.items() if us}
    part = min(on_cpu(log), spent.cpu_ms / sum(told.values()))
    stacks = {stack: each_ms * part for stack, each_ms in told.items()}
    return {**stacks, (REST,): max(0.0, spent.cpu_ms - sum(stacks.values()))}


def on_cpu(entries: Iterable[Entry]) -> float:
    """The part of the scripts' time in which the thread had a CPU: the server's clock runs while others have it.

    A script that takes LONGEST times the median of its kind is taken to have been interrupted there.
    """
    kinds: defaultdict[str, list[int]] = defaultdict(list)
    for entry in entries:
        if entry.command == "EVALSHA":
            kinds[called(entry.words)].append(entry.us)
    used = sum(min(us, LONGEST * median(kind)) for kind in kinds.values() for us in kind)
    return used / max(1, sum(map(sum, kinds.values())))


def stacks_logged(entries: Sequence[Entry]) -> "Counter[Stack]":
    """Microseconds by stack, as they were logged, the oldest entry first."""
    scripts, stacks = _scripts(entries), Counter[Stack]()
    inside: defaultdict[bytes, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.command != "EVALSHA":
            inside[entry.client].append(entry)
            continue
        above = (scripts.get(entry.digest, _OTHER_SCRIPTS), called(entry.words))
        made = inside.pop(entry.client, [])
        for each in made:
            stacks[*above, each.command] += each.us
        stacks[*above, LUA] += max(0, entry.us - sum(each.us for each in made))
    for entry in (entry for alone in inside.values() for entry in alone if entry.command not in _OF_BENCH):
        stacks[CLIENTS if entry.command in _OF_CLIENTS else _OTHER_COMMANDS, entry.command] += entry.us
    return stacks


def called(words: Sequence[bytes]) -> str:
    """The command of ours that this EVALSHA calls, or SEVERAL where a run makes calls of several, or of unknown, ones.

    Of more than 32 words the log has 31 and the number of the others.
    """
    cut = _CUT.fullmatch(words[-1])
    seen = words[:-1] if cut else words
    total = len(seen) + (int(cut[1]) if cut else 0)
    at = 3 + int(words[2])
    if at == 3:  # scripts of one call, without keys, as they were before
        return seen[at].decode()
    names: set[bytes] = set()
    while at < total - 1:
        if at + 2 >= len(seen):
            return SEVERAL
        names.add(seen[at])
        at += 3 + int(seen[at + 2])
    return names.pop().decode() if len(names) == 1 else SEVERAL


def _scripts(entries: Iterable[Entry]) -> Mapping[bytes, str]:
    """The script of each digest."""
    names = {(entry.digest, called(entry.words)) for entry in entries if entry.command == "EVALSHA"}
    return {digest: script for digest, name in names for script, known in SCRIPTS.items() if name in known}


def _inside(logged: Iterable[Stack]) -> set[str]:
    return {stack[-1] for stack in logged if len(stack) == 3} - {LUA}
