"""Charts as small inline SVG: no library, no script, colours from the page's style sheet.

Every function returns markup with a text alternative; all text that comes from outside is escaped.
Coordinates are user units of the viewBox, about one CSS pixel each where a chart is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape

from foretaste.report.words import figure

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart. `tone` is its colour in the style sheet: tone-0 .. tone-4."""

    name: str
    points: Points
    tone: int = 0


@dataclass(frozen=True, slots=True)
class Marks:
    """Points with intervals: (x, low, middle, high)."""

    name: str
    points: Sequence[tuple[float, float, float, float]]
    tone: int = 1
    shift: int = 0
    """Pixels to the right, so that two marks of one step stand side by side."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The plotting area: data ranges mapped to the viewBox."""

    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]
    left: int = 44
    right: int = 16
    top: int = 10
    bottom: int = 34
    parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a data point."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return (
            round(self.left + across * (self.width - self.left - self.right), 1),
            round(self.height - self.bottom - up * (self.height - self.top - self.bottom), 1),
        )

    def axes(self, x_label: str, *, whole_x: bool = True, most: int = 6) -> None:
        """Draw grid lines and numbers."""
        for value in ticks(*self.y, most=5):
            x, y = self.at(self.x[0], value)
            self.parts.append(f'<line class="grid" x1="{x}" x2="{self.width - self.right}" y1="{y}" y2="{y}"/>')
            self.parts.append(f'<text class="tick" x="{x - 6}" y="{y + 4}" text-anchor="end">{figure(value)}</text>')
        for value in ticks(*self.x, most=most, whole=whole_x):
            x, y = self.at(value, self.y[0])
            self.parts.append(f'<text class="tick" x="{x}" y="{y + 15}" text-anchor="middle">{figure(value)}</text>')
        middle = (self.left + self.width - self.right) / 2
        self.parts.append(
            f'<text class="label" x="{middle}" y="{self.height - 3}" text-anchor="middle">{escape(x_label)}</text>'
        )

    def svg(self, description: str, *, kind: str = "") -> Markup:
        """Return the finished chart."""
        body = "".join(self.parts)
        return Markup(
            f'<svg class="chart {escape(kind)}" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(description)}" preserveAspectRatio="xMidYMid meet">{body}</svg>'
        )


def ticks(low: float, high: float, *, most: int = 5, whole: bool = False) -> list[float]:
    """Return at most about `most` round numbers inside [low, high]."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    step = 10.0 ** math.floor(math.log10(span / most))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)
    if whole:
        step = max(1.0, round(step))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(
    lines: Sequence[Series],
    *,
    description: str,
    width: int = 360,
    height: int = 200,
    marks: Sequence[Marks] = (),
    y_range: tuple[float, float] | None = None,
    x_label: str = "training step",
    kind: str = "",
) -> Markup:
    """Draw lines over steps, and points with intervals on top."""
    xs = [x for line in lines for x, _ in line.points] + [x for mark in marks for x, *_ in mark.points]
    ys = [y for line in lines for _, y in line.points] + [y for mark in marks for _, *row in mark.points for y in row]
    if not xs:
        return Markup("")
    frame = Frame(width, height, _padded_x(min(xs), max(xs)), y_range or _padded(min(ys), max(ys)))
    frame.axes(x_label, most=max(3, width // 70))
    for line in lines:
        places = [frame.at(x, y) for x, y in line.points]
        path = " ".join(f"{x},{y}" for x, y in places)
        if len(places) > 1:
            frame.parts.append(f'<polyline class="line tone-{line.tone}" points="{path}"/>')
        if len(places) <= 60:
            for (x, y), (step, value) in zip(places, line.points, strict=True):
                title = escape(f"{line.name}, step {figure(step)}: {figure(value)}")
                frame.parts.append(
                    f'<circle class="dot tone-{line.tone}" cx="{x}" cy="{y}" r="2.4"><title>{title}</title></circle>'
                )
    for mark in marks:
        for step, low, middle, high in mark.points:
            x, y = frame.at(step, middle)
            x += mark.shift
            y_low, y_high = frame.at(step, low)[1], frame.at(step, high)[1]
            title = escape(f"{mark.name}, step {figure(step)}: {figure(middle)} [{figure(low)}, {figure(high)}]")
            frame.parts.append(
                f'<g class="mark tone-{mark.tone}"><title>{title}</title>'
                f'<path d="M{x} {y_low}V{y_high}M{x - 4} {y_low}h8M{x - 4} {y_high}h8"/>'
                f'<circle cx="{x}" cy="{y}" r="4.5"/></g>'
            )
    return frame.svg(description, kind=kind)


def reliability_chart(bins: Sequence[dict[str, Any]], *, description: str, size: int = 230) -> Markup:
    """Draw mean outcome against mean value; the diagonal is perfect calibration, a dot's area its share of states."""
    shown = [
        part
        for part in bins
        if part.get("n") and part.get("mean_value") is not None and part.get("mean_outcome") is not None
    ]
    frame = Frame(size, size, (0.0, 1.0), (0.0, 1.0), left=50, bottom=36)
    frame.axes("value V", whole_x=False, most=5)
    frame.parts.append(
        f'<text class="label" x="12" y="{size / 2 - 12}" text-anchor="middle" '
        f'transform="rotate(-90 12 {size / 2 - 12})">mean outcome</text>'
    )
    (x1, y1), (x2, y2) = frame.at(0, 0), frame.at(1, 1)
    frame.parts.append(f'<line class="diagonal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    largest = max((float(part["n"]) for part in shown), default=1.0)
    for part in shown:
        x, y = frame.at(_unit(part["mean_value"]), _unit(part["mean_outcome"]))
        radius = round(2.5 + 7.5 * math.sqrt(float(part["n"]) / largest), 1)
        title = escape(
            f"V {figure(part.get('low'))} to {figure(part.get('high'))}: mean value {figure(part['mean_value'])}, "
            f"mean outcome {figure(part['mean_outcome'])}, {int(part['n'])} states"
        )
        frame.parts.append(f'<circle class="bubble" cx="{x}" cy="{y}" r="{radius}"><title>{title}</title></circle>')
    return frame.svg(description, kind="square")


def stacked_bar(
    parts: Sequence[tuple[str, float, int]], *, description: str, width: int = 720, height: int = 26
) -> Markup:
    """Draw (name, amount, tone) parts as one bar."""
    total = sum(amount for _, amount, _ in parts)
    if total <= 0:
        return Markup("")
    body, left = "", 0.0
    for name, amount, tone in parts:
        share = width * amount / total
        title = escape(f"{name}: {amount / total:.0%}")
        body += (
            f'<rect class="tone-{tone}" x="{left:.1f}" y="0" width="{share:.1f}" height="{height}">'
            f"<title>{title}</title></rect>"
        )
        left += share
    return Markup(
        f'<svg class="bar" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(description)}">{body}</svg>'
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    """Widen a range a little; a range that nearly starts at zero starts there."""
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 0.5
    bottom = 0.0 if 0 <= low <= 0.5 * high else low - margin
    return bottom, (high + margin if high != 0 or low == high else 0.0)


def _padded_x(low: float, high: float) -> tuple[float, float]:
    return (low - 0.5, high + 0.5) if low == high else (low, high)


def _unit(value: Any) -> float:
    return min(1.0, max(0.0, float(value)))
