"""How a run on a cluster fares and ended, in our own words and exit codes."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from pipelines.runs import FAILED, Run, StepState
from pipelines.submitting.engine import Execution, Task, fails, plain

ENDED_WELL = ("ran", "reused")
STARTED = ("running", "failed", *ENDED_WELL)
Nodes = list[dict[str, Any]]


def update(run: Run, execution: Execution) -> list[StepState]:
    """Write down what the engine tells of each step; the steps of which something is new."""
    told = {plain(task.name): task for task in execution.tasks}
    changed = []
    for step in run.steps:
        if (task := told.get(plain(step.name))) and _take(step, task):
            changed.append(step)
    _infer(run, run.graph["nodes"], execution)
    return changed


def _take(step: StepState, task: Task) -> bool:
    began, ended = task.started_at, task.ended_at or datetime.now(UTC)
    state = "failed" if task.state == "stopped" else task.state
    new = state != step.state
    step.state = state
    step.why = task.why or step.why
    step.values |= task.values
    step.started_at = in_utc(began) if began else None
    step.seconds = max(0.0, round((ended - began).total_seconds(), 3)) if began else 0.0
    return new


def in_utc(moment: datetime) -> str:
    """As `pipelines.runs.now` writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _infer(run: Run, nodes: Nodes, execution: Execution) -> None:
    """Fill in what a branch read, where the engine does not tell: a branch taken says it."""
    for node in nodes:
        if "when" not in node:
            continue
        step, _, value = node["when"].rpartition(".")
        for branch, said in ((node["then"], True), (node["otherwise"], False)):
            if _taken(run, branch, execution):
                run.step(step).values.setdefault(value, said)
            _infer(run, branch, execution)


def _taken(run: Run, nodes: Nodes, execution: Execution) -> bool:
    return any(run.step(name).state in STARTED for name in _steps(nodes)) or any(
        _reached(fail, execution) for fail in fails(nodes)
    )


def _steps(nodes: Nodes) -> Iterator[str]:
    for node in nodes:
        if "step" in node:
            yield node["step"]
        yield from _steps([*node.get("then", ()), *node.get("otherwise", ())])


def conclude(run: Run, execution: Execution) -> None:
    """Say how a run ended, once the engine says that it did; what nothing explains is no success.

    A step that failed outweighs a Fail that was reached: the run did not end as the graph says.
    """
    ends = [fail for fail in fails(run.graph["nodes"]) if _reached(fail, execution)]
    failed = [
        task for task in execution.tasks if task.state == "failed" and not _is_fail(run, task)
    ]
    if failed:
        why = f": {failed[0].why}" if failed[0].why else ""
        run.outcome, run.exit_code = "failed", FAILED
        run.reason = f"{_name(run, failed[0])} failed{why}"
    elif execution.state == "stopped":
        run.outcome, run.exit_code = "interrupted", FAILED
        run.reason = execution.reason or "stopped on the engine"
    elif ends:
        run.outcome, run.exit_code = ends[0]["fail"], ends[0]["exit_code"]
        run.reason = _why(ends[0], execution)
    elif execution.state == "failed":
        run.outcome, run.exit_code = "failed", FAILED
        run.reason = execution.reason or "the engine does not say which step failed"
    elif missing := list(_unexplained(run, run.graph["nodes"])):
        run.outcome, run.exit_code = "failed", FAILED
        run.reason = (
            f"the engine says that the run succeeded, but not that {missing[0]} did; look there"
        )
    else:
        run.outcome, run.exit_code, run.reason = "done", 0, ""
    run.settle()


def _unexplained(run: Run, nodes: Nodes) -> Iterator[str]:
    """What must have happened in a run that went well, and is not known to."""
    for node in nodes:
        if "step" in node:
            if run.step(node["step"]).state not in ENDED_WELL:
                yield node["step"]
        elif "fail" in node:
            yield f"anything but “{node['fail']}”"
        else:
            step, _, value = node["when"].rpartition(".")
            # Nothing behind a branch that was not taken; an engine may not tell which was.
            taken = run.step(step).values.get(value, False)
            yield from _unexplained(run, node["then"] if taken else node["otherwise"])


def _why(fail: dict[str, Any], execution: Execution) -> str:
    """The reason that a step reported; engines put the outcome before it, or lose it."""
    task = next(task for task in execution.tasks if _named(fail, task) and task.state == "failed")
    told = task.why.removeprefix(f"{fail['fail']}: ")
    return told or f"its task says why, in the engine's log of {task.name}"


def _reached(fail: dict[str, Any], execution: Execution) -> bool:
    return any(task.state == "failed" and _named(fail, task) for task in execution.tasks)


def _is_fail(run: Run, task: Task) -> bool:
    return any(_named(fail, task) for fail in fails(run.graph["nodes"]))


def _named(fail: dict[str, Any], task: Task) -> bool:
    """Engines number what would bear the same name."""
    name, number = plain(fail["fail"]), plain(task.name)
    return number == name or number.removeprefix(f"{name}-").isdigit()


def _name(run: Run, task: Task) -> str:
    return next((s.name for s in run.steps if plain(s.name) == plain(task.name)), task.name)
