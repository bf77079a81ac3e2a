"""All lanes of a Redis: those that somebody serves or served, and those that only producers know."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from api_contracts.queues import PRIORITIES, lane_queue
from worker.storage import keys

MOST: Final = 200
_LIST: Final = lane_queue("")
_STEPS: Final = {"", *(f"\x06\x16{step}" for step in PRIORITIES if step)}


def lane_of(key: str) -> str:
    """The lane whose messages are under this key; empty where no worker of any lane would look there."""
    for prefix in (keys.INFLIGHT, keys.PARKED):
        if key.startswith(prefix):
            return key.removeprefix(prefix)
    name, mark, step = key.removeprefix(_LIST).partition("\x06\x16")
    return name if key.startswith(_LIST) and mark + step in _STEPS else ""


def noted(redis: Any) -> Mapping[str, int]:
    """Every lane that was served in the last month -> ms of server time when somebody last said so."""
    found = redis.zrange(keys.FLEET["lanes"], 0, -1, withscores=True)
    return {lane.decode(errors="replace"): round(at) for lane, at in found}


def every_lane(own: Iterable[str], noted: Iterable[str], strays: Iterable[str] | None) -> list[str]:
    """Ours first, then the others by name; `strays` are keys, of which those of a lane count. At most MOST."""
    others = sorted({*noted, *(lane for key in strays or () if (lane := lane_of(key)))})
    return list(dict.fromkeys([*own, *others]))[:MOST]
