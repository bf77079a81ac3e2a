"""One scenario of the scoreboard: a gateway, what is done to it and to the fleet, and the bars that must hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.scoreboard_draws import Unknowns
from bench.scoreboard_measures import Played
from bench.scoreboard_world import World

Play = Callable[[World, Unknowns, int], Played]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    name: str
    says: str
    n: int
    gateway: Callable[[Unknowns], Mapping[str, Any]]
    """Settings of the simulator beside what the seed draws."""
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of the workers."""
    play: Play
    bars: Mapping[str, float]
    """The most that a measure may be."""
