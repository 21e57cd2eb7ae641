"""Run a pipeline here, in this process, one step after another, reusing finished work."""

import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.runtime import execute
from lineage.code import code_digest, environment
from lineage.digest import digest, tree_digest
from lineage.errors import BadInput, StepFailed
from lineage.files import write_json
from lineage.workspace import Workspace
from pipelines.backends.store import Made, Store
from pipelines.graph import Fail, Node, Pipeline, Port, Source, Step, When

log = logging.getLogger(__name__)
Resolve = Callable[[Source], Path]
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


@dataclass
class StepState:
    """How one step fared in one run."""

    name: str
    state: str = "waiting"  # waiting, running, ran, reused, failed, skipped
    why: str = ""
    seconds: float = 0.0
    key: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass
class Run:
    """One walk through a pipeline; kept as `run.json`, rewritten after each step."""

    id: str
    pipeline: str
    config: str
    config_digest: str
    pid: int
    started_at: str
    steps: list[StepState]
    ended_at: str | None = None
    outcome: str = "running"  # done, failed, bad input, interrupted, or what a Fail node says
    exit_code: int | None = None
    reason: str = ""

    def step(self, name: str) -> StepState:
        """The state of the step that bears this name."""
        return next(s for s in self.steps if s.name == name)


Tell = Callable[[Run, StepState], None]  # called when a step starts and when it ends


def run(
    pipeline: Pipeline,
    workspace: Workspace,
    resolve: Resolve,
    *,
    config: str = "",
    tell: Tell = lambda run, step: None,
) -> Run:
    """Walk the graph. The result says how it ended; only a bug or a kill raises.

    Args:
        pipeline: What to run.
        workspace: Holds the store of finished work and the records of runs.
        resolve: Says where a source's data lies on this machine. Asked once, at the start.
        config: The name of the settings file, for the record.
        tell: Hears of each step as it starts and ends.

    Raises:
        BadInput: A source cannot be found, or a step cannot use what it was given.
    """
    settings = digest(
        "settings", {s.name: s.config.model_dump(mode="json") for s in pipeline.steps()}
    )
    started = datetime.now(UTC)
    record = Run(
        id=f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        pipeline=pipeline.name,
        config=config,
        config_digest=settings,
        pid=os.getpid(),
        started_at=started.isoformat(timespec="milliseconds"),
        steps=[StepState(step.name) for step in pipeline.steps()],
    )
    walk = _Walk(record, Store(workspace.store), workspace, tell)
    walk.save()
    code, outcome = BAD_INPUT, "bad input"
    try:
        walk.sources = {source: resolve(source) for source in pipeline.sources()}
        end = walk.visit(pipeline.nodes)
        outcome, code = (end.outcome, end.exit_code) if end else ("done", 0)
        record.reason = walk.value(end.reason) if end else ""
    except StepFailed as error:
        outcome, code, record.reason = "failed", FAILED, str(error)
    except KeyboardInterrupt:
        outcome, code, record.reason = "interrupted", INTERRUPTED, "stopped by the user"
    except BadInput as error:
        record.reason = str(error)
        raise
    except Exception as error:
        outcome, code, record.reason = "failed", FAILED, type(error).__name__
        raise
    finally:
        for step in record.steps:
            step.state = {"waiting": "skipped", "running": "failed"}.get(step.state, step.state)
        record.outcome, record.exit_code = outcome, code
        record.ended_at = datetime.now(UTC).isoformat(timespec="seconds")
        walk.save()
    return record


@dataclass
class _Walk:
    """Where each output lies and what each step reported, so far."""

    run: Run
    store: Store
    workspace: Workspace
    tell: Tell
    sources: dict[Source, Path] = field(default_factory=dict)

    def visit(self, nodes: Sequence[Node]) -> Fail | None:
        for node in nodes:
            match node:
                case Step():
                    self._run(node)
                case When():
                    branch = node.then if self.value(node.condition) else node.otherwise
                    if end := self.visit(branch):
                        return end
                case Fail():
                    return node
        return None

    def value(self, port: Port) -> Any:
        return self.run.step(port.step.name).values[port.name]

    def locate(self, origin: Port | Source) -> Path:
        if isinstance(origin, Source):
            return self.sources[origin]
        return self.store.path(self.run.step(origin.step.name).outputs[origin.name])

    def _run(self, step: Step) -> None:
        state = self.run.step(step.name)
        started = time.perf_counter()
        state.state = "running"
        self.tell(self.run, state)
        inputs = {name: self.locate(origin) for name, origin in step.inputs.items()}
        contents = {name: tree_digest(path) for name, path in inputs.items()}
        self._refuse_changed(step, contents)
        parts = self._key_parts(step, contents)
        state.key = digest("step", parts)
        state.why = self._why(step.name, parts)
        # One process makes a key, or changes the world, at a time; the others wait and reuse.
        with self.store.lock("effects" if step.component.effect else state.key):
            made = self.store.find(state.key)
            if made and step.component.receipt:
                paths = {name: self.store.path(content) for name, content in made.outputs.items()}
                made = made if step.component.receipt(**paths) else None
            state.state = "reused" if made else "ran"
            if made is None:
                made = self._tried(step, parts, inputs, contents)
        state.values, state.outputs = made.values, made.outputs
        state.seconds = round(time.perf_counter() - started, 3)
        write_json(self.store.root / "latest" / f"{step.name}.json", parts)
        self.save()
        self.tell(self.run, state)

    def _refuse_changed(self, step: Step, contents: dict[str, str]) -> None:
        """An object's name is its content; one edited while the run goes on is no longer it."""
        for name, origin in step.inputs.items():
            if isinstance(origin, Port):
                made = self.run.step(origin.step.name).outputs[origin.name]
                if contents[name] != made:
                    raise StepFailed(
                        f"{origin.step.name}.{origin.name} was changed after it was made; "
                        "the same command again makes it anew"
                    )

    def _tried(
        self, step: Step, parts: dict[str, Any], inputs: dict[str, Path], contents: dict[str, str]
    ) -> Made:
        """Execute, and again as often as the component allows; a "no" is not tried again."""
        for _ in range(step.component.retries):
            try:
                return self._execute(step, parts, inputs, contents)
            except (BadInput, StepFailed):
                raise
            except Exception as error:  # its text may quote data
                log.warning("%s ended with %s; trying again", step.name, type(error).__name__)
        return self._execute(step, parts, inputs, contents)

    def _execute(
        self, step: Step, parts: dict[str, Any], inputs: dict[str, Path], contents: dict[str, str]
    ) -> Made:
        with self.store.building(step.name) as folder:
            outputs = {name: folder / name for name in step.component.outputs}
            try:
                values, digests = execute(step.component, step.config, inputs, outputs, contents)
            except StepFailed:
                # Its report is the reader's only way to see why: keep what was written.
                kept = self._folder() / "failed" / step.name
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(folder, kept)
                raise
            made = Made(step.name, parts, values, digests)
            self.store.keep(made, outputs)
        return made

    def _key_parts(self, step: Step, contents: dict[str, str]) -> dict[str, Any]:
        """All that a result depends on. What is missing here makes a stale hit."""
        component = step.component
        return {
            "step": component.name,
            "code": code_digest(component.module),
            "config": step.config.model_dump(mode="json"),
            "environment": environment(),
            "inputs": contents,
            "secrets": {name: self.workspace.fingerprint(name) for name in component.secrets},
        }

    def _why(self, name: str, parts: dict[str, Any]) -> str:
        """Which parts of the key differ from this step's last run in this store."""
        path = self.store.root / "latest" / f"{name}.json"
        last = read_json(path)
        if last is None:
            return "first time"
        differing = {part: _differing(parts[part], last.get(part)) for part in parts}
        changed = [f"{part} {', '.join(d)}".strip() for part, d in differing.items() if d]
        return "; ".join(changed) + " changed" if changed else "unchanged"

    def _folder(self) -> Path:
        return self.workspace.runs / self.run.id

    def save(self) -> None:
        folder = self._folder()
        write_json(folder / "run.json", asdict(self.run))
        for step in self.run.steps:
            for name, content in step.outputs.items():
                link = folder / f"{step.name}.{name}"
                if not link.is_symlink():
                    link.symlink_to(os.path.relpath(self.store.path(content), folder))


def _differing(new: Any, old: Any) -> list[str]:
    if isinstance(new, dict) and isinstance(old, dict):
        return [key for key in {**new, **old} if new.get(key) != old.get(key)]
    return [""] if new != old else []


def read_json(path: Path) -> Any:
    """A JSON file's value, or None if there is no such file, or only a torn one."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def past_runs(workspace: Workspace) -> list[Run]:
    """Every run of the workspace, newest first; one whose process died counts as interrupted."""
    found = []
    for path in workspace.runs.glob("*/run.json"):
        if (record := read_json(path)) is None:
            continue
        run = Run(**{**record, "steps": [StepState(**step) for step in record["steps"]]})
        if run.outcome == "running" and not Path(f"/proc/{run.pid}").exists():
            run.outcome, run.exit_code = "interrupted", INTERRUPTED
        found.append(run)
    return sorted(found, key=lambda run: run.started_at, reverse=True)
