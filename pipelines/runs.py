"""The record of a run: how each step fared, kept in a folder that a kill leaves readable.

runs/<id>/run.json            the whole run, written when it starts and when it ends
runs/<id>/steps.jsonl         a line whenever a step starts or ends, for those who look meanwhile
runs/<id>/<step>.<output>     where that output lies
runs/<id>/failed/<step>/      what a failing step had written
runs/<id>/logs/<step>.log     what a step said
runs/<id>/report.html         all of it, to look at
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineage.digest import digest
from lineage.errors import BadInput
from lineage.files import read_json, write_json
from lineage.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.graph import Pipeline

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
LINES = "steps.jsonl"
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
    made_seconds: float = 0.0  # what it took there
    values: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    def elapsed(self) -> float:
        """Seconds since it started."""
        assert self.started_at
        passed = datetime.now(UTC) - datetime.fromisoformat(self.started_at)
        return max(0.0, round(passed.total_seconds(), 3))  # clocks are set back


def config_digest(pipeline: "Pipeline") -> str:
    """The digest of the settings of all steps."""
    settings = {step.name: step.config.model_dump(mode="json") for step in pipeline.steps()}
    return digest("settings", settings)


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
    overrides: list[str] = field(default_factory=list)  # what was set otherwise than in config
    ended_at: str | None = None
    outcome: str = "running"  # done, failed, bad input, interrupted, or what a Fail node says
    exit_code: int | None = None
    reason: str = ""

    def step(self, name: str) -> StepState:
        """The state of the step that bears this name."""
        return next(s for s in self.steps if s.name == name)

    def settle(self) -> None:
        """Say of each step that did not come to its end what became of it."""
        for step in self.steps:
            if step.state in ("running", "blocked"):
                step.state = "failed"
            elif step.state == "waiting":
                step.state = "skipped"


def new_run(pipeline: "Pipeline", config: str, overrides: Sequence[str]) -> Run:
    """A run of which no step has started."""
    from pipelines.show import as_data  # records are read where nothing is installed, too

    started = datetime.now(UTC)
    return Run(
        id=f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}",
        pipeline=pipeline.name,
        config=config,
        overrides=list(overrides),
        config_digest=config_digest(pipeline),
        pid=os.getpid(),
        started_at=started.isoformat(timespec="milliseconds"),
        steps=[StepState(step.name) for step in pipeline.steps()],
        graph=as_data(pipeline),
    )


@dataclass
class RunFolder:
    """Where a run is written down while it goes on; locked as long, so that nobody need guess."""

    path: Path
    _file: FileIO | None = field(default=None, init=False, repr=False)

    def begin(self, run: Run) -> None:
        """Write the run as it starts.

        Raises:
            OSError: The workspace is full or cannot be written: nothing has run yet.
        """
        self.path.mkdir(parents=True)
        self._file = (self.path / LINES).open("ab", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)  # freed when it is closed, also by a kill
        write_json(self.path / "run.json", asdict(run), durable=False, indent=None)

    def note(self, step: StepState) -> None:
        """Add a line for a step that starts or ends."""
        assert self._file, "the run has not begun, or has ended"
        self._file.write(f"{json.dumps(asdict(step))}\n".encode())

    def link(self, step: StepState, objects: Path) -> None:
        """Put a link to each of a step's outputs where people look for it."""
        for name, content in step.outputs.items():
            target = os.path.relpath(objects / content, self.path)
            (self.path / f"{step.name}.{name}").symlink_to(target)

    def end(self, run: Run) -> None:
        """Write the run as it ended; a full disk costs this line of the record, and no more."""
        with suppress(OSError):
            write_json(self.path / "run.json", asdict(run))
        if self._file:
            self._file.close()


def past_runs(workspace: Workspace) -> list[Run]:
    """Every run of the workspace, newest first; one that never came to its end counts as
    interrupted."""
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
    if run and run.outcome == "running" and not _goes_on(path.parent):
        run = _parsed(path)  # it may have ended between the two looks
        if run and run.outcome == "running":
            run.outcome, run.exit_code = "interrupted", INTERRUPTED
            run.reason = "its process ended before it did"
            run.settle()
    return run


def _parsed(path: Path) -> Run | None:
    record = read_json(path)
    try:
        run = Run(**{**record, "steps": [StepState(**step) for step in record["steps"]]})
    except (TypeError, KeyError):
        return None  # torn, or written by a version that kept other facts
    if run.outcome == "running":
        latest = {step.name: step for step in _lines(path.with_name(LINES))}
        run.steps = [latest.get(step.name, step) for step in run.steps]
    return run


def _lines(path: Path) -> Iterator[StepState]:
    with suppress(FileNotFoundError):
        for line in path.read_text().splitlines():
            with suppress(json.JSONDecodeError, TypeError):  # a kill may tear the last line
                yield StepState(**json.loads(line))


def _goes_on(folder: Path) -> bool:
    """Whether the run's process lives and has not ended it; numbers of processes come again."""
    try:
        with (folder / LINES).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def alive(pid: int) -> bool:
    """Whether a process with this number runs on this machine."""
    return Path(f"/proc/{pid}").exists()
