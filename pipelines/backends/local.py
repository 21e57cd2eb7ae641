"""Run a pipeline here, in this process, one step after another, reusing finished work."""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from components import step_log
from components.runtime import execute, tried
from lineage import code
from lineage.digest import digest
from lineage.errors import BadInput, StepFailed
from lineage.workspace import Workspace
from pipelines.backends import keys
from pipelines.backends.store import Made, Store
from pipelines.graph import Fail, Node, Pipeline, Port, Source, Step, When
from pipelines.runs import BAD_INPUT, FAILED, INTERRUPTED, Run, RunFolder, StepState, new_run, now

Resolve = Callable[[Source], Path]
Tell = Callable[[Run, StepState], None]  # called when a step is blocked, starts, and ends


def run(
    pipeline: Pipeline,
    workspace: Workspace,
    resolve: Resolve,
    *,
    config: str = "",
    overrides: Sequence[str] = (),
    until: str | None = None,
    tell: Tell = lambda run, step: None,
    ended: Callable[[Run], None] = lambda run: None,
) -> Run:
    """Walk the graph. The result says how it ended; only a bug or a kill raises.

    Args:
        pipeline: What to run.
        workspace: Holds the store of finished work and the records of runs.
        resolve: Says where a source's data lies on this machine. Asked once, at the start.
        config: The name of the settings file, for the record.
        overrides: What was set otherwise than there, such as `training.max_epochs=5`.
        until: The step after which to stop; the run's outcome is then "stopped".
        tell: Hears of each step as it starts and ends.
        ended: Hears of the run once its record is written, however it ended.

    Raises:
        BadInput: A source cannot be found, a step cannot use what it was given, or none bears the
            name of `until`.
    """
    wanted = _wanted(pipeline, until)
    record = new_run(pipeline, config, overrides)
    folder = RunFolder(workspace.runs / record.id)
    store = Store(workspace.store)
    walk = _Walk(record, folder, store, workspace, tell, wanted, until)
    folder.begin(record)
    code.recall(store.root)
    end: Fail | None = None
    outcome, exit_code = "failed", FAILED
    try:
        with store.in_use():
            walk.sources = {source: resolve(source) for source in pipeline.sources()}
            end = walk.visit(pipeline.nodes)
        outcome, exit_code = (end.outcome, end.exit_code) if end else ("done", 0)
        record.reason = walk.value(end.reason) if end else ""
    except _Reached:
        outcome, exit_code = "stopped", 0
        record.reason = f"after {until}, as asked; the same command without --until goes on"
    except StepFailed as error:
        record.reason = str(error)
    except KeyboardInterrupt:
        outcome, exit_code, record.reason = "interrupted", INTERRUPTED, "stopped by the user"
    except BadInput as error:
        outcome, exit_code, record.reason = "bad input", BAD_INPUT, str(error)
        raise
    except Exception as error:
        record.reason = type(error).__name__
        raise
    finally:
        for step in record.steps:
            if step.state == "running":
                step.seconds = step.elapsed()
        record.settle()
        record.outcome, record.exit_code, record.ended_at = outcome, exit_code, now()
        folder.end(record)
        ended(record)
    code.remember(store.root)
    return record


class _Reached(Exception):
    """The step after which to stop has ended."""


def _wanted(pipeline: Pipeline, until: str | None) -> list[Step]:
    """The steps that may run."""
    steps = list(pipeline.steps())
    names = [step.name for step in steps]
    if until is None:
        return steps
    if until not in names:
        raise BadInput(f"--until {until}: no step is named so; there are {', '.join(names)}")
    return steps[: names.index(until) + 1]


@dataclass
class _Walk:
    """Where each output lies and what each step reported, so far."""

    run: Run
    folder: RunFolder
    store: Store
    workspace: Workspace
    tell: Tell
    unchecked: list[Step]
    until: str | None
    sources: dict[Source, Path] = field(default_factory=dict)
    states: dict[str, StepState] = field(init=False)

    def __post_init__(self) -> None:
        self.states = {state.name: state for state in self.run.steps}

    def visit(self, nodes: Sequence[Node]) -> Fail | None:
        for node in nodes:
            match node:
                case Step():
                    self._run(node)
                    if node.name == self.until:
                        raise _Reached
                case When():
                    branch = node.then if self.value(node.condition) else node.otherwise
                    if end := self.visit(branch):
                        return end
                case Fail():
                    return node
        return None

    def value(self, port: Port) -> Any:
        return self.states[port.step.name].values[port.name]

    def _run(self, step: Step) -> None:
        state = self.states[step.name]
        state.started_at = now()
        self._enter(state, "running")
        inputs = {name: self._locate(origin) for name, origin in step.inputs.items()}
        contents = {name: self._content(step, name, path) for name, path in inputs.items()}
        contents = keys.settled(step, contents, inputs)
        parts = keys.key_parts(step, contents, self.workspace)
        last = self.store.latest(step.name)
        changed = keys.differences(step, parts, last)
        state.key, state.changed = digest("step", parts), keys.as_dicts(changed)
        state.why = keys.why(step, changed, first=last is None)
        # One process makes a key, or changes the world, at a time; the others wait and reuse.
        name = "effects" if step.component.effect else state.key
        with self.store.lock(name, blocked=lambda: self._enter(state, "blocked")):
            made = find(self.store, step, parts)
            if state.state == "blocked" and made is None:
                self._enter(state, "running")
            ended = "reused" if made else "ran"
            if made is None and last is not None and not changed:
                state.why = why_again(self.store, step, parts)
            if made is None:
                self._check_once(state)
                made = tried(step.component, partial(self._execute, step, parts, inputs, contents))
        state.values, state.outputs, state.made_by = made.values, made.outputs, made.run
        state.made_seconds, state.seconds = made.seconds, state.elapsed()
        if changed or last is None:
            self.store.set_latest(made, parts, keys.sources_of(step))
        self.folder.link(state, self.store.root / "objects")
        self._enter(state, ended)

    def _check_once(self, first: StepState) -> None:
        """Hours of ingestion must not end at a misspelt network: ask all steps, before the first.

        A config that a result was made with is known to be good; asking costs heavy imports.
        """
        steps, self.unchecked = self.unchecked, []
        for step in steps:
            known = (self.store.latest(step.name) or {}).get("parts", {}).get("config")
            if step.component.check and not keys.same(known, step.config.model_dump(mode="json")):
                try:
                    step.component.check(step.config)
                except BadInput:
                    first.state, self.states[step.name].state = "waiting", "failed"
                    raise

    def _enter(self, state: StepState, name: str) -> None:
        state.state = name
        self.folder.note(state)
        self.tell(self.run, state)

    def _locate(self, origin: Port | Source) -> Path:
        if isinstance(origin, Source):
            return self.sources[origin]
        return self.store.path(self.states[origin.step.name].outputs[origin.name])

    def _content(self, step: Step, name: str, path: Path) -> str:
        """An input's digest. An object's name is its content; an edited one is no longer it."""
        origin = step.inputs[name]
        try:
            content = self.store.digest(path)
        except FileNotFoundError:
            if isinstance(origin, Source):
                raise BadInput(
                    f"sources.{origin.name}: {origin.uri} was there when the run started, and no "
                    "longer is; put it back, and the same command goes on from here"
                    if not path.exists()
                    else f"sources.{origin.name}: a file in {origin.uri} went away while all were "
                    "read; wait until nobody moves any, and run again"
                ) from None
            content = ""
        if (
            isinstance(origin, Port)
            and content != self.states[origin.step.name].outputs[origin.name]
        ):
            raise StepFailed(
                f"{origin.step.name}.{origin.name} was changed after it was made; "
                "the same command again makes it anew"
            )
        return content

    def _execute(
        self, step: Step, parts: keys.Parts, inputs: dict[str, Path], contents: dict[str, str]
    ) -> Made:
        log_file = self.folder.path / "logs" / f"{step.name}.log"
        captured = step_log.captured(
            log_file, identities=step.component.identities, why=self.states[step.name].why
        )
        with self.store.building(step.name) as folder:
            outputs = {name: folder / name for name in step.component.outputs}
            try:
                with captured:
                    values, digests = execute(
                        step.component, step.config, inputs, outputs, contents
                    )
            except StepFailed:
                # Its report is the reader's only way to see why: keep what was written. Where there
                # is no room left, this would be in the way of the next attempt.
                if not self.store.is_full():
                    kept = self.folder.path / "failed" / step.name
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(folder, kept)
                raise
            except BadInput:
                raise
            except Exception as error:
                for name, path in inputs.items():
                    self._content(step, name, path)  # says so if it was taken from under the step
                # Libraries wrap the lack of room in errors of their own.
                if not isinstance(error, OSError) and self.store.is_full():
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
                raise
            except SystemExit:  # else the command would end so, and as a success
                raise StepFailed(f"{step.name} asked the process to end") from None
            seconds = self.states[step.name].elapsed()
            made = Made(step.name, parts, values, digests, self.run.id, seconds)
            true = self._still_true(step, inputs, contents)
            self.store.keep(made, outputs, keys.kept_as(step, parts) if true else ())
        return made

    def _still_true(self, step: Step, inputs: dict[str, Path], contents: dict[str, str]) -> bool:
        """Whether the key still says what was run; else the result serves this run only."""
        state = self.states[step.name]
        if edited := code.edited(step.component.module):
            state.why += f"; {edited} was edited meanwhile, so the next run does it again"
            return False
        # Objects are looked at by whoever reads them next; a source may grow under our eyes.
        sources = [n for n, origin in step.inputs.items() if isinstance(origin, Source)]
        now = contents | {name: self._content(step, name, inputs[name]) for name in sources}
        now = keys.settled(step, now, inputs)
        for name in sources:
            if now[name] != contents[name]:
                state.why += f"; {name} changed meanwhile, so the next run does it again"
                return False
        return True


def find(store: Store, step: Step, parts: keys.Parts) -> Made | None:
    """Finished work that may be reused: whole, and, for an effect, still standing in the world."""
    found = (store.find(key) for key in keys.looked_up_as(step, parts))
    made = next((made for made in found if made), None)
    if made and step.component.receipt:
        paths = {name: store.path(content) for name, content in made.outputs.items()}
        return made if step.component.receipt(**paths) else None
    return made


def why_again(store: Store, step: Step, parts: keys.Parts) -> str:
    """Why a step must run although nothing that it depends on has changed."""
    if step.component.effect and store.find(digest("step", parts)):
        return "what it did outside no longer stands, or may be answered anew"
    return "its result is gone, or is no longer what it was"
