"""Tell a person how a run goes, step by step, and how it ended."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pipelines.backends.local import Run, StepState

COLOURS = {"ran": "green", "reused": "cyan", "failed": "red"}


class Narrator:
    """Prints one line per step as it ends; quiet where a machine reads."""

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, quiet=quiet, highlight=False)

    def tell(self, run: "Run", step: "StepState") -> None:
        """Hear of a step that starts or ends; see `pipelines.backends.local.Tell`."""
        if step.state == "running":
            if self.console.is_terminal:
                self.console.print(f"  [dim]… {step.name}[/]", end="\r")
            return
        colour = COLOURS[step.state]
        notes = "  ".join(f"{name}={_short(value)}" for name, value in step.values.items())
        took = f"{step.name:<14}{step.seconds:>7.1f} s"
        self.console.print(f"  [{colour}]{step.state:>6}[/]  {took}  [dim]{notes}[/]")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text if len(text) <= 100 else text[:99] + "…"


def summary(run: "Run") -> "RenderableType":
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
            lines.append(f"  {what}: {folder / name}")
    if "register" in {s.name for s in run.steps if s.values}:
        version = run.step("register").values["version"]
        lines.append(f"  next: lightbox lineage {version}")
    return "\n".join(lines)
