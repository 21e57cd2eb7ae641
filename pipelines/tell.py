"""Tell a person how a run goes, step by step, how it ended, and what to type next."""

import io
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from components.progress import duration, listening, now_and_then
from components.step_log import is_descriptor

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from pipelines.live import LiveTree
    from pipelines.runs import Run, StepState

COLOURS = {
    **{"ran": "green", "reused": "cyan", "failed": "red"},
    **{"stopped": "yellow", "blocked": "yellow"},
}
# The same signs wherever a step's state is shown.
MARKS = {
    **{"ran": "✓", "reused": "↺", "failed": "✗", "skipped": "–", "stopped": "■"},
    **{"waiting": "·", "blocked": "…", "running": "▸"},
}


def console(*, stderr: bool = False, file: IO[str] | None = None) -> "Console":
    """Where to print: as wide as the terminal, and wide enough for a table in a file or a log."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            """Whoever read has gone, as `head` does: be silent, and go on."""
            self.quiet = True
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())

    made = Screen(stderr=stderr, file=file, highlight=False)
    if not made.is_terminal:
        made.width = 140
    return made


class Narrator:
    """Tells on standard error how a run goes; says nothing where a machine reads.

    To be entered before the run starts, and left when it has ended. In a terminal the run is a
    tree that is repainted as it goes on; anywhere else it is a line per step as it ends.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._cleanup = ExitStack()
        self._teller: LiveTree | Lines | None = None

    def __enter__(self) -> "Narrator":
        if self._quiet or sys.stderr is None:  # None: closed by whoever started us
            return self
        screen = self._cleanup.enter_context(_screen())
        if screen.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
            from pipelines.live import LiveTree

            self._teller = LiveTree(console(file=screen))
        else:
            self._teller = Lines(console(file=screen))
        self._cleanup.enter_context(listening(self._teller.hear))
        return self

    def tell(self, run: "Run", step: "StepState") -> None:
        """Hear of a step that is blocked, starts or ends; see `pipelines.backends.local.Tell`."""
        if self._teller:
            self._teller.tell(run, step)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._cleanup:
            if self._teller and self._teller.run:
                self._teller.close()
                if error:  # no summary will follow
                    for log in _logs(self._teller.run):
                        self._teller.console.print(f"  log: {log}", soft_wrap=True)


@contextmanager
def _screen() -> Iterator[IO[str]]:
    """Standard error as it is now: while a step runs, what is written there goes to its log."""
    if not is_descriptor(sys.stderr, 2):
        yield sys.stderr  # a notebook's
        return
    with io.TextIOWrapper(
        io.BufferedWriter(_Lenient(os.dup(2), "w")),
        encoding=sys.stderr.encoding,
        errors="replace",
        line_buffering=True,
    ) as screen:
        yield screen


class _Lenient(io.FileIO):
    """A screen that may go away, be closed, or be full; none of that may end a run."""

    def write(self, data: Any) -> int:
        """Write what can be written, and let the rest go."""
        with suppress(OSError):
            super().write(data)
        return memoryview(data).nbytes


class Lines:
    """A line per step as it ends, and one now and then about the work inside a long one."""

    def __init__(self, console: "Console") -> None:
        self.console = console
        self.run: Run | None = None
        self._step = ""
        self._told: set[str] = set()
        self.hear = now_and_then(self._hear)

    def tell(self, run: "Run", step: "StepState") -> None:
        """Hear of a step that is blocked, starts or ends."""
        self.run, self._step = run, step.name
        if step.state == "blocked":
            self._print("waits", step.name, notes(step))
        elif step.state != "running":
            self._told.add(step.name)
            self._print(step.state, f"{step.name:<14}{duration(step.seconds):>10}", notes(step))

    def close(self) -> None:
        """Tell of the step that did not come to its end."""
        for step in self.run.steps if self.run else ():
            if self.run and step.state == "failed" and step.name not in self._told:
                self._print(state_of(self.run, step), step.name, notes(step))

    def _hear(self, text: str) -> None:
        """Work inside the step often bears its name."""
        self._print("", f"{self._step}:", text.removeprefix(f"{self._step}  "))

    def _print(self, state: str, what: str, text: str) -> None:
        from rich.text import Text

        line = Text(f"  {state:>6}", style=COLOURS.get(state, ""))
        line.append(f"  {what}", style="not bold default").append(f"  {text}".rstrip(), "dim")
        self.console.print(line, soft_wrap=True)


def state_of(run: "Run", step: "StepState") -> str:
    """A step's state as people say it: one that was at work when they stopped the run has not
    failed."""
    stopped = run.outcome == "interrupted" and step.state == "failed"
    return "stopped" if stopped else step.state


def notes(step: "StepState") -> str:
    """What a step reported, then why it ran; a word on what it waits for if it is blocked."""
    if step.state == "blocked":
        return "another run is making this; waiting"
    told = [f"{name}={_told(value)}" for name, value in step.values.items()]
    if step.state != "reused" and step.why not in ("", "first time", "unchanged"):
        told.append(f"({short(step.why)})")
    return "  ".join(told)


def _told(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    # Twelve digits of a digest tell two apart.
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else short(text)


def short(text: str, most: int = 100) -> str:
    """The beginning of a text; the whole of it stands in the run's record and in the lineage."""
    return text if len(text) <= most else text[: most - 1] + "…"


def summary(run: "Run", width: int = 140) -> "Text":
    """How the run ended, why, what it found, where that lies, and what to type next.

    Args:
        run: One that has ended.
        width: Of the screen. No path and no command is broken, so that they can be copied.
    """
    from rich.text import Text

    lines = _ending(run, width)
    rows = [(label, text, "") for label, text in (*_found(run), *_places(run))]
    following = [(c or "the same command again", what) for c, what in next_commands(run)]
    wide = max((len(command) for command, _ in following), default=0)
    for i, (command, what) in enumerate(following):
        rows.append(("" if i else "next", f"{command:<{wide}}", what))
    column = max((len(label) for label, _, _ in rows), default=0) + 2
    for label, text, more in rows:
        line = Text(f"  {label + ':' if label else '':<{column}}{text}")
        lines.append(line)
        if more and line.cell_len + 2 + len(more) > width:
            line.rstrip()
            lines.append(line := Text(" " * (column + 2)))
        line.append(f"  {more}" if more else "", "dim")
    return Text("\n").join(lines)


def _ending(run: "Run", width: int) -> list["Text"]:
    """How the run ended, why, and what it took."""
    from rich.text import Text

    states = [step.state for step in run.steps]
    facts = [f"{states.count(s)} {s}" for s in ("ran", "reused") if s in states]
    if run.ended_at:
        began, ended = map(datetime.fromisoformat, (run.started_at, run.ended_at))
        facts.append(duration((ended - began).total_seconds()))
    told = f"({', '.join(facts)}; run {run.id})"
    why = reason(run)
    lines = textwrap.wrap(
        f"{run.outcome}: {why}" if why else run.outcome, width - 2, break_long_words=False
    )
    if len(lines) == 1 and len(lines[0]) + 2 + len(told) <= width:
        lines = [f"{lines[0]}  {told}"]
    else:
        lines = [lines[0], *(f"  {line}" for line in lines[1:]), f"  {told}"]
    text = Text("\n".join(lines))
    text.stylize("green" if run.exit_code == 0 else "red", 0, len(run.outcome))
    text.stylize("dim", len(text) - len(told))
    return [text]


def reason(run: "Run") -> str:
    """Why it ended so, without the command that is told as the next one."""
    return run.reason.partition(": lightbox ")[0]


def _found(run: "Run") -> Iterator[tuple[str, str]]:
    """What the run found, in a line or two."""
    if found := result(run):
        yield "result", found
    values = {step.name: step.values for step in run.steps}
    for step, what in (("monitor_drift", "drift"), ("retrain", "retraining")):
        if said := values.get(step, {}).get("reason"):
            yield what, said


def result(run: "Run") -> str:
    """What the model is worth on the test split, and what the gate says to that, in a line; empty
    if nothing was measured."""
    values = {step.name: step.values for step in run.steps}
    measured, ruled = values.get("evaluate", {}), values.get("gate", {})
    words = []
    if "auroc" in measured:
        seen = f"{measured['images']} test images of {measured['patients']} patients"
        words.append(f"AUROC {measured['auroc']} on {seen}")
    if "reason" in ruled:
        words.append(f"gate: {ruled['reason'].partition(':')[0]}")
    return "; ".join(words)


def _places(run: "Run") -> Iterator[tuple[str, str]]:
    """What there is to look at, and where."""
    from lineage.workspace import workspace

    folder = workspace().runs / run.id
    for name, what in (
        ("report.html", "report"),
        ("validate.report/validation.html", "validation report"),
        ("evaluate.metrics/metrics.json", "metrics"),
        ("monitor_drift.report/drift.html", "drift report"),
        ("failed", "left behind"),
    ):
        if (folder / name).exists():
            yield what, _short_path(folder / name)
    for log in _logs(run):
        yield "log", log


def _logs(run: "Run") -> list[str]:
    """The logs of the steps that failed."""
    from lineage.workspace import workspace

    folder = workspace().runs / run.id / "logs"
    logs = [folder / f"{step.name}.log" for step in run.steps if step.state == "failed"]
    return [_short_path(log) for log in logs if log.exists()]


def _short_path(path: Path) -> str:
    """Relative to here if that is shorter to read."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def next_commands(run: "Run") -> list[tuple[str, str]]:
    """What to type next, which hangs on how the run ended, and what for; "" is the same again."""
    from pipelines.model_lifecycle import ROLLED_BACK, WAITING
    from pipelines.runs import FAILED, INTERRUPTED

    values = {name: value for step in run.steps for name, value in step.values.items()}
    model = values.get("model_version")
    changed = (f"--set {shlex.quote(override)}" for override in run.overrides)
    settings = " ".join((shlex.quote(run.config or "CONFIG"), *changed))
    found = []
    if run.exit_code in (FAILED, INTERRUPTED):
        stopped = next((s.name for s in run.steps if s.state in ("failed", "skipped")), "its end")
        mended = ", once the cause is mended" if run.exit_code == FAILED else ""
        found.append(("", f"goes on from {stopped}{mended}"))
    if run.exit_code == WAITING and model:
        found.append(
            (f'lightbox approve {model} --reason "…"', "then the same run again releases it")
        )
    if run.exit_code == ROLLED_BACK:
        found.append(("lightbox endpoint status", "which version answers now"))
    if model:
        found.append((f"lightbox lineage {model}", "where it came from, and who allowed it"))
    if run.exit_code == 0 and values.get("requested"):
        found.append((f"lightbox run {settings}", "the retraining that was asked for"))
    elif run.exit_code == 0 and model:
        found.append((f"lightbox watch {settings}", "judge what its endpoint captured"))
    elif values.get("verdict") == "insufficient":
        found.append(("", "judges, once as many requests have come in"))
    if run.exit_code == 0 and not any(step.state == "ran" for step in run.steps):
        found.append((f"lightbox explain {run.id}", "why nothing had to run"))
    return found
