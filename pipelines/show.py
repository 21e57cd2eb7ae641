"""Draw a pipeline as a tree: what runs, what it reads and makes, and what a branch guards."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.graph import Fail, Node, Pipeline, Port, Source, Step, When

if TYPE_CHECKING:
    from rich.tree import Tree


def as_tree(pipeline: Pipeline) -> "Tree":
    """A `rich` tree."""
    from rich.tree import Tree

    tree = Tree(f"[bold]{pipeline.name}[/]")
    for source in pipeline.sources():
        tree.add(f"[dim]source[/] {source.name} [dim]{source.uri}[/]")
    _grow(tree, pipeline.nodes)
    return tree


def _grow(tree: "Tree", nodes: Sequence[Node]) -> None:
    for node in nodes:
        match node:
            case Step():
                tree.add(_step_line(node))
            case Fail():
                tree.add(f"[red]end as “{node.outcome}”[/] [dim]exit code {node.exit_code}[/]")
            case When():
                branch = tree.add(f"[yellow]when[/] {_port(node.condition)}")
                _grow(branch, node.then)
                if node.otherwise:
                    _grow(tree.add("[yellow]otherwise[/]"), node.otherwise)


def _step_line(step: Step) -> str:
    reads = ", ".join(_port(origin) for origin in step.inputs.values())
    makes = ", ".join(step.component.outputs)
    kind = " [magenta]effect[/]" if step.component.effect else ""
    return f"[bold]{step.name}[/]{kind} [dim]{reads} →[/] {makes}"


def _port(origin: Port | Source) -> str:
    return origin.name if isinstance(origin, Source) else f"{origin.step.name}.{origin.name}"


def as_data(pipeline: Pipeline) -> dict[str, Any]:
    """The same for machines."""
    return {
        "name": pipeline.name,
        "sources": {source.name: source.uri for source in pipeline.sources()},
        "nodes": _nodes(pipeline.nodes),
    }


def _nodes(nodes: Sequence[Node]) -> list[dict[str, Any]]:
    return [_node(node) for node in nodes]


def _node(node: Node) -> dict[str, Any]:
    match node:
        case Step():
            return {
                "step": node.name,
                "component": node.component.name,
                "effect": node.component.effect,
                "inputs": {name: _port(origin) for name, origin in node.inputs.items()},
                "outputs": list(node.component.outputs),
                "values": list(node.component.values),
            }
        case Fail():
            return {"fail": node.outcome, "exit_code": node.exit_code}
        case When():
            return {
                "when": _port(node.condition),
                "then": _nodes(node.then),
                "otherwise": _nodes(node.otherwise),
            }
