"""Why each step of a run ran, was reused, failed, or was never reached."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from components.progress import duration
from pipelines.runs import Run
from pipelines.tell import reason, state_of


@dataclass(frozen=True)
class Explained:
    """What became of one step, and why."""

    step: str
    state: str
    seconds: float
    why: str
    made_by: str  # the run that executed it
    changed: list[dict[str, Any]]  # the parts of its key that differ, see backends.keys.Difference


def explain(run: Run) -> list[Explained]:
    """One entry per step, in the order of the pipeline."""
    guards = dict(_guards(run.graph.get("nodes", []), ()))
    return [
        Explained(
            s.name, state_of(run, s), s.seconds, _why(run, s.name, guards), s.made_by, s.changed
        )
        for s in run.steps
    ]


def _why(run: Run, name: str, guards: dict[str, tuple[tuple[str, bool], ...]]) -> str:
    step = run.step(name)
    if step.state == "reused":
        took = f" in {duration(step.made_seconds)}" if step.made_seconds >= 1 else ""
        if step.why == "unchanged":
            return f"nothing changed since run {step.made_by} made it{took}"
        return f"{step.why}; what run {step.made_by} made{took} stands"
    if step.state == "failed":
        return reason(run)
    if step.state != "skipped":
        return step.why
    for condition, wanted in guards.get(name, ()):
        source, _, value = condition.rpartition(".")
        found = run.step(source).values.get(value)
        if found is not None and found is not wanted:
            return f"{condition} was {str(found).lower()}"
    return f"the run ended before: {run.outcome}"


def _guards(
    nodes: list[dict[str, Any]], above: tuple[tuple[str, bool], ...]
) -> Iterator[tuple[str, tuple[tuple[str, bool], ...]]]:
    """Each step with the conditions that lead to it, the outermost first."""
    for node in nodes:
        if "step" in node:
            yield node["step"], above
        elif "when" in node:
            yield from _guards(node["then"], (*above, (node["when"], True)))
            yield from _guards(node["otherwise"], (*above, (node["when"], False)))
