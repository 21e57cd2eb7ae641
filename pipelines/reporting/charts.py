"""Small drawings as inline SVG: they need no script, print well, and grow with the page.

Colours come from the classes `s0`, `s1` … of the page's style. No drawing relies on them: lines
differ in their dashes too, and every number that matters also stands beside it as text.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import escape  # jinja2's own; `html` takes 3 ms to import

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 360, 46, 12, 20, 56  # of a chart; a phone shows it at full size
Point = tuple[float, float]
Range = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One curve, or its points only; `whiskers` are intervals (x, low, high)."""

    name: str
    points: Sequence[Point]
    kind: str = "line"  # line, dots, or guide: a thin one to compare with
    whiskers: Sequence[tuple[float, float, float]] = ()


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    x_range: Range | None = None,
    y_range: Range | None = None,
    mark: tuple[float, str] | None = None,
    height: int = 240,
) -> str:
    """Curves over two axes, with a legend below.

    Args:
        title: Read out where the drawing cannot be seen.
        lines: Points that are no numbers are left out.
        x, y: What the axes show.
        x_range, y_range: What they span; what the points span if left out.
        mark: An x to mark with a vertical line, and what it is.
        height: In units of which the width has 360.

    Returns:
        An `<svg>`, or an empty text if there is no point to draw.
    """
    lines = [Line(o.name, _sound(o.points), o.kind, _sound(o.whiskers)) for o in lines]
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    across = _Axis(x_range or _span(p[0] for p in points), LEFT, WIDTH - RIGHT)
    up = _Axis(y_range or _span((p[1] for p in points), 0.05), height - BOTTOM, TOP)
    drawn = [
        *_frame(across, up, x, y, height),
        *(_mark(across.at(mark[0]), mark[1], height) if mark else ()),
        *(_curve(line, number, across, up) for number, line in enumerate(lines)),
        *(_legend(lines, height - 8) if len(lines) > 1 else ()),
    ]
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<title>{escape(title)}</title>{''.join(drawn)}</svg>"
    )


def bar(parts: Sequence[float], whole: float) -> str:
    """One horizontal bar; its parts, side by side, as shares of `whole`."""
    drawn, at = [], 0.0
    for number, part in enumerate(parts):
        width = 100 * part / whole if whole else 0.0
        drawn.append(f'<rect class="s{number}" x="{at:.2f}" width="{width:.2f}" height="10"/>')
        at += width
    return _inline("".join(drawn))


def interval(found: Mapping[str, Any], span: Range, lines: Iterable[float | None] = ()) -> str:
    """An estimate with its interval on an axis; `lines` are values to compare it with.

    Returns:
        An `<svg>`, or an empty text if there is no number.
    """
    if found.get("estimate") is None or found.get("low") is None:
        return ""
    axis = _Axis(span, 2, 98)
    low, estimate, high = (axis.at(found[key]) for key in ("low", "estimate", "high"))
    compared = "".join(
        f'<line class="guide" x1="{axis.at(v):.2f}" x2="{axis.at(v):.2f}" y1="0" y2="10"/>'
        for v in lines
        if v is not None
    )
    return _inline(
        f'<line class="rail" x1="2" x2="98" y1="5" y2="5"/>{compared}'
        f'<rect class="s0" x="{low:.2f}" y="3.5" width="{max(high - low, 0.5):.2f}" height="3"/>'
        f'<rect class="s0" x="{estimate - 0.9:.2f}" y="0" width="1.8" height="10"/>'
    )


@dataclass(frozen=True)
class _Axis:
    """From values to places; values beyond its ends are drawn at them."""

    span: Range
    start: float
    end: float

    def at(self, value: float) -> float:
        low, high = self.span
        share = (min(max(value, low), high) - low) / ((high - low) or 1)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """About four round values within the span."""
        low, high = self.span
        rough = max(high - low, 1e-12) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= rough * 0.999)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [n * step for n in range(first, last + 1)]


def _frame(across: _Axis, up: _Axis, x: str, y: str, height: int) -> list[str]:
    bottom = height - BOTTOM
    drawn = []
    for value in up.ticks():
        at = f"{up.at(value):.1f}"
        drawn.append(f'<line class="rail" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        drawn.append(_text(LEFT - 5, up.at(value) + 4, f"{value:g}", "end"))
    for value in across.ticks():
        drawn.append(_text(across.at(value), bottom + 15, f"{value:g}", "middle"))
    drawn.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 30, x, "middle"))
    middle = (TOP + bottom) / 2
    turned = f' transform="rotate(-90 11 {middle:.1f})"'
    drawn.append(_text(11, middle, y, "middle", turned))
    return drawn


def _mark(at: float, text: str, height: int) -> list[str]:
    side, anchor = (-4, "end") if at > WIDTH / 2 else (4, "start")
    return [
        f'<line class="guide" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 14}" y2="{height - BOTTOM}"/>',
        _text(at + side, TOP - 6, text, anchor),
    ]


def _curve(line: Line, number: int, across: _Axis, up: _Axis) -> str:
    places = [(across.at(p[0]), up.at(p[1])) for p in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    if line.kind == "guide":
        return f'<polyline class="guide" points="{path}"/>'
    drawn = "".join(
        f'<line class="s{number}" x1="{across.at(x):.1f}" x2="{across.at(x):.1f}" '
        f'y1="{up.at(low):.1f}" y2="{up.at(high):.1f}"/>'
        for x, low, high in line.whiskers
    )
    # A line of one point would be invisible.
    if line.kind == "dots" or len(places) == 1:
        dots = (f'<circle class="s{number}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in places)
        return drawn + "".join(dots)
    return drawn + f'<polyline class="s{number}" points="{path}"/>'


def _legend(lines: Sequence[Line], y: float) -> list[str]:
    drawn, at = [], float(LEFT)
    for number, line in enumerate(lines):
        style = "guide" if line.kind == "guide" else f"s{number}"
        if line.kind == "dots":
            drawn.append(f'<circle class="{style}" cx="{at + 11}" cy="{y - 4}" r="4"/>')
        else:
            ends = f'x1="{at}" x2="{at + 22}" y1="{y - 4}" y2="{y - 4}"'
            drawn.append(f'<line class="{style}" {ends}/>')
        drawn.append(_text(at + 27, y, line.name, "start"))
        at += 42 + 6.2 * len(line.name)  # about as wide as such letters are
    return drawn


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _inline(drawn: str) -> str:
    """A strip within a table; the same fact stands beside it as text, so nothing reads it out."""
    return (
        '<svg class="strip" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f"{drawn}</svg>"
    )


def _sound(rows: Sequence[Any]) -> list[Any]:
    return [row for row in rows if all(math.isfinite(v) for v in row)]


def _span(values: Iterable[float], room: float = 0.0) -> Range:
    """From the lowest to the highest, with some room beyond, as a share of the way."""
    found = list(values)
    low, high = min(found), max(found)
    return low - room * (high - low), high + room * (high - low)
