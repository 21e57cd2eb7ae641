import math
import re
from xml.etree import ElementTree

import pytest

from pipelines.reporting.charts import LEFT, RIGHT, TOP, WIDTH, Line, bar, chart, interval


def numbers(text: str, attribute: str) -> list[float]:
    return [float(value) for value in re.findall(rf' {attribute}="([-\d.]+)"', text)]


def drawn(points: list[tuple[float, float]], **more) -> str:
    return chart("A <chart>", [Line("one", points)], x="epoch", y="loss", **more)


def test_a_chart_is_well_formed_and_says_what_it_is() -> None:
    root = ElementTree.fromstring(drawn([(1, 0.5), (2, 0.2)], mark=(2, "<best>")))
    assert root.get("role") == "img"
    assert (root[0].tag, root[0].text) == ("title", "A <chart>")
    assert {"epoch", "loss", "<best>"} <= {text.text for text in root.iter("text")}


def test_the_ends_of_a_range_are_the_ends_of_the_axes() -> None:
    svg = drawn([(0, 0), (10, 1)], x_range=(0, 10), y_range=(0, 1), height=240)
    (line,) = re.findall(r'<polyline class="s0" points="([^"]+)"', svg)
    first, last = (tuple(map(float, place.split(","))) for place in line.split())
    assert first == (LEFT, 240 - 56)
    assert last == (WIDTH - RIGHT, TOP)


@pytest.mark.parametrize(
    "points",
    [
        [(1, 0.5)],
        [(1, 0.5), (2, 0.5)],
        [(3, 1e-300), (3, 0.0)],
        [(0, -1e9), (1e6, 1e9)],
        [(1, math.nan), (2, 0.4), (3, math.inf)],
    ],
)
def test_odd_points_make_a_chart_within_its_frame(points) -> None:
    svg = drawn(points)
    ElementTree.fromstring(svg)
    assert "nan" not in svg
    assert "inf" not in svg
    assert all(-1 <= x <= WIDTH for x in [*numbers(svg, "x1"), *numbers(svg, "cx")])


def test_without_a_point_there_is_no_chart() -> None:
    assert drawn([]) == ""
    assert drawn([(1, math.nan)]) == ""


def test_lines_are_told_apart_by_a_legend() -> None:
    two = [Line("training", [(1, 2), (2, 1)]), Line("<b>", [(1, 3), (2, 2)], "dots")]
    texts = {text.text for text in ElementTree.fromstring(chart("t", two, x="", y="")).iter("text")}
    assert {"training", "<b>"} <= texts


def test_a_bar_shows_shares_side_by_side() -> None:
    svg = bar([30, 20], 100)
    assert numbers(svg, "x") == [0, 30]
    assert numbers(svg, "width") == [30, 20]
    assert "nan" not in bar([0], 0)


def test_an_interval_lies_where_its_numbers_are() -> None:
    svg = interval({"estimate": 0.5, "low": 0.0, "high": 1.0}, (0, 1), (0.5, None))
    assert numbers(svg, "x") == [2, pytest.approx(49.1)]
    assert numbers(svg, "x1") == [2, 50]
    assert interval({"estimate": None, "low": None, "high": None}, (0, 1)) == ""
