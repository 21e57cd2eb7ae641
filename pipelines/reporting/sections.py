"""What a report is made of: sections with tables and drawings, and where their facts lie."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lineage.digest import RECORD
from lineage.files import read_json
from pipelines.runs import Run


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    mark: str = ""  # an outcome or a state, shown with its sign and in its colour
    full: str = ""  # of a text that is cut short
    drawing: str = ""  # an SVG beside the text


@dataclass(frozen=True)
class Table:
    """Rows under heads; the first cell of a row is its head."""

    caption: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    folded: bool = False  # on a screen, shown on demand


@dataclass(frozen=True)
class Section:
    """One part of the page; figures are (SVG, caption), links (text, path in the run's folder)."""

    title: str
    lead: list[str] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Outputs:
    """What lies in the folder of a run: outputs by name, and what a failing step wrote."""

    run: Run
    folder: Path

    def path(self, step: str, output: str) -> Path:
        """An output's folder; it need not be there."""
        kept = self.folder / "failed" / step / output
        return kept if kept.is_dir() else self.folder / f"{step}.{output}"

    def json(self, step: str, output: str, name: str) -> Any:
        """What a file of an output says, or None if it is not there."""
        return read_json(self.path(step, output) / name, object)

    def record(self, step: str, output: str) -> dict[str, Any]:
        """What made an output; empty if it left no record."""
        return self.json(step, output, RECORD) or {}

    def links(self, *wanted: tuple[str, str, str, str]) -> list[tuple[str, str]]:
        """Of (text, step, output, file), those that are there, as (text, path in the folder)."""
        places = [(text, self.path(step, output) / name) for text, step, output, name in wanted]
        return [(t, p.relative_to(self.folder).as_posix()) for t, p in places if p.is_file()]


def words(name: str) -> str:
    """A name as it is read."""
    return name.replace("_", " ").replace("auroc", "AUROC")
