"""Small line charts as SVG text, without a plotting library: learning curves, sweeps, fits."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

COLOURS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce", "#b45309", "#0f766e", "#be123c", "#475569")
"""Distinguishable on white, in print and with the common colour blindnesses, for up to eight series."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 64, 16, 36, 48


class Series(NamedTuple):
    """One line, or a set of lines that share a name and a colour (one a seed)."""

    name: str
    lines: Sequence[Sequence[tuple[float, float]]]
    dots: bool = False
    band: Sequence[tuple[float, float, float]] = ()
    """(x, low, high): an interval around the line."""


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
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12"><title>{html.escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="600">{html.escape(title)}</text>',
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
            path = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in line)
            if one.dots or len(line) == 1:
                parts += [f'<circle cx="{across(a):.1f}" cy="{up(b):.1f}" r="3" fill="{colour}"/>' for a, b in line]
            else:
                parts.append(
                    f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6" opacity="0.8"/>'
                )
        y_legend = TOP + 8 + 16 * index
        parts.append(f'<rect x="{WIDTH - RIGHT - 150}" y="{y_legend - 8}" width="14" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT - 130}" y="{y_legend}">{html.escape(one.name)}</text>')
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
    if log_x:
        low, high = (math.log10(v) for v in x_range)
        marks = [m * 10**e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
        marks = [m for m in marks if x_range[0] <= m <= x_range[1]]
    else:
        marks = ticks(*x_range)
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
