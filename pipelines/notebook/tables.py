"""Tables for a notebook: cells escaped, no colours of their own, so dark pages stay legible."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Generic, TypeVar, overload

Item = TypeVar("Item")


@dataclass(frozen=True, repr=False)
class Listing(Sequence[Item], Generic[Item]):
    """A list that shows itself as a table.

    Attributes:
        items: What it holds.
        headers: One per column.
        cells: The row of an item.
    """

    items: Sequence[Item]
    headers: tuple[str, ...]
    cells: Callable[[Item], Sequence[Any]]

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> "Listing[Item]": ...
    def __getitem__(self, place: int | slice) -> "Item | Listing[Item]":
        if isinstance(place, slice):
            return Listing(self.items[place], self.headers, self.cells)
        return self.items[place]

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return text_table(self.headers, map(self.cells, self.items))

    def _repr_html_(self) -> str:
        return html_table(self.headers, map(self.cells, self.items))


def html_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> str:
    """One table; what a cell holds is data, never markup."""
    told = f"<p><b>{escape(title)}</b></p>" if title else ""
    lines = [f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows]
    if not lines:
        return f"{told}<p>nothing</p>"
    head = "".join(f'<th style="text-align:left">{escape(header)}</th>' for header in headers)
    body = "\n".join(lines)
    return f"{told}<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def text_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The same for a plain Python prompt."""
    lines = [list(headers), *([_told(value) for value in row] for row in rows)]
    if len(lines) == 1:
        return "nothing"
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(value: Any) -> str:
    text = _told(value)
    align = "right" if isinstance(value, int | float) else "left"
    wrap = "normal" if len(text) > 30 else "nowrap"
    return f'<td style="text-align:{align}; white-space:{wrap}">{escape(text)}</td>'


def _told(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
