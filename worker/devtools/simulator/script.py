"""The choice of a fault for a call: by the markers of its prompt, else at random."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from random import Random
from typing import Final

from worker.devtools.simulator.faults import FAULTS, GOOD_ANSWER, Ending, Fault
from worker.devtools.simulator.requests import InvalidRequestError

_MARKER: Final = re.compile(r"\[\[sim:([^\]]*)\]\]")
_MARKER_PARTS: Final = re.compile(r"(?P<name>[a-z0-9-]+)(?:=(?P<argument>\d+(?:\.\d+)?))?(?:\*(?P<times>\d+))?")
_TAG: Final = re.compile(r"\[\[id:([^\]]{1,128})\]\]")
_REMEMBERED_PROMPTS: Final = 100_000
"""Prompts whose calls are counted at a time; the least recently called is forgotten first."""


@dataclass(frozen=True, slots=True)
class Marker:
    """One `[[sim:name=argument*times]]`."""

    name: str
    argument: float | None = None
    times: int | None = None
    """For how many calls of the prompt it holds; None: for all."""

    @property
    def fault(self) -> Fault:
        fault = FAULTS[self.name]
        if self.argument is None or fault.retry_after_s is None:
            return fault
        return replace(fault, retry_after_s=self.argument)


@dataclass(frozen=True, slots=True)
class Plan:
    """The fate of one call."""

    name: str = ""
    fault: Fault = GOOD_ANSWER
    latency_s: float | None = None
    output_tokens: int | None = None


def prompt_hash(prompt: str) -> str:
    """The name of a prompt in the call log. `prompt` is the contents of its input items, joined by newlines."""
    return sha256(prompt.encode(errors="surrogatepass")).hexdigest()[:16]


def request_tag(prompt: str) -> str | None:
    """The `xyz` of an `[[id:xyz]]` anywhere in the prompt."""
    found = _TAG.search(prompt)
    return found[1] if found else None


def markers(prompt: str) -> tuple[Marker, ...]:
    """The markers of a prompt in their order; raises InvalidRequestError."""
    return tuple(map(_marker, _MARKER.findall(prompt)))


def plan_of(found: tuple[Marker, ...], earlier_calls: int) -> Plan:
    """The plan for the next call of a prompt, by its markers and the number of its earlier calls.

    Faults follow each other: `[[sim:500*2]] [[sim:429]]` is two 500s, then 429 for ever. Changes to a good
    answer (`slow`, `tokens`) hold beside them.
    """
    active: dict[str, float | None] = {}
    turn: Marker | None = None
    turns = 0
    for marker in found:
        if marker.fault.ending is Ending.GOOD:
            if marker.times is None or earlier_calls < marker.times:
                active[marker.name] = marker.argument
        elif turn is None:
            turns += marker.times or 0
            turn = marker if marker.times is None or earlier_calls < turns else None
    tokens = active.get("tokens")
    return Plan(
        name=turn.name if turn else "",
        fault=turn.fault if turn else GOOD_ANSWER,
        latency_s=active.get("slow"),
        output_tokens=None if tokens is None else int(tokens),
    )


class Script:
    """Counts the calls of each marked prompt and throws the dice for the others."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._calls: OrderedDict[str, int] = OrderedDict()

    def plan(self, prompt: str, rates: Mapping[str, float]) -> Plan:
        """The plan for the next call of this prompt; raises InvalidRequestError."""
        if found := markers(prompt):
            return plan_of(found, self._earlier_calls(prompt))
        name = self._drawn(rates) if rates else ""
        return Plan(name=name, fault=FAULTS[name]) if name else Plan()

    def forget(self) -> None:
        """Begin every prompt anew."""
        self._calls.clear()

    def _earlier_calls(self, prompt: str) -> int:
        key = prompt_hash(prompt)
        earlier = self._calls.pop(key, 0)
        self._calls[key] = earlier + 1
        if len(self._calls) > _REMEMBERED_PROMPTS:
            self._calls.popitem(last=False)
        return earlier

    def _drawn(self, rates: Mapping[str, float]) -> str:
        point = self._rng.random()
        for name, rate in rates.items():
            if point < rate:
                return name
            point -= rate
        return ""


def _marker(text: str) -> Marker:
    parts = _MARKER_PARTS.fullmatch(text)
    if parts is None or parts["name"] not in FAULTS:
        # Loud, or a typo in a test's prompt would be a good answer.
        raise InvalidRequestError("Unknown simulator marker.", "input")
    fault = FAULTS[parts["name"]]
    argument = parts["argument"]
    if (argument is not None and not fault.argument) or (argument is None and fault.ending is Ending.GOOD):
        raise InvalidRequestError("Simulator marker with a missing or unexpected number.", "input")
    times = parts["times"]
    return Marker(
        name=parts["name"],
        argument=None if argument is None else float(argument),
        times=None if times is None else int(times),
    )
