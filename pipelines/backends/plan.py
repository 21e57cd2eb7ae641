"""What a run would do, said beforehand: the same keys, looked up and never made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lineage import code
from lineage.digest import digest
from lineage.workspace import Workspace
from pipelines.backends import keys
from pipelines.backends.local import Resolve, find
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
    """Say for each step whether a run would reuse or execute it, and why. Makes nothing.

    Raises:
        BadInput: A source cannot be found.
    """
    store = Store(workspace.store)
    code.recall(store.root / "imports.json")
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
        seconds = self._seconds(step, last)
        if unmade := sorted({name for name in origins if name not in self.made}):
            return Planned(step.name, FOLLOW, f"after {', '.join(unmade)}", when, seconds)
        if not all(self.workspace.has_secret(name) for name in step.component.secrets):
            return Planned(step.name, RUN, "first time: its key is yet to be made", when)
        contents = {name: self._content(origin) for name, origin in step.inputs.items()}
        parts = keys.key_parts(step, contents, self.workspace)
        changed = keys.differences(step, parts, last)
        why = keys.why(step, changed, first=last is None)
        key = digest("step", parts)
        if made := find(self.store, step, key):
            self.made[step.name] = made
            return Planned(step.name, REUSE, why, when, made.seconds, keys.as_dicts(changed))
        if not changed and last is not None:
            stands = step.component.effect and self.store.find(key)
            why = "what it did no longer stands" if stands else "its result is gone, or not whole"
        return Planned(step.name, RUN, why, when, seconds, keys.as_dicts(changed))

    def _content(self, origin: Port | Source) -> str:
        if isinstance(origin, Port):
            return self.made[origin.step.name].outputs[origin.name]
        return self.store.digest(self.sources[origin])

    def _seconds(self, step: Step, last: dict[str, Any] | None) -> float | None:
        made = self.store.find(digest("step", last["parts"])) if last else None
        return made.seconds if made else None
