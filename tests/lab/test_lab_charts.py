"""Charts as SVG: what is measured is drawn, where it belongs."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from foretaste.lab.charts import COLOURS, HEIGHT, MAP_LEFT, WIDTH, Dot, Series, dot_map, line_chart

SVG = "{http://www.w3.org/2000/svg}"
PLACES = {
    "easy": {"ours": [Dot(100.0), Dot(400.0), Dot(200.0)], "theirs": [Dot(1000.0, beyond=True), Dot(800.0)]},
    "hard <b>": {"ours": [Dot(0.0)]},
}


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def circles(svg: str) -> list[tuple[float, str]]:
    found = ET.fromstring(svg).iter(f"{SVG}circle")
    return [(float(one.attrib["cx"]), one.attrib["fill"]) for one in found]


def test_a_map_draws_every_measurement_and_marks_what_was_never_reached() -> None:
    svg = dot_map(PLACES, title="a & b", x="tokens")
    ours, theirs = COLOURS[:2]
    assert [colour for _, colour in circles(svg)] == [ours] * 3 + [theirs, ours]
    first, second, third, _, zero = (x for x, _ in circles(svg))
    assert first < second < third  # sorted, on a logarithmic axis: equal ratios are equally far apart
    assert second - first == pytest.approx(third - second, abs=0.2)
    assert zero == MAP_LEFT
    arrows = [path for path in ET.fromstring(svg).iter(f"{SVG}path") if path.attrib["d"].endswith("z")]
    assert [arrow.attrib["stroke"] for arrow in arrows] == [theirs]
    assert {"a & b", "easy", "hard <b>", "ours", "theirs", "tokens"} <= set(texts(svg))


def test_the_median_of_a_line_is_stroked_unless_it_was_never_reached() -> None:
    paths = [path.attrib for path in ET.fromstring(dot_map(PLACES, title="", x="")).iter(f"{SVG}path")]
    strokes = [float(re.match(r"M([\d.]+) ", one["d"]).group(1)) for one in paths if one.get("stroke-width") == "2.5"]  # type: ignore[union-attr]
    middle = circles(dot_map(PLACES, title="", x=""))[1][0]
    assert strokes == [middle, MAP_LEFT]  # of "theirs", the upper of two was never reached


def test_long_names_stay_within_a_chart() -> None:
    name = "a name of a good many letters"
    svg = line_chart([Series(name, [[(0.0, 0.0), (1.0, 1.0)]])], title="t", x="x", y="y")
    label = next(one for one in ET.fromstring(svg).iter(f"{SVG}text") if one.text == name)
    assert float(label.attrib["x"]) + 6 * len(name) < WIDTH


def test_many_seeds_are_drawn_faintly_under_their_median() -> None:
    lines = [[(0.0, 0.0), (10.0, 1.0)], [(0.0, 0.0), (10.0, 0.5)], [(0.0, 0.2), (5.0, 0.2)]]  # the last ended early
    drawn = [
        [(float(x), float(y)) for x, y in (pair.split(",") for pair in one.attrib["points"].split())]
        for one in ET.fromstring(
            line_chart([Series("a", lines, middle=True)], title="t", x="x", y="y", y_range=(0.0, 1.0))
        ).iter(f"{SVG}polyline")
    ]
    *seeds, middle = drawn
    assert [len(line) for line in seeds] == [2, 2, 2]
    bottom, top = seeds[0][0][1], seeds[0][1][1]

    def value(y: float) -> float:
        return (y - bottom) / (top - bottom)

    assert value(middle[0][1]) == pytest.approx(0.0, abs=0.01)
    assert value(middle[-1][1]) == pytest.approx(0.5, abs=0.01)  # of 1, .5 and the .2 it ended with
    halfway = min(middle, key=lambda place: abs(place[0] - (seeds[0][0][0] + seeds[0][1][0]) / 2))
    assert value(halfway[1]) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(("end", "above"), [(0.9, False), (0.1, True)])
def test_the_legend_stands_where_lines_do_not_end(end: float, above: bool) -> None:
    svg = line_chart([Series("name", [[(0.0, 0.5), (1.0, end)]])], title="t", x="x", y="y", y_range=(0.0, 1.0))
    label = next(one for one in ET.fromstring(svg).iter(f"{SVG}text") if one.text == "name")
    assert (float(label.attrib["y"]) < HEIGHT / 2) == above
