"""A pipeline as data: steps, the edges between them, and the branches they guard."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import BaseModel

from components.contract import Component
from lineage.errors import BadInput


class GraphError(BadInput):
    """The pipeline is wired wrongly, or an engine cannot run it; never raised while running."""


@dataclass(frozen=True)
class Source:
    """Data that exists before the run: a path, or `champion:MODEL` for what is in production,
    or `captured:MODEL` for the traffic that its endpoint kept.

    Every backend lets the launcher override `uri`, and names what it finds there by digest.
    `replaced_by` is an output that may become what lies here, as a model becomes champion: the
    comparison that brought it there stands, for it need not beat itself. Some of that output's
    files are enough: of a snapshot the registry keeps the manifest, and no image.
    """

    name: str
    uri: str
    replaced_by: "Port | None" = None


@dataclass(frozen=True)
class Port:
    """One named output or value of one step."""

    step: "Step"
    name: str


@dataclass(frozen=True, eq=False)
class Step:
    """A component applied to a config and to where its inputs come from."""

    component: Component
    config: BaseModel
    inputs: dict[str, Port | Source]
    name: str

    def __init__(
        self, component: Component, config: BaseModel, name: str = "", /, **inputs: Port | Source
    ):
        """Wire a component; `name` is needed only where one component is used twice."""
        if wrong := inputs.keys() ^ set(component.inputs):
            raise GraphError(
                f"{component.name} takes {list(component.inputs)}; check {sorted(wrong)}"
            )
        if not isinstance(config, component.config_type):
            raise GraphError(f"{component.name} needs a {component.config_type.__name__}")
        for port in inputs.values():
            if isinstance(port, Port) and port.name not in port.step.component.outputs:
                raise GraphError(f"{port.step.name}.{port.name} is a value, not a directory")
            if isinstance(port, Source) and port.replaced_by not in (None, *inputs.values()):
                raise GraphError(f"{component.name} does not read what may replace {port.name}")
        object.__setattr__(self, "component", component)
        object.__setattr__(self, "config", config)
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "name", name or component.name)

    def __getitem__(self, name: str) -> Port:
        known = [*self.component.outputs, *self.component.values]
        if name not in known:
            raise GraphError(f"{self.name} has no output {name!r}; it has {known}")
        return Port(self, name)


@dataclass(frozen=True, eq=False)
class Fail:
    """End the run here, as what `outcome` says, with the reason that a step reported.

    A run that reaches this never counts as a success, on any engine.
    """

    outcome: str
    reason: Port
    exit_code: int

    def __post_init__(self) -> None:
        component = self.reason.step.component
        if component.values.get(self.reason.name) is not str:
            raise GraphError(f"{component.name}.{self.reason.name} is not a str, so not a reason")


@dataclass(frozen=True, eq=False)
class When:
    """Run `then` only if a step reported True. Thresholds live in components, not here."""

    condition: Port
    then: Sequence["Node"]
    otherwise: Sequence["Node"] = ()

    def __post_init__(self) -> None:
        component, name = self.condition.step.component, self.condition.name
        if component.values.get(name) is not bool:
            raise GraphError(f"{component.name}.{name} is not a bool, so it cannot guard a branch")
        if component.trains:
            raise GraphError(f"{component.name} trains; SageMaker cannot branch on a training job")


Node: TypeAlias = Step | When | Fail


@dataclass(frozen=True)
class Pipeline:
    """What runs, in order; a nested list is what a branch guards."""

    name: str
    nodes: Sequence[Node] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        steps = [step.name for step in self.steps()]
        if twice := {name for name in steps if steps.count(name) > 1}:
            raise GraphError(f"two steps are named {sorted(twice)}; give one of them its own")
        names = {_letters(step) for step in steps}
        if same := [f.outcome for f in _fails(self.nodes) if _letters(f.outcome) in names]:
            raise GraphError(f"a step is named like the ending {same[0]!r}; rename it")
        sources = {source.name for source in self.sources()}
        if len(sources) < len(self.sources()):
            raise GraphError(f"two sources of different places share a name: {sorted(sources)}")
        _check(self.nodes, visible=frozenset())

    def steps(self) -> Iterator[Step]:
        """Every step, guarded ones too, in the order in which they would run."""
        yield from _walk(self.nodes)

    def sources(self) -> list[Source]:
        """What must exist before the run, each once."""
        found = (i for s in self.steps() for i in s.inputs.values() if isinstance(i, Source))
        return list(dict.fromkeys(found))


def _letters(name: str) -> str:
    """What is left of a name on every engine."""
    return re.sub("[^a-z0-9]", "", name.lower())


def _fails(nodes: Sequence[Node]) -> Iterator[Fail]:
    for node in nodes:
        if isinstance(node, Fail):
            yield node
        elif isinstance(node, When):
            yield from _fails([*node.then, *node.otherwise])


def _walk(nodes: Sequence[Node]) -> Iterator[Step]:
    for node in nodes:
        if isinstance(node, Step):
            yield node
        elif isinstance(node, When):
            yield from _walk(node.then)
            yield from _walk(node.otherwise)


def _check(nodes: Sequence[Node], visible: frozenset[str]) -> None:
    """Each step may read only from steps above it, in its own branch or an outer one."""
    for node in nodes:
        match node:
            case Step():
                ports = [p for p in node.inputs.values() if isinstance(p, Port)]
            case When():
                ports = [node.condition]
            case Fail():
                ports = [node.reason]
        for port in ports:
            if port.step.name not in visible:
                raise GraphError(f"{port.step.name} is read before it has run")
        if isinstance(node, When):
            _check(node.then, visible)
            _check(node.otherwise, visible)
        elif isinstance(node, Step):
            visible = visible | {node.name}
