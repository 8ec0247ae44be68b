"""Small charts as SVG text, without a plotting library: learning curves, sweeps, fits, and maps of many arms."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from foretaste.lab.sequences import Bounds, median_of

COLOURS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce", "#be123c", "#0f766e", "#475569", "#b45309")
"""Distinguishable on white, in print and with the common colour blindnesses, for up to eight series."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 64, 16, 36, 48
MAP_LEFT = 170
"""Where a map's axis begins, right of the names of its places."""


class Series(NamedTuple):
    """One line, or a set of lines that share a name and a colour (one a seed)."""

    name: str
    lines: Sequence[Sequence[tuple[float, float]]]
    dots: bool = False
    band: Sequence[tuple[float, float, float]] = ()
    """(x, low, high): an interval around the line."""
    middle: bool = False
    """Draw the lines faintly and their median boldly; a line that ends early keeps its last value there."""


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x: str,
    y: str,
    log_x: bool = False,
    y_range: tuple[float, float] | None = None,
) -> str:
    """Return an SVG document; points at x <= 0 are left out of a logarithmic axis."""
    kept = [s._replace(lines=[[p for p in line if _drawn(p[0], p[1], log_x)] for line in s.lines]) for s in series]
    points = [p for s in kept for line in s.lines for p in line]
    points += [(a, v) for s in kept for a, low, high in s.band if _drawn(a, low, log_x) for v in (low, high)]
    xs, ys = [p[0] for p in points] or [0.0, 1.0], [p[1] for p in points] or [0.0, 1.0]
    x_low, x_high = _spread(min(xs), max(xs))
    y_low, y_high = y_range or _spread(min(ys), max(ys))

    def across(value: float) -> float:
        low, high, v = (math.log(x_low), math.log(x_high), math.log(value)) if log_x else (x_low, x_high, value)
        return LEFT + (WIDTH - LEFT - RIGHT) * (v - low) / (high - low)

    def up(value: float) -> float:
        clipped = min(max(value, y_low), y_high)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (clipped - y_low) / (y_high - y_low)

    parts = [
        *_head(title, HEIGHT, LEFT),
        _axes(across, up, (x_low, x_high), (y_low, y_high), log_x, x, y),
    ]
    for index, one in enumerate(kept):
        colour = COLOURS[index % len(COLOURS)]
        band = [b for b in one.band if _drawn(b[0], b[1], log_x)]
        if band:
            there = [f"{across(a):.1f},{up(high):.1f}" for a, _, high in band]
            back = [f"{across(a):.1f},{up(low):.1f}" for a, low, _ in reversed(band)]
            parts.append(f'<polygon points="{" ".join(there + back)}" fill="{colour}" opacity="0.15"/>')
        for line in one.lines:
            places = [(across(a), up(b)) for a, b in line]
            if one.dots or len(line) == 1:
                parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in places]
            else:
                parts.append(_path(places, colour, faint=one.middle))
    for index, one in enumerate(kept):  # above all that is faint
        if one.middle and any(one.lines):
            places = [(across(a), up(b)) for a, b in _median_line(one.lines)]
            parts.append(_path(places, COLOURS[index % len(COLOURS)], faint=False))
    ends = [up(line[-1][1]) for one in kept for line in one.lines if line]
    crowded_above = bool(ends) and sum(ends) / len(ends) < (HEIGHT - BOTTOM + TOP) / 2
    names = [one.name for one in kept]
    parts += _legend(names, HEIGHT - BOTTOM - 16 * len(names) if crowded_above else TOP + 8)
    return "\n".join([*parts, "</svg>"]) + "\n"


@dataclass(frozen=True)
class Picture:
    """A line chart as plain data: a verdict keeps it, so that its page can be drawn again without the runs."""

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    log_x: bool = False
    y_range: tuple[float, float] | None = None

    def draw(self) -> str:
        """Return an SVG document."""
        return line_chart(self.series, title=self.title, x=self.x, y=self.y, log_x=self.log_x, y_range=self.y_range)

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` reads back."""
        return {**dataclasses.asdict(self), "series": [one._asdict() for one in self.series]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Picture:
        """Read what `to_json` returned; raises TypeError for anything else."""
        return cls(**{**values, "series": tuple(Series(**one) for one in values["series"])})


class Dot(NamedTuple):
    """One measurement on a map: a value, or only that it lies beyond `x`."""

    x: float
    beyond: bool = False


def dot_map(places: Mapping[str, Mapping[str, Sequence[Dot]]], *, title: str, x: str) -> str:
    """Return an SVG document with a block a place, in it a line a name, on it a dot a measurement, x logarithmic.

    The upright stroke is the median; an open arrow means "not even there". Values at or below 0 are drawn at the left.
    """
    names = list(dict.fromkeys(name for lines in places.values() for name in lines))
    known = [dot.x for lines in places.values() for dots in lines.values() for dot in dots if dot.x > 0] or [1.0, 10.0]
    low, high = math.log(min(known) / 1.2), math.log(max(known) * 1.3)
    line, gap = 13, 14
    height = TOP + 16 * len(names) + len(places) * (len(names) * line + gap) + BOTTOM
    floor = height - BOTTOM

    def across(value: float) -> float:
        return MAP_LEFT + (WIDTH - MAP_LEFT - RIGHT) * (math.log(max(value, math.exp(low))) - low) / (high - low)

    parts = _head(title, height, 16)
    top = TOP + 16 * len(names)
    for mark in _log_marks(math.exp(low), math.exp(high)):
        parts.append(f'<path d="M{across(mark):.1f} {top}V{floor}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{across(mark):.1f}" y="{floor + 18}" text-anchor="middle">{short(mark)}</text>')
    for place, lines in places.items():
        parts.append(f'<text x="16" y="{top + gap + line * len(names) / 2:.1f}">{html.escape(place)}</text>')
        parts.append(f'<path d="M16 {top + gap / 2:.1f}H{WIDTH - RIGHT}" stroke="#d1d5db"/>')
        for index, name in enumerate(names):
            y, colour = top + gap + line * (index + 0.5), COLOURS[index % len(COLOURS)]
            dots = sorted(lines.get(name, ()), key=lambda dot: (dot.beyond, dot.x))
            parts += [_dot(across(dot.x), y, colour, beyond=dot.beyond) for dot in dots]
            ends = [Bounds(dot.x, math.inf if dot.beyond else dot.x) for dot in dots]
            if ends and math.isfinite(median_of(ends).high):
                middle = across(median_of(ends).high)
                parts.append(f'<path d="M{middle:.1f} {y - 6}v12" stroke="{colour}" stroke-width="2.5"/>')
        top += len(names) * line + gap
    parts += _legend(names, TOP + 4)
    parts.append(f'<text x="{(MAP_LEFT + WIDTH) / 2}" y="{height - 10}" text-anchor="middle">{html.escape(x)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`."""
    rough = (high - low) / max(1, count)
    step = 10 ** math.floor(math.log10(rough))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """Return a number in few characters: 1.5M, 20k, 0.25."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _head(title: str, height: float, left: float) -> list[str]:
    """Return how every chart begins: size, ground and title."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>{html.escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="20" font-size="14" font-weight="600">{html.escape(title)}</text>',
    ]


def _path(places: Sequence[tuple[float, float]], colour: str, *, faint: bool) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    look = 'stroke-width="1" opacity="0.2"' if faint else 'stroke-width="2" opacity="0.9"'
    return f'<polyline points="{path}" fill="none" stroke="{colour}" {look}/>'


def _median_line(lines: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Return the median over lines, in between their points too, from the last beginning to the last end."""
    known = [line for line in lines if line]
    grid = np.linspace(max(line[0][0] for line in known), max(line[-1][0] for line in known), 120)
    values = [np.interp(grid, [x for x, _ in line], [y for _, y in line]) for line in known]
    return list(zip(grid.tolist(), np.median(values, axis=0).tolist(), strict=True))


def _dot(x: float, y: float, colour: str, *, beyond: bool) -> str:
    if beyond:
        return f'<path d="M{x:.1f} {y - 4}l7 4l-7 4z" fill="none" stroke="{colour}" stroke-width="1.2"/>'
    return f'<circle cx="{x:.1f}" cy="{y}" r="3.2" fill="{colour}" opacity="0.65"/>'


def _legend(names: Sequence[str], top: float) -> list[str]:
    """Return names with their colours, at the right edge whatever their length."""
    left = WIDTH - RIGHT - 24 - 7 * max((len(name) for name in names), default=0)
    box = f'x="{left - 6}" y="{top - 14}" width="{WIDTH - RIGHT - left + 6}" height="{16 * len(names) + 6}"'
    parts = [f'<rect {box} fill="#fff" opacity="0.8"/>']
    for index, name in enumerate(names):
        y, colour = top + 16 * index, COLOURS[index % len(COLOURS)]
        parts.append(f'<rect x="{left}" y="{y - 8}" width="14" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{left + 20}" y="{y}">{html.escape(name)}</text>')
    return parts


def _log_marks(low: float, high: float) -> list[float]:
    """Return round numbers from `low` to `high`, for a logarithmic axis."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [mark for e in exponents for m in (1, 2, 5) if low <= (mark := m * 10.0**e) <= high]


def _drawn(x: float, y: float, log_x: bool) -> bool:
    return math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x)


def _spread(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5 * abs(low or 1.0), high + 0.5 * abs(high or 1.0))


def _axes(
    across: Callable[[float], float],
    up: Callable[[float], float],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    log_x: bool,
    x: str,
    y: str,
) -> str:
    floor = HEIGHT - BOTTOM
    marks = _log_marks(*x_range) if log_x else ticks(*x_range)
    parts = []
    for mark in ticks(*y_range):
        parts.append(f'<path d="M{LEFT} {up(mark):.1f}H{WIDTH - RIGHT}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{up(mark) + 4:.1f}" text-anchor="end">{short(mark)}</text>')
    for mark in marks:
        parts.append(f'<path d="M{across(mark):.1f} {floor}v4" stroke="#6b7280"/>')
        parts.append(f'<text x="{across(mark):.1f}" y="{floor + 18}" text-anchor="middle">{short(mark)}</text>')
    parts.append(f'<path d="M{LEFT} {TOP}V{floor}H{WIDTH - RIGHT}" fill="none" stroke="#6b7280"/>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{html.escape(x)}</text>')
    middle = (TOP + floor) / 2
    parts.append(
        f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">{html.escape(y)}</text>'
    )
    return "\n".join(parts)
