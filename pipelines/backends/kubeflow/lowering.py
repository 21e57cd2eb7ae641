"""Lower a pipeline to Kubeflow Pipelines: one container task per step, dsl.If per branch."""

from collections.abc import Callable, Sequence
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes
from lineage.errors import BadInput
from pipelines.backends.cluster import (
    launch_values,
    mapped_secrets,
    require_pinned,
    require_server,
    waits,
)
from pipelines.backends.kubeflow.settings import KubeflowSettings
from pipelines.graph import Fail, GraphError, Node, Pipeline, Source, Step, When

HOME = "/lightbox"  # the workspace inside a container
SCHEMES = ("s3", "gs", "minio")  # what KFP's importer can fetch


def compile_to(pipeline: Pipeline, settings: KubeflowSettings, path: Path) -> None:
    """Write the pipeline as a KFP package (YAML), ready to be submitted.

    Raises:
        BadInput: The settings lack something, or hold what a cluster cannot use.
        GraphError: The pipeline asks for what KFP cannot do.
    """
    compiler.Compiler().compile(lower(pipeline, settings), str(path))


def lower(pipeline: Pipeline, settings: KubeflowSettings) -> Any:
    """The pipeline as kfp's own pipeline object."""
    require_pinned(image=settings.image)
    require_server(settings.tracking_uri)
    launch = launch_values(pipeline, settings.sources, SCHEMES)
    order = waits(pipeline)

    # Python wants parameters without a default first.
    parameters = sorted(
        (_keyword(n, str, Parameter.empty if v is None else v) for n, v in launch.items()),
        key=lambda p: p.default is not Parameter.empty,
    )

    def graph(*given: Any) -> None:
        uris = dict(zip((p.name for p in parameters), given, strict=True))
        # An equal URI is the same artifact again, so that KFP's cache can recognise it.
        imported = {
            name: dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset, reimport=False)
            .set_display_name(name)
            .output
            for name, uri in uris.items()
        }
        tasks: dict[Step, Any] = {}

        def arguments(step: Step) -> dict[str, Any]:
            found = {}
            for name, origin in step.inputs.items():
                if isinstance(origin, Source):
                    found[name] = imported[origin.name]
                    found[f"{name}_uri"] = uris[origin.name]
                else:
                    found[name] = tasks[origin.step].outputs[origin.name]
            return found

        def emit(nodes: Sequence[Node]) -> None:
            for node in nodes:
                match node:
                    case Step():
                        task = _container(node, settings)(**arguments(node))
                        tasks[node] = _place(task, node, settings)
                    case Fail():
                        reason = tasks[node.reason.step].outputs[_said(node.reason.name)]
                        task = _failure(node, settings)(reason=reason)
                        task.set_caching_options(False)
                    case When():
                        told = tasks[node.condition.step].outputs[_said(node.condition.name)]
                        with dsl.If(told == True, node.condition.name):  # noqa: E712  kfp builds a condition of it
                            emit(node.then)
                        if node.otherwise:
                            with dsl.Else(f"not-{node.condition.name}"):
                                emit(node.otherwise)
                        continue
                task.after(*(tasks[step] for step in order.get(node, [])))

        emit(pipeline.nodes)

    return dsl.pipeline(_signed(graph, parameters), name=pipeline.name)


def _container(step: Step, settings: KubeflowSettings) -> Any:
    """The component's contract, said the way KFP says it."""
    contract = step.component
    known = {bool, int, float, str}
    if strange := [n for n, kind in contract.values.items() if kind not in known]:
        raise GraphError(f"{step.name} reports {strange}; KFP carries bool, int, float and str")
    # KFP's cache key names an artifact without its place, hence the URI as a parameter too.
    uris = [f"{name}_uri" for name, o in step.inputs.items() if isinstance(o, Source)]
    interface = [
        *(_keyword(name, dsl.Input[dsl.Artifact]) for name in contract.inputs),
        *(_keyword(name, str) for name in uris),
        *(_keyword(name, dsl.Output[_kind(step, name)]) for name in contract.outputs),
        *(_keyword(_said(name), dsl.OutputPath(kind)) for name, kind in contract.values.items()),
    ]

    def spec(*given: Any) -> dsl.ContainerSpec:
        at = dict(zip((p.name for p in interface), given, strict=True))
        args = ["--config", _inert(step.config.model_dump_json())]
        for name in contract.inputs:
            args += ["--input", f"{name}={at[name].path}"]
        for name in contract.outputs:
            args += ["--output", f"{name}={at[name].path}"]
        for name in contract.values:
            args += ["--value", f"{name}={at[_said(name)]}"]
        return dsl.ContainerSpec(
            image=settings.image, command=["python", "-m", contract.module], args=args
        )

    spec.__name__ = step.name
    spec.__doc__ = contract.function.__doc__
    return dsl.container_component(_signed(spec, interface))


def _failure(fail: Fail, settings: KubeflowSettings) -> Any:
    """A task that is named by the outcome, prints the reason and exits with the code."""
    script = f"printf '%s\\n' \"$0\" >&2; exit {fail.exit_code}"

    def spec(reason: Any) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=settings.image, command=["sh", "-c", script], args=[reason])

    spec.__name__ = fail.outcome.replace(" ", "_")
    return dsl.container_component(_signed(spec, [_keyword("reason", str)]))


def _place(task: dsl.PipelineTask, step: Step, settings: KubeflowSettings) -> dsl.PipelineTask:
    """Caching, retries, hardware and secrets: what the step declared, in Kubernetes' words."""
    need = step.component.resources
    task.set_caching_options(not step.component.effect)
    task.set_env_variable("LIGHTBOX_CODE_IDENTITY", settings.image)
    task.set_env_variable("LIGHTBOX_HOME", HOME)
    task.set_env_variable("MLFLOW_TRACKING_URI", settings.tracking_uri)
    task.set_cpu_request(str(need.cpu)).set_memory_request(f"{need.memory_gib}Gi")
    task.set_memory_limit(f"{need.memory_gib}Gi")
    kubernetes.set_timeout(task, need.timeout_minutes * 60)
    if step.component.retries:
        task.set_retry(step.component.retries, backoff_duration="60s")
    if need.gpus:
        task.set_accelerator_type(settings.gpu_resource).set_accelerator_limit(need.gpus)
        # PyTorch's loader workers share batches through /dev/shm; the 64 MiB default starves them.
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory")  # noqa: S108  a mount in the container
        for label, value in settings.gpu_node_selector.items():
            kubernetes.add_node_selector(task, label, value)
    kubernetes.mount_pvc(task, settings.workspace_claim, HOME)
    holders = sorted(set(mapped_secrets(step, settings.secrets).values()))
    if len(holders) > 1:
        raise BadInput(f"secrets: {step.name} needs {holders}, but one folder mounts one Secret")
    for holder in holders:
        kubernetes.use_secret_as_volume(task, holder, f"{HOME}/secrets")
    return task


def _inert(text: str) -> str:
    """The same JSON without what KFP, Argo and Kubernetes would take for placeholders."""
    return text.replace("$", "\\u0024").replace("{{", "{\\u007b")


def _said(value: str) -> str:
    """KFP has one list of names for a task's directories and values; our components have two."""
    return f"{value}_value"


def _kind(step: Step, output: str) -> Any:
    return dsl.Model if output == step.component.trains else dsl.Dataset


def _keyword(name: str, annotation: Any, default: Any = Parameter.empty) -> Parameter:
    return Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def _signed(function: Callable[..., Any], parameters: list[Parameter]) -> Callable[..., Any]:
    """Give a function the signature that KFP's decorators read, as if it had been typed by hand."""
    function.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return function
