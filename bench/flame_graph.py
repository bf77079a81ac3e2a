"""Stacks as a small SVG, drawn without a library: time to the right, a called function below its caller."""

from collections import defaultdict
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Final

from bench.flame_stacks import LOOP, OTHERS, Stacks
from bench.flame_valkey import REST

WIDTH, ROW, TOP, LEFT = 900, 17, 28, 8
LETTER: Final = 5.7
"""Width of a letter."""
FEWEST: Final = 4
"""Letters of a name that is cut off."""
LEAST: Final = 0.005
"""The smallest part of the whole that gets a box."""
OURS, LIBRARY, OUTSIDE = "#f3b97c", "#a9c7e4", "#d9d4ce"
_FONT: Final = 'font-family="sans-serif" font-size="10" fill="#1d1d1d"'
_OUTSIDE: Final = frozenset({LOOP, OTHERS, REST})


@dataclass(frozen=True, slots=True)
class Box:
    name: str
    depth: int
    start_ms: float
    ms: float


def graph(stacks: Stacks, title: str, full_ms: float) -> str:
    """A picture whose width stands for `full_ms`, so that several can be compared."""
    total = sum(stacks.values())
    drawn = list(boxes(stacks, total * LEAST))
    height = TOP + ROW * (1 + max(box.depth for box in drawn)) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {_FONT}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#fbfaf8"/>',
        f'<text x="{LEFT}" y="18" font-size="13">{escape(title)}</text>',
    ]
    parts += [_drawn(box, (WIDTH - 2 * LEFT) / full_ms) for box in drawn]
    return "\n".join([*parts, "</svg>", ""])


def boxes(stacks: Stacks, least_ms: float, depth: int = 0, start_ms: float = 0.0) -> Generator[Box]:
    """Each function with all that it calls, the costliest first; those with less than `least_ms` are left out."""
    called: defaultdict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for stack, ms in stacks.items():
        if stack:
            called[stack[0]][stack[1:]] = ms
    for name, ms in _by_size({name: sum(inner.values()) for name, inner in called.items()}):
        if ms >= least_ms:
            yield Box(name, depth, start_ms, ms)
            yield from boxes(called[name], least_ms, depth + 1, start_ms)
            start_ms += ms


def _by_size(ms: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(ms.items(), key=lambda item: -item[1])


def _drawn(box: Box, scale: float) -> str:
    x, y, width = LEFT + box.start_ms * scale, TOP + ROW * box.depth, box.ms * scale
    place = f'x="{x:.1f}" y="{y}" width="{max(width - 0.6, 0.4):.1f}" height="{ROW - 1}"'
    said = _label(box.name, width)
    text = f'<text x="{x + 3:.1f}" y="{y + 12}">{escape(said)}</text>' if said else ""
    hover = f"<title>{escape(box.name)}: {box.ms:.3f} ms</title>"
    return f'<g>{hover}<rect {place} fill="{_colour(box.name)}"/>{text}</g>'


def _label(name: str, width: float) -> str:
    """As much of the name as fits; the function says most."""
    letters = int((width - 4) / LETTER)
    shorter = name.rpartition("/")[2]
    function = shorter.rpartition(".")[2]
    cut = f"{function[: letters - 1]}…" if letters >= FEWEST else ""
    return next((said for said in (name, shorter, function) if len(said) <= letters), cut)


def _colour(name: str) -> str:
    if name in _OUTSIDE:
        return OUTSIDE
    return LIBRARY if name.startswith("(") or name.isupper() else OURS
