"""The pods that each group of workers needs, kept in Redis for an autoscaler that counts one key a group.

An autoscaler alone would have to count every list of every lane, and each group would ask about the lanes of all
others, since they share one budget. One worker of the fleet does it for all: it counts the lanes, shares the budget,
and makes the list `responses:scaling:<fleet>:<group>` as long as the group needs pods.
"""

import asyncio
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.config.environment import WrongSettingsError, variable
from worker.config.settings import Settings
from worker.queue.events import QueueEvents
from worker.storage import keys
from worker.storage.commands import Command, Row, Rows, Script
from worker.storage.replies import number, records
from worker.storage.scripts import ScriptError, ScriptRunner

ROUND_S: Final = 5.0
TURN_MS: Final = 4_500
"""The worker that counted first in a round keeps the others from counting in it."""
REMEMBERED_MS: Final = 7 * 86_400_000
"""The time that the last word on a group counts once every worker is gone: longer than any outage, so that work which
was parked or in flight still finds its pods."""

Lane = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
GroupName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")]


class Group(BaseModel):
    """Pods that serve the same lanes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lanes: dict[Lane, Annotated[int, Field(ge=1, le=1000)]] = Field(min_length=1, max_length=1000)
    """Lane to weight."""
    concurrency: int = Field(ge=1, le=10_000)
    """Calls in flight in one pod."""
    most: int = Field(ge=1, le=10_000)
    """Pods."""


class Plan(BaseModel):
    """The groups of one fleet, and the calls that its budget can keep in flight; 0 = unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    useful: int = Field(0, ge=0, le=10**9)
    groups: dict[GroupName, Group] = Field(max_length=1000)


class LaneWork(NamedTuple):
    """Messages of one lane: waiting at any priority, in flight, and put off until later."""

    ready: int
    in_flight: int
    parked: int


NO_WORK: Final = LaneWork(0, 0, 0)

COUNT: Final = Command(
    name="count",
    keys=("turn",),
    args={"token": str, "turn_ms": int},
    rows=Rows("lanes", (*keys.LISTS, "inflight", "delayed")),
    reply=records(LaneWork),
    even_when_full=True,
)
SHOW: Final = Command(
    name="show",
    args={"remembered_ms": int},
    rows=Rows("groups", ("pods",), {"count": int}),
    reply=number,
    even_when_full=True,
)
SCALING: Final = Script.load("operations/lua/scaling.lua", commands=(COUNT, SHOW))


def read_plan(file: Path) -> Plan:
    """The plan that a file holds. Raises ValueError, which says what is wrong."""
    try:
        return Plan.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ValueError(f"names a file that cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from None


def check_scaling_file(settings: Settings) -> None:
    """Looks at the plan before a worker starts. Raises WrongSettingsError."""
    if settings.scaling_file is not None:
        try:
            read_plan(settings.scaling_file)
        except ValueError as error:
            raise WrongSettingsError(f"{variable(Settings, 'scaling_file')}: {error}") from None


def pods(plan: Plan, lanes: Mapping[str, LaneWork]) -> dict[str, int]:
    """Pods by group: `ceil(min(work, useful) / concurrency)`, at most `most` of them.

    Work is what waits and what is in flight. Groups share the useful calls by weight, and what one leaves, another may
    use. Work that is put off keeps one pod, because somebody must wake it.
    """
    work = {name: _sum(group, lanes, "ready") + _sum(group, lanes, "in_flight") for name, group in plan.groups.items()}
    weights = {name: sum(group.lanes.values()) for name, group in plan.groups.items()}
    everything, whole = sum(work.values()), sum(weights.values())
    needed: dict[str, int] = {}
    for name, group in plan.groups.items():
        share = max(plan.useful * weights[name] / whole, plan.useful - (everything - work[name]))
        calls = min(work[name], share) if plan.useful else work[name]
        least = min(1, _sum(group, lanes, "parked"))
        needed[name] = max(least, min(group.most, math.ceil(round(calls / group.concurrency, 6))))
    return needed


def _sum(group: Group, lanes: Mapping[str, LaneWork], what: str) -> int:
    return sum(getattr(lanes.get(lane, NO_WORK), what) for lane in group.lanes)


def pods_key(fleet: str, group: str) -> str:
    return f"responses:scaling:{fleet}:{group}"


@dataclass(slots=True)
class Scaler:
    """Keeps the counts of pods current while any worker lives; reads its plan anew in each round."""

    runner: ScriptRunner
    fleet: str
    file: Path
    events: QueueEvents
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    _plan: Plan = field(default_factory=lambda: Plan(useful=0, groups={}))

    async def run(self) -> None:
        while True:
            try:
                await self.step()
            except ScriptError as error:
                self.events.script_refused(error)
            await asyncio.sleep(ROUND_S)

    async def step(self) -> dict[str, int] | None:
        """Counts and writes. Returns the pods by group, or None where another worker has this round."""
        plan = self._current()
        lanes = sorted({lane for group in plan.groups.values() for lane in group.lanes})
        if not lanes:
            return None
        counted = await self.runner.call(
            SCALING,
            COUNT,
            self._turn(),
            [Row(keys.lane(lane), {}) for lane in lanes],
            token=self.token,
            turn_ms=TURN_MS,
        )
        if not counted:
            return None
        found = pods(plan, dict(zip(lanes, counted, strict=True)))
        shown = [Row({"pods": pods_key(self.fleet, name)}, {"count": count}) for name, count in found.items()]
        await self.runner.call(SCALING, SHOW, {}, shown, remembered_ms=REMEMBERED_MS)
        return found

    def _turn(self) -> dict[str, Any]:
        return {"turn": f"responses:scaling-turn:{self.fleet}"}

    def _current(self) -> Plan:
        """A file that is being replaced, or was broken later, leaves the plan as it was."""
        try:
            self._plan = read_plan(self.file)
        except ValueError:
            return self._plan
        return self._plan
