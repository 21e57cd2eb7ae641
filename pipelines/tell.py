"""Tell a person how a run goes, step by step, and how it ended."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.backends.local import Run, StepState

COLOURS = {"ran": "green", "reused": "cyan", "failed": "red"}


def console(*, stderr: bool = False, quiet: bool = False) -> "Console":
    """Where to print: as wide as the terminal, and wide enough for a table in a file or a log."""
    from rich.console import Console

    made = Console(stderr=stderr, quiet=quiet, highlight=False)
    if not made.is_terminal:
        made.width = 140
    return made


class Narrator:
    """Prints one line per step as it ends; quiet where a machine reads."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = console(stderr=True, quiet=quiet)

    def tell(self, run: "Run", step: "StepState") -> None:
        """Hear of a step that starts or ends; see `pipelines.backends.local.Tell`."""
        if step.state == "running":
            if self.console.is_terminal:
                self.console.print(f"  [dim]… {step.name}[/]", end="\r")
            return
        colour = COLOURS[step.state]
        notes = "  ".join(f"{name}={_short(value)}" for name, value in step.values.items())
        took = f"{step.name:<14}{step.seconds:>7.1f} s"
        line = f"  [{colour}]{step.state:>6}[/]  {took}  [dim]{notes}[/]"
        self.console.print(line, soft_wrap=not self.console.is_terminal)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text if len(text) <= 100 else text[:99] + "…"


def summary(run: "Run") -> str:
    """How the run ended, why, where its outputs lie, and what to type next."""
    from lineage.workspace import workspace

    colour = "green" if run.exit_code == 0 else "red"
    reason = f": {run.reason}" if run.reason else ""
    lines = [f"[{colour}]{run.outcome}[/]{reason}  [dim](run {run.id})[/]"]
    folder = workspace().runs / run.id
    for name, what in (
        ("validate.report", "validation report"),
        ("evaluate.metrics", "metrics and predictions"),
        ("monitor_drift.report", "drift report"),
        ("failed", "what the failed step wrote"),
    ):
        if (folder / name).exists():
            lines.append(f"  {what}: {_short_path(folder / name)}")
    for step in run.steps:
        if model := step.values.get("model_version"):
            lines.append(f"  next: lightbox lineage {model}")
    return "\n".join(lines)


def _short_path(path: Path) -> str:
    """Relative to here if that is shorter to read."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
