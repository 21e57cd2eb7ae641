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
        notes = "  ".join(f"{name}={_told(value)}" for name, value in step.values.items())
        if step.state == "ran" and step.why.endswith("changed"):
            notes += f"  ({step.why})"
        took = f"{step.name:<14}{step.seconds:>7.1f} s"
        line = f"  [{colour}]{step.state:>6}[/]  {took}  [dim]{notes}[/]"
        self.console.print(line, soft_wrap=not self.console.is_terminal)


def _told(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else short(str(value))


def short(text: str, most: int = 100) -> str:
    """The beginning of a text; the whole of it stands in the run's record and in the lineage."""
    return text if len(text) <= most else text[: most - 1] + "…"


def summary(run: "Run") -> str:
    """How the run ended, why, where its outputs lie, and what to type next."""
    from lineage.workspace import workspace
    from pipelines.backends.local import INTERRUPTED
    from pipelines.model_lifecycle import WAITING

    colour = "green" if run.exit_code == 0 else "red"
    reason = f": {run.reason}" if run.reason else ""
    lines = [f"[{colour}]{run.outcome}[/]{reason}  [dim](run {run.id})[/]"]
    folder = workspace().runs / run.id
    for name, what in (
        ("validate.report/validation.html", "validation report"),
        ("evaluate.metrics/metrics.json", "metrics"),
        ("monitor_drift.report/drift.html", "drift report"),
        ("failed", "what the failed step wrote"),
    ):
        if (folder / name).exists():
            lines.append(f"  {what}: {_short_path(folder / name)}")
    if run.exit_code == INTERRUPTED:
        lines.append("  next: the same command again goes on from the unfinished step")
    for step in run.steps:
        if model := step.values.get("model_version"):
            approve = f'approve {model} --reason "…"' if run.exit_code == WAITING else None
            lines.append(f"  next: lightbox {approve or f'lineage {model}'}")
    return "\n".join(lines)


def _short_path(path: Path) -> str:
    """Relative to here if that is shorter to read."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
