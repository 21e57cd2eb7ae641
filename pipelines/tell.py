"""Tell a person how a run goes, step by step, how it ended, and what to type next."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from components.progress import duration, listening, now_and_then
from pipelines.step_log import is_descriptor

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.live import LiveTree
    from pipelines.runs import Run, StepState

COLOURS = {"ran": "green", "reused": "cyan", "failed": "red", "blocked": "yellow"}


def console(*, stderr: bool = False, file: IO[str] | None = None) -> "Console":
    """Where to print: as wide as the terminal, and wide enough for a table in a file or a log."""
    from rich.console import Console

    made = Console(stderr=stderr, file=file, highlight=False)
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
    coding = sys.stderr.encoding
    with os.fdopen(os.dup(2), "w", buffering=1, encoding=coding, errors="replace") as screen:
        yield screen


class Lines:
    """A line per step as it ends, and one now and then about the work inside a long one."""

    def __init__(self, console: "Console") -> None:
        self.console = console
        self.run: Run | None = None
        self._step = ""
        self._told: set[str] = set()
        self.hear = now_and_then(lambda text: self._print("", f"{self._step}:", text))

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
            if step.state == "failed" and step.name not in self._told:
                self._print("failed", step.name, notes(step))

    def _print(self, state: str, what: str, text: str) -> None:
        from rich.text import Text

        line = Text(f"  {state:>6}", style=COLOURS.get(state, ""))
        line.append(f"  {what}", style="not bold default").append(f"  {text}".rstrip(), "dim")
        self.console.print(line, soft_wrap=True)


def notes(step: "StepState") -> str:
    """What a step reported, and why it ran; a word on what it waits for if it is blocked."""
    if step.state == "blocked":
        return "another run is making this; waiting"
    told = [f"{name}={_told(value)}" for name, value in step.values.items()]
    if step.state != "reused" and step.why not in ("", "first time", "unchanged"):
        told.insert(0, f"({short(step.why)})")
    return "  ".join(told)


def _told(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else short(str(value))


def short(text: str, most: int = 100) -> str:
    """The beginning of a text; the whole of it stands in the run's record and in the lineage."""
    return text if len(text) <= most else text[: most - 1] + "…"


def summary(run: "Run") -> str:
    """How the run ended, why, where its outputs lie, and what to type next; with rich's markup."""
    from rich.markup import escape

    colour = "green" if run.exit_code == 0 else "red"
    reason = f": {escape(run.reason)}" if run.reason else ""
    states = [step.state for step in run.steps]
    facts = [f"{states.count(s)} {s}" for s in ("ran", "reused") if s in states]
    if run.ended_at:
        began, ended = map(datetime.fromisoformat, (run.started_at, run.ended_at))
        facts.append(duration((ended - began).total_seconds()))
    lines = [f"[{colour}]{run.outcome}[/]{reason}  [dim]({', '.join(facts)}; run {run.id})[/]"]
    rows = [(what, path, "") for what, path in _places(run)]
    following = [(c or "the same command again", what) for c, what in next_commands(run)]
    wide = max((len(command) for command, _ in following), default=0)
    for i, (command, what) in enumerate(following):
        rows.append(("" if i else "next", f"{command:<{wide}}", f"  [dim]{what}[/]"))
    column = max((len(label) for label, _, _ in rows), default=0) + 2
    for label, text, more in rows:
        lines.append(f"  {label + ':' if label else '':<{column}}{escape(text)}{more}")
    return "\n".join(lines)


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
    model, config = values.get("model_version"), shlex.quote(run.config or "CONFIG")
    found = []
    if run.exit_code in (FAILED, INTERRUPTED):
        stopped = next((s.name for s in run.steps if s.state in ("failed", "skipped")), "its end")
        mended = ", once the cause is mended" if run.exit_code == FAILED else ""
        found.append(("", f"goes on from {stopped}{mended}"))
    if run.exit_code == WAITING and model:
        found.append((f'lightbox approve {model} --reason "…"', "let a person decide"))
    if run.exit_code == ROLLED_BACK:
        found.append(("lightbox endpoint status", "which version answers now"))
    if model:
        found.append((f"lightbox lineage {model}", "where it came from, and who allowed it"))
    if run.exit_code == 0 and values.get("requested"):
        found.append((f"lightbox run {config}", "the retraining that was asked for"))
    elif run.exit_code == 0 and model:
        found.append((f"lightbox watch {config}", "judge what its endpoint captured"))
    if run.exit_code == 0 and not any(step.state == "ran" for step in run.steps):
        found.append((f"lightbox explain {run.id}", "why nothing had to run"))
    return found
