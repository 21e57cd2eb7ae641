"""What every cluster asks of a pipeline, and of the settings that place it, before lowering."""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from lineage.errors import BadInput
from pipelines.graph import Fail, GraphError, Node, Pipeline, Port, Step, When
from serving.config import TOKEN


def require_pinned(**images: str) -> None:
    """Refuse an image named by a tag: engines cache by name, so pushing it anew is a stale hit.

    An image's id is as good as a digest where nothing is pulled: the SDKs' local runners.
    """
    for key, image in images.items():
        if not re.fullmatch(r"([^@\s]+@)?sha256:[0-9a-f]{64}", image):
            raise BadInput(f"{key}: {image} may change; pin it as NAME@sha256:<64 hex digits>")


def require_server(tracking_uri: str) -> None:
    """Refuse an MLflow address that only one machine can see."""
    _require_no_password("tracking_uri", tracking_uri)
    # A tracking server, or the ARN of one that SageMaker manages.
    if not tracking_uri.startswith(("https://", "http://", "arn:")):
        scheme = tracking_uri.partition(":")[0] or "nothing"
        raise BadInput(f"tracking_uri: {scheme} reaches no cluster; give an MLflow server's URL")


def _require_no_password(key: str, url: str) -> None:
    if "@" in urlsplit(url).netloc:
        raise BadInput(f"{key}: who reads the compiled document would read the password in it")


def require_public(environment: Mapping[str, str]) -> None:
    """Refuse variables that would show a secret to all who may read the compiled document."""
    for name, value in environment.items():
        if any(word in name.upper() for word in ("SECRET", "TOKEN", "PASSWORD")):
            told = f"environment: {name} would stand in the compiled document; use secrets:"
            raise BadInput(told)
        _require_no_password(f"environment: {name}", value)


def require_endpoint(pipeline: Pipeline, url: str) -> None:
    """Refuse to release into a job: what it starts ends with it, and with it the service."""
    _require_no_password("endpoint_url", url)
    releasing = [step.name for step in pipeline.steps() if TOKEN in step.component.secrets]
    if releasing and not url.startswith(("https://", "http://")):
        raise BadInput(
            f"endpoint_url: {releasing[0]} sends models to a service that outlives it; "
            "give the URL of one (`python -m serving.app --help`)"
        )


def mapped_secrets(step: Step, mapping: Mapping[str, str]) -> dict[str, str]:
    """The cluster's name for each secret that a step declares."""
    if missing := [name for name in step.component.secrets if name not in mapping]:
        raise BadInput(f"{step.name} reads the secrets {missing}; map them under secrets:")
    return {name: mapping[name] for name in step.component.secrets}


def launch_values(
    pipeline: Pipeline, given: Mapping[str, str], schemes: Sequence[str]
) -> dict[str, str | None]:
    """Each source's default URI, or None where only the launcher can say what it is.

    A path on this machine, `champion:MODEL` and `captured:MODEL` mean nothing to a cluster.
    """
    values: dict[str, str | None] = {}
    for source in pipeline.sources():
        uri = given.get(source.name, source.uri)
        reachable = uri.startswith(tuple(f"{scheme}://" for scheme in schemes))
        if source.name in given and not reachable:
            raise BadInput(f"sources.{source.name}: {uri} does not start with one of {schemes}")
        values[source.name] = uri if reachable else None
    return values


def waits(pipeline: Pipeline) -> dict[Node, list[Step]]:
    """What each effect and each Fail must wait for, beyond the data that it reads.

    An engine starts whatever has its data, so a refused run could end before its model is
    registered. Pure steps may run side by side; what changes the world, or ends the run,
    waits for all that stands above it.

    Raises:
        GraphError: It stands below a branch: no engine can wait for a step that may not run.
    """
    found: dict[Node, list[Step]] = {}

    def visit(nodes: Sequence[Node], above: tuple[Step, ...], branched: bool) -> None:
        for position, node in enumerate(nodes):
            if isinstance(node, When):
                visit(node.then, above, branched)
                visit(node.otherwise, above, branched)
                branched = True
                continue
            if isinstance(node, Fail) or node.component.effect:
                name = node.name if isinstance(node, Step) else f"Fail {node.outcome!r}"
                if branched:
                    raise GraphError(
                        f"{name} stands below a branch, which no cluster makes it wait for; "
                        "move it into the branch, or above it"
                    )
                if isinstance(node, Fail) and position < len(nodes) - 1:
                    raise GraphError(f"what stands below {name} never runs; remove it")
                read = {step for other in above for step in _reads(other)}
                read |= {step for other in above for step in found.get(other, [])}
                found[node] = [step for step in above if step not in read]
            if isinstance(node, Step):
                above = (*above, node)

    visit(pipeline.nodes, (), False)
    return found


def _reads(step: Step) -> list[Step]:
    return [port.step for port in step.inputs.values() if isinstance(port, Port)]
