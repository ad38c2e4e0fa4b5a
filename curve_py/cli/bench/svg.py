"""Charts as SVG text, for a file that needs nothing else. Pure.

Colours and fonts come from the style sheet of the page (html.py): series are classes c0, c1, ...
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 620, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 30, 40
_COLOURS = 8
Point = tuple[float, float]


@dataclass(slots=True)
class Line:
    name: str
    points: Sequence[Point]
    dashed: bool = False
    colour: int | None = None  # by default its number


@dataclass(slots=True)
class Chart:
    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    log_x: bool = False
    log_y: bool = False
    ticks: Sequence[tuple[float, str]] = ()  # of x; by default round numbers
    events: Sequence[tuple[float, str]] = field(default_factory=list)


def short(value: float) -> str:
    """1234567 -> 1.23M"""
    for bound, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= bound:
            return f"{value / bound:.3g}{unit}"
    return f"{value:.3g}"


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers in [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first = math.ceil(low / step)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [10.0**power for power in powers if low <= 10.0**power <= high]


def _scale(
    low: float, high: float, begin: float, end: float, log: bool
) -> Callable[[float], float]:
    if log:
        low, high = math.log10(low), math.log10(high)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        at = math.log10(value) if log else value
        return begin + (at - low) / span * (end - begin)

    return place


def line_chart(chart: Chart) -> str:
    """ "" when there is nothing to show."""
    lines = [(n, one, _shown(chart, one)) for n, one in enumerate(chart.lines)]
    lines = [entry for entry in lines if entry[2]]
    if not lines:
        return ""
    xs = [x for _, _, points in lines for x, _ in points]
    ys = [y for _, _, points in lines for _, y in points]
    y_low = min(ys) / 1.3 if chart.log_y else 0.0
    y_high = max(ys) * (1.3 if chart.log_y else 1.08) or 1.0
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    at_x = _scale(min(xs), max(xs), _LEFT + 8, right - 8, chart.log_x)
    at_y = _scale(y_low, y_high, bottom, _TOP, chart.log_y)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        _text(WIDTH / 2, 16, chart.title, "t"),
    ]
    for tick in log_ticks(y_low, y_high) if chart.log_y else round_ticks(y_low, y_high):
        y = at_y(tick)
        parts.append(f'<line class="g" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 6, y + 4, short(tick), "e"))
    ticks = chart.ticks or [(t, short(t)) for t in round_ticks(min(xs), max(xs), 8)]
    parts += [_text(at_x(x), bottom + 16, label) for x, label in ticks]
    parts.append(_text(WIDTH / 2, HEIGHT - 6, chart.x_label))
    parts.append(_text(14, 16, chart.y_label, "s"))
    for x, label in chart.events:
        if min(xs) <= x <= max(xs):
            at = at_x(x)
            parts.append(f'<line class="v" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>')
            parts.append(_text(at + 4, _TOP + 10, label, "s"))
    for number, line, points in lines:
        colour = number if line.colour is None else line.colour
        parts.append(_polyline(line, [(at_x(x), at_y(y)) for x, y in points], colour))
    parts += _legend([(n if x.colour is None else x.colour, x) for n, x, _ in lines])
    return "".join(parts) + "</svg>"


def _shown(chart: Chart, line: Line) -> list[Point]:
    """What a logarithm cannot show is left out."""
    return [
        (x, y) for x, y in line.points if (x > 0 or not chart.log_x) and (y > 0 or not chart.log_y)
    ]


def _polyline(line: Line, points: Sequence[Point], colour: int) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    style = f"c{colour % _COLOURS}{' d' if line.dashed else ''}"
    marks = ""
    if len(points) <= 12:
        marks = "".join(
            f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points
        )
    return f'<polyline class="{style}" points="{path}"/>{marks}'


def _legend(lines: Sequence[tuple[int, Line]]) -> list[str]:
    named = list({line.name: (colour, line) for colour, line in lines if line.name}.values())
    parts = []
    for row, (colour, line) in enumerate(named[:12]):
        y = _TOP + 12 + 14 * row
        style = f"c{colour % _COLOURS}{' d' if line.dashed else ''}"
        parts.append(
            f'<line class="{style}" x1="{_LEFT + 12}" x2="{_LEFT + 34}" y1="{y}" y2="{y}"/>'
        )
        parts.append(_text(_LEFT + 40, y + 4, line.name, "s"))
    return parts


def bar_chart(
    title: str, y_label: str, names: Sequence[str], groups: Sequence[tuple[str, Sequence[float]]]
) -> str:
    """One group of bars per entry of `groups`, one bar per name."""
    if not groups:
        return ""
    row, gap = 16, 12
    left, right = 250, WIDTH - 70
    height = _TOP + 16 + sum(row * len(values) + gap for _, values in groups) + 14 * len(names)
    most = max((value for _, values in groups for value in values), default=0.0) or 1.0
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img">', _text(WIDTH / 2, 16, title, "t")]
    y = float(_TOP)
    for label, values in groups:
        parts.append(_text(left - 6, y + row * len(values) / 2 + 4, label, "e"))
        for number, value in enumerate(values):
            wide = (right - left) * value / most
            parts.append(_rectangle(number, left, y, wide, row - 3))
            parts.append(_text(left + wide + 4, y + row - 5, short(value), "s"))
            y += row
        y += gap
    for number, name in enumerate(names):
        parts.append(_rectangle(number, left, y, 18, 9))
        parts.append(_text(left + 24, y + 9, name, "s"))
        y += 14
    parts.append(_text(left, height - 2, y_label, "s"))
    return "".join(parts) + "</svg>"


def _rectangle(colour: int, x: float, y: float, width: float, height: float) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="f{colour % _COLOURS}" {place}/>'


def _text(x: float, y: float, words: str, anchor: str = "m") -> str:
    """anchor: s, m, e; t is a title."""
    return f'<text class="{anchor}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'
