"""The distribution of added time as a small SVG, drawn without a library."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 300, 46, 16, 44
COLOURS: Final = ("#b8b0ac", "#4c78a8")
TICKS_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200)
POINTS: Final = 200


def plot(times_ms: Mapping[str, Sequence[float]], path: Path) -> None:
    """One line each: which share of the requests (upwards) got no more than so many ms added (to the right)."""
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">']
    parts += [_line(_x(tick), TOP, _x(tick), HEIGHT - BOTTOM) for tick in TICKS_MS]
    parts += [_text(_x(tick), HEIGHT - BOTTOM + 16, f"{tick}") for tick in TICKS_MS]
    parts += [_line(LEFT, _y(share), WIDTH - 10, _y(share)) for share in (0, 0.5, 0.99)]
    parts += [_text(LEFT - 20, _y(share) + 4, f"{share:.0%}") for share in (0.0, 0.5, 0.99)]
    parts.append(_text(WIDTH / 2, HEIGHT - 8, "ms added to one request on an idle worker"))
    for colour, (name, times), row in zip(COLOURS, times_ms.items(), range(9), strict=False):
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{_steps(sorted(times))}"/>')
        parts.append(f'<text x="{LEFT + 12}" y="{TOP + 22 + 18 * row}" font-size="13" fill="{colour}">{name}</text>')
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _steps(times: Sequence[float]) -> str:
    chosen = sorted({round(place * (len(times) - 1) / POINTS) for place in range(POINTS + 1)})
    return " ".join(f"{_x(times[index]):.1f},{_y((index + 1) / len(times)):.1f}" for index in chosen)


def _x(ms: float) -> float:
    first, last = math.log(TICKS_MS[0]), math.log(TICKS_MS[-1])
    share = (math.log(min(max(ms, TICKS_MS[0]), TICKS_MS[-1])) - first) / (last - first)
    return LEFT + share * (WIDTH - LEFT - 20)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, said: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" text-anchor="middle" fill="#666666">{said}</text>'
