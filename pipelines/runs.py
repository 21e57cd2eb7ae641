"""The record of a run: how each step fared, kept in a folder that a kill leaves readable.

runs/<id>/run.json            the whole run, written when it starts and when it ends
runs/<id>/steps.jsonl         a line whenever a step starts or ends, for those who look meanwhile
runs/<id>/<step>.<output>     where that output lies
runs/<id>/failed/<step>/      what a failing step had written
runs/<id>/logs/<step>.log     what a step said
runs/<id>/report.html         all of it, to look at
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lineage.errors import BadInput
from lineage.files import read_json, write_json
from lineage.workspace import Workspace

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
ENDED = ("ran", "reused", "failed", "skipped")


def now() -> str:
    """This moment in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class StepState:
    """How one step fared in one run."""

    name: str
    state: str = "waiting"  # waiting, blocked (another run makes the very same), running, ENDED
    why: str = ""
    changed: list[dict[str, Any]] = field(default_factory=list)  # see backends.keys.Difference
    started_at: str | None = None
    seconds: float = 0.0
    key: str = ""
    made_by: str = ""  # the run that executed it; another one if it was reused
    values: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass
class Run:
    """One walk through a pipeline."""

    id: str
    pipeline: str
    config: str
    config_digest: str
    pid: int
    started_at: str
    steps: list[StepState]
    graph: dict[str, Any] = field(default_factory=dict)  # see pipelines.show.as_data
    ended_at: str | None = None
    outcome: str = "running"  # done, failed, bad input, interrupted, or what a Fail node says
    exit_code: int | None = None
    reason: str = ""

    def step(self, name: str) -> StepState:
        """The state of the step that bears this name."""
        return next(s for s in self.steps if s.name == name)


@dataclass(frozen=True)
class RunFolder:
    """Where a run is written down while it goes on."""

    path: Path

    def begin(self, run: Run) -> None:
        """Write the run as it starts.

        Raises:
            OSError: The workspace is full or cannot be written: nothing has run yet.
        """
        self.path.mkdir(parents=True)
        write_json(self.path / "run.json", asdict(run), durable=False, indent=None)

    def note(self, step: StepState) -> None:
        """Add a line for a step that starts or ends."""
        with (self.path / "steps.jsonl").open("a") as file:
            file.write(json.dumps(asdict(step)) + "\n")

    def link(self, step: StepState, objects: Path) -> None:
        """Put a link to each of a step's outputs where people look for it."""
        for name, content in step.outputs.items():
            target = os.path.relpath(objects / content, self.path)
            (self.path / f"{step.name}.{name}").symlink_to(target)

    def end(self, run: Run) -> None:
        """Write the run as it ended; a full disk costs this line of the record, and no more."""
        with suppress(OSError):
            write_json(self.path / "run.json", asdict(run))


def past_runs(workspace: Workspace) -> list[Run]:
    """Every run of the workspace, newest first; one whose process died counts as interrupted."""
    found = [run for path in workspace.runs.glob("*/run.json") if (run := _read(path))]
    return sorted(found, key=lambda run: (run.started_at, run.id), reverse=True)


def find_run(workspace: Workspace, run_id: str | None) -> Run:
    """The run whose id begins so, or the newest one.

    Raises:
        BadInput: There is none, or there are several.
    """
    names = sorted(path.parent.name for path in workspace.runs.glob("*/run.json"))
    if not names:
        raise BadInput("there are no runs here yet; `lightbox run CONFIG` starts one")
    if run_id is None:
        return past_runs(workspace)[0]
    fitting = [name for name in names if name.startswith(run_id)]
    if len(fitting) != 1:
        told = "no run begins with" if not fitting else f"{len(fitting)} runs begin with"
        raise BadInput(f"{told} {run_id!r}; `lightbox runs` lists them")
    if (run := _read(workspace.runs / fitting[0] / "run.json")) is None:
        raise BadInput(f"{fitting[0]}: its run.json cannot be read; choose another run")
    return run


def _read(path: Path) -> Run | None:
    run = _parsed(path)
    if run and run.outcome == "running" and not alive(run.pid, run.started_at):
        run = _parsed(path)  # it may have ended between the two looks
        if run and run.outcome == "running":
            run.outcome, run.exit_code = "interrupted", INTERRUPTED
    return run


def _parsed(path: Path) -> Run | None:
    record = read_json(path)
    try:
        run = Run(**{**record, "steps": [StepState(**step) for step in record["steps"]]})
    except (TypeError, KeyError):
        return None  # torn, or written by a version that kept other facts
    if run.outcome == "running":
        latest = {step.name: step for step in _lines(path.with_name("steps.jsonl"))}
        run.steps = [latest.get(step.name, step) for step in run.steps]
    return run


def _lines(path: Path) -> Iterator[StepState]:
    with suppress(FileNotFoundError):
        for line in path.read_text().splitlines():
            with suppress(json.JSONDecodeError, TypeError):  # a kill may tear the last line
                yield StepState(**json.loads(line))


def alive(pid: int, since: str = "") -> bool:
    """Whether a process runs on this machine, and did at that moment (ISO 8601) already.

    Numbers are given out again: after a reboot, and in each new container.
    """
    try:
        # The name in brackets may hold anything; after it come the state, …, and the start.
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(facts[19]) / os.sysconf("SC_CLK_TCK")
    began = datetime.now(UTC) - timedelta(seconds=age_s + 2)  # clocks are set, by a little
    return facts[0] != "Z" and (not since or began <= datetime.fromisoformat(since))
