"""The tree of a run's steps in a terminal, repainted while the run goes on."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Timer
from typing import TYPE_CHECKING, Any

from components.progress import Work, duration, in_words
from pipelines.runs import Run, StepState
from pipelines.tell import COLOURS, MARKS, notes, state_of

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

# An unchanged run is over before this, and then needs no repainting.
FIRST_PAINT_S = 0.3
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class LiveTree:
    """Paints the tree as the run goes on, and once more when it is over; then it stays."""

    def __init__(self, console: "Console") -> None:
        self.console = console
        self.run: Run | None = None
        self.work: Work | None = None
        self.entered = 0.0  # when the running step entered its state
        self.over = False
        self.live: Any = None
        self.timer = Timer(FIRST_PAINT_S, self._go_live)
        self.timer.daemon = True

    def tell(self, run: Run, step: StepState) -> None:
        """Hear of a step that is blocked, starts or ends."""
        if self.run is None:
            self.run = run
            self.timer.start()
        self.entered, self.work = time.monotonic(), None

    def hear(self, work: Work) -> None:
        """Hear of work inside the running step."""
        self.work = None if work.ended else work

    def close(self) -> None:
        """Leave the whole tree as it ended."""
        if self.run is None:
            return
        self.timer.cancel()
        self.timer.join()
        self.over = True
        if self.live:
            self.live.stop()
        else:
            self.console.print(self._fitted())

    def _go_live(self) -> None:
        from rich.live import Live

        # What steps print goes to their logs, so there is nothing for rich to redirect.
        self.live = Live(
            get_renderable=self._fitted,
            console=self.console,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.live.start()

    def _fitted(self) -> "LiveTree":
        """Itself, with the terminal measured: rich measures standard input and output instead,
        which need not be this terminal while a step runs."""
        with suppress(OSError):  # it is gone
            size = os.get_terminal_size(self.console.file.fileno())
            self.console.size = (size.columns or 80, size.lines or 25)
        return self

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        assert self.run
        lines, focus = self._lines(self.run, options.max_width)
        if not self.over:
            lines = window(lines, focus, max(1, console.height - 1))
        yield from lines

    def _lines(self, run: Run, width: int) -> tuple[list["Text"], int]:
        """The tree, and which line of it matters most now."""
        from rich.text import Text

        rows = [Row("", "", run.pipeline, "bold"), *_rows(run, run.graph["nodes"])]
        column = max(len(row.guide) + len(row.label) for row in rows if row.step) + 3
        lines, focus = [], 0
        for row in rows:
            line = Text(no_wrap=True, overflow="ellipsis").append(row.guide, "dim")
            lines.append(line)
            if row.step is None:
                line.append(row.label, row.style)
                continue
            self._add_step(line, row.step, state_of(run, row.step), column)
            if row.step.state in ("running", "blocked"):
                focus = len(lines) - 1
                if self.work and self.work.done:
                    lines.append(_work_line(row, self.work, 20 if width >= 80 else 8))
        return lines, focus

    def _add_step(self, line: "Text", step: StepState, state: str, column: int) -> None:
        """Mark, name, time, and what there is to say."""
        now = time.monotonic()
        mark = SPINNER[int(now * 8) % len(SPINNER)] if state == "running" else MARKS[state]
        plain = {"running": "bold", "waiting": "dim", "skipped": "dim"}.get(state, "")
        colour = COLOURS.get(state, plain)
        line.append(f"{mark} ", colour).append(step.name, plain)
        line.append(" " * (column - line.cell_len))
        match state:
            case "waiting" | "skipped":
                return
            case "running" | "blocked":
                time_or_state = duration(now - self.entered, 0)
            case "ran":
                time_or_state = duration(step.seconds)
            case _:
                time_or_state = state
        line.append(f"{time_or_state:>10}", colour if time_or_state == state else "")
        line.append(f"  {notes(step)}", "dim")


def _work_line(row: "Row", work: Work, cells: int) -> "Text":
    """How far the work inside a step has come."""
    from rich.text import Text

    line = Text(no_wrap=True, overflow="ellipsis").append(f"{row.under}    ", "dim")
    if row.step and work.title != row.step.name:
        line.append(f"{work.title} ")
    if work.total:
        full = min(cells, cells * work.done // work.total)
        line.append("━" * full, "green").append("━" * (cells - full), "dim").append("  ")
    return line.append("  ".join(in_words(work)))


@dataclass(frozen=True)
class Row:
    """One line of the tree: a step, or the beginning of a branch, or an ending."""

    guide: str  # the lines of the tree before it
    under: str  # and before what stands below it
    label: str
    style: str = ""
    step: StepState | None = None


def _rows(run: Run, nodes: Sequence[dict[str, Any]], guide: str = "") -> Iterator[Row]:
    """The rows of a list of nodes, and of the branches in it."""
    entries = [entry for node in nodes for entry in _entries(run, node)]
    for i, (label, style, step, below) in enumerate(entries):
        last = i == len(entries) - 1
        under = guide + ("    " if last else "│   ")
        yield Row(guide + ("└── " if last else "├── "), under, label, style, step)
        yield from _rows(run, below, under)


Entry = tuple[str, str, StepState | None, Sequence[dict[str, Any]]]


def _entries(run: Run, node: dict[str, Any]) -> Iterator[Entry]:
    """What a node shows: label, style, step, and what stands below it."""
    if "step" in node:
        yield node["step"], "", run.step(node["step"]), ()
    elif "fail" in node:
        label, ended = f"end as “{node['fail']}”", run.outcome == node["fail"]
        yield (
            (f"■ {label}: so it ended", "bold red", None, ()) if ended else (label, "dim", None, ())
        )
    else:
        step, _, value = node["when"].rpartition(".")
        said = run.step(step).values.get(value)
        yield f"when {node['when']}", "yellow" if said else "dim", None, node["then"]
        if node["otherwise"]:
            style = "yellow" if said is False else "dim"
            yield "otherwise", style, None, node["otherwise"]


def window(lines: list["Text"], focus: int, height: int) -> list["Text"]:
    """As many lines as fit, those around `focus`, with a word on how many are left out."""
    from rich.text import Text

    if len(lines) <= height:
        return lines
    start = min(max(0, focus - height // 3), len(lines) - height)
    shown = lines[start : start + height]
    left_out = len(lines) - start - height
    if height > 3 and start:
        shown[0] = Text(f"⋮ {start + 1} more", style="dim")
    if height > 3 and left_out:
        shown[-1] = Text(f"⋮ {left_out + 1} more", style="dim")
    return shown
