"""What a run would do, said beforehand: the same keys, looked up and never made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lineage import code
from lineage.workspace import Workspace
from pipelines.backends import keys
from pipelines.backends.local import Resolve, find, why_again
from pipelines.backends.store import Made, Store
from pipelines.graph import Fail, Node, Pipeline, Port, Source, Step, When

REUSE, RUN, FOLLOW, SKIP = "reuse", "run", "follow", "skip"


@dataclass(frozen=True)
class Planned:
    """What would become of one step.

    `follow`: it waits for a step that runs, and is reused if that makes the same as before.
    """

    step: str
    action: str  # reuse, run, follow, skip
    why: str
    when: str = ""  # the branch that nobody can tell yet, such as `gate.passed`
    seconds: float | None = None  # what it took when it last ran
    changed: list[dict[str, Any]] = field(default_factory=list)


def plan(pipeline: Pipeline, workspace: Workspace, resolve: Resolve) -> list[Planned]:
    """Say for each step whether a run would reuse or execute it, and why.

    No step is executed; a champion is fetched where its files are not at hand yet.

    Raises:
        BadInput: A source cannot be found.
    """
    store = Store(workspace.store)
    code.recall(store.root)
    look = _Look(store, workspace, {source: resolve(source) for source in pipeline.sources()})
    planned = list(look.visit(pipeline.nodes, when=""))
    seen = {each.step for each in planned}
    left = [
        Planned(s.name, SKIP, "another branch is taken")
        for s in pipeline.steps()
        if s.name not in seen
    ]
    return planned + left


@dataclass
class _Look:
    store: Store
    workspace: Workspace
    sources: dict[Source, Path]
    made: dict[str, Made] = field(default_factory=dict)  # of the steps that would be reused
    ended: bool = False

    def visit(self, nodes: Sequence[Node], when: str) -> Iterator[Planned]:
        for node in nodes:
            if self.ended:
                return
            match node:
                case Step():
                    yield self._planned(node, when)
                case When(condition=Port(step=step, name=name)) if made := self.made.get(step.name):
                    yield from self.visit(node.then if made.values[name] else node.otherwise, when)
                case When(condition=Port(step=step, name=name)):
                    yield from self.visit(node.then, f"{step.name}.{name}")
                    yield from self.visit(node.otherwise, f"not {step.name}.{name}")
                case Fail():
                    self.ended = not when  # in a branch that is sure to be taken

    def _planned(self, step: Step, when: str) -> Planned:
        origins = [o.step.name for o in step.inputs.values() if isinstance(o, Port)]
        last = self.store.latest(step.name)
        seconds = last["seconds"] if last else None
        if not all(self.workspace.has_secret(name) for name in step.component.secrets):
            return Planned(step.name, RUN, "first time", when)
        # An input that is yet to be made may turn out as it was: what else differs is known now.
        unmade = sorted({name for name in origins if name not in self.made})
        contents = {name: self._content(name, o, last) for name, o in step.inputs.items()}
        if not unmade:
            contents = keys.settled(
                step, contents, {name: self._path(o) for name, o in step.inputs.items()}
            )
        parts = keys.key_parts(step, contents, self.workspace)
        changed = keys.differences(step, parts, last)
        why = keys.why(step, changed, first=last is None)
        if unmade:
            after = f"after {', '.join(unmade)}"
            if last is not None and not changed:
                return Planned(step.name, FOLLOW, after, when, seconds)
            return Planned(step.name, RUN, f"{after}: {why}", when, seconds, keys.as_dicts(changed))
        if made := find(self.store, step, parts):
            self.made[step.name] = made
            return Planned(step.name, REUSE, why, when, made.seconds, keys.as_dicts(changed))
        if not changed and last is not None:
            why = why_again(self.store, step, parts)
        return Planned(step.name, RUN, why, when, seconds, keys.as_dicts(changed))

    def _content(self, name: str, origin: Port | Source, last: dict[str, Any] | None) -> str:
        if isinstance(origin, Source):
            return self.store.digest(self.sources[origin])
        if origin.step.name in self.made:
            return self.made[origin.step.name].outputs[origin.name]
        return str(last["parts"]["inputs"].get(name)) if last else ""

    def _path(self, origin: Port | Source) -> Path:
        if isinstance(origin, Source):
            return self.sources[origin]
        return self.store.path(self.made[origin.step.name].outputs[origin.name])
