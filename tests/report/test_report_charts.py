"""Charts: places of points, round ticks, and well-formed markup whatever the names say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretaste.report.charts import Frame, Marks, Series, line_chart, reliability_chart, stacked_bar, ticks

finite = st.floats(-1e9, 1e9)


@given(finite, st.floats(1e-6, 1e9), st.integers(3, 8))
def test_ticks_are_few_round_and_inside(low: float, span: float, most: int) -> None:
    high = low + span
    found = ticks(low, high, most=most)
    assert len(found) <= most + 1
    if span > 1e-4 * max(1.0, abs(low)):
        assert found
        assert all(low - 1e-6 * span - 1e-9 <= tick <= high + 1e-6 * span + 1e-9 for tick in found)


def test_ticks_of_steps_are_whole() -> None:
    assert ticks(0, 3, most=6, whole=True) == [0, 1, 2, 3]
    assert ticks(0, 1, most=5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(2, 2) == [2]


def test_points_stand_where_they_belong() -> None:
    frame = Frame(100, 100, (0, 10), (0, 1), left=10, right=10, top=10, bottom=10)
    assert frame.at(0, 0) == (10, 90)
    assert frame.at(10, 1) == (90, 10)
    assert frame.at(5, 0.5) == (50, 50)


@given(st.lists(st.tuples(st.integers(0, 1000), finite), min_size=1, max_size=80), st.text())
def test_a_line_chart_is_well_formed_and_stays_in_its_frame(points: list[tuple[int, float]], name: str) -> None:
    name = "".join(c for c in name if c.isprintable())  # XML itself has no control characters
    chart = line_chart([Series(name, sorted(points))], description=f"<{name}>")
    svg = ET.fromstring(str(chart))
    assert svg.get("aria-label") == f"<{name}>"
    for line in svg.iter("polyline"):
        for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", line.get("points") or ""):
            assert 0 <= float(x) <= 360
            assert 0 <= float(y) <= 200


def test_marks_span_their_interval() -> None:
    chart = line_chart([], marks=[Marks("held-out", [(0, 0.0, 0.5, 1.0)])], description="d", y_range=(0, 1), height=144)
    assert "M194.0 110.0V10.0" in chart  # the frame's bottom and top, in the middle of its width
    assert "held-out, step 0: 0.5 [0, 1]" in chart


def test_nothing_measured_draws_nothing() -> None:
    assert line_chart([], description="d") == ""
    assert stacked_bar([], description="d") == ""


def test_reliability_dots_grow_with_their_share() -> None:
    bins = [
        {"low": 0.0, "high": 0.1, "n": 1, "mean_value": 0.05, "mean_outcome": 0.0},
        {"low": 0.9, "high": 1.0, "n": 100, "mean_value": 0.95, "mean_outcome": 1.0},
        {"low": 0.5, "high": 0.6, "n": 0, "mean_value": None, "mean_outcome": None},
    ]
    radii = [
        float(r) for r in re.findall(r'class="bubble"[^>]* r="([\d.]+)"', reliability_chart(bins, description="d"))
    ]
    assert radii == [pytest.approx(3.2, abs=0.1), 10.0]


@given(st.lists(st.tuples(st.text(), st.floats(0, 1e6), st.integers(0, 5)), min_size=1, max_size=6))
def test_a_stacked_bar_fills_its_width(parts: list[tuple[str, float, int]]) -> None:
    widths = [float(w) for w in re.findall(r'<rect[^>]* width="([\d.]+)"', stacked_bar(parts, description="d"))]
    if sum(amount for _, amount, _ in parts) > 0:
        assert sum(widths) == pytest.approx(720, abs=0.5)
