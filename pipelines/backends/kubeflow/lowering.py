"""Lower a pipeline to Kubeflow Pipelines: one container task per step, dsl.If per branch."""

import re
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from google.protobuf import json_format
from kfp import compiler, dsl, kubernetes
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec import pipeline_spec_pb2

from components.kubeflow_pages import PAGES
from lineage.errors import BadInput
from lineage.workspace import secret_variable
from pipelines.backends.cluster import (
    launch_values,
    mapped_secrets,
    require_endpoint,
    require_pinned,
    require_public,
    require_server,
    waits,
)
from pipelines.backends.kubeflow.groups import IF, RUN
from pipelines.backends.kubeflow.settings import KubeflowSettings
from pipelines.graph import Fail, GraphError, Node, Pipeline, Source, Step, When
from serving.config import ENDPOINT_URL, TOKEN

HOME = "/lightbox"  # the workspace inside a container
SCHEMES = ("s3", "gs", "minio")  # what KFP's importer can fetch
DRAWN = {"numbers": dsl.Metrics, "roc": dsl.ClassificationMetrics, "page": dsl.HTML}
LAST = "record_the_ending"
TAKEN = {"importer", LAST.replace("_", "-")}  # names of tasks that KFP or we give


def compile_to(pipeline: Pipeline, settings: KubeflowSettings, path: Path) -> None:
    """Write the pipeline as a KFP package (YAML), ready to be submitted.

    Raises:
        BadInput: The settings lack something, or hold what a cluster cannot use.
        GraphError: The pipeline asks for what KFP cannot do.
    """
    lowered = lower(pipeline, settings)
    with TemporaryDirectory() as folder:
        draft = Path(folder, "package.yaml")  # KFP writes to names that end so, and only there
        compiler.Compiler().compile(lowered, str(draft))
        package = draft.read_text()
    check(package)
    path.write_text(package)


def check(package: str) -> None:
    """Read a package as the KFP API would, which knows every field and takes no other.

    Raises:
        BadInput: It holds something else.
    """
    try:
        spec, platform = yaml.load_all(package, yaml.CSafeLoader)
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(spec["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
        pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        for pod in pods.values():
            json_format.ParseDict(pod, KubernetesExecutorConfig())
    except json_format.ParseError as error:
        raise BadInput(f"KFP's schema does not know this package: {error}") from error


def lower(pipeline: Pipeline, settings: KubeflowSettings) -> Any:
    """The pipeline as kfp's own pipeline object."""
    require_pinned(image=settings.image)
    require_server(settings.tracking_uri)
    require_endpoint(pipeline, settings.endpoint_url)
    require_public(settings.environment)
    _require_names(pipeline)
    launch = launch_values(pipeline, settings.sources, SCHEMES)
    order = waits(pipeline)

    # Python wants parameters without a default first.
    parameters = sorted(
        (_keyword(n, str, Parameter.empty if v is None else v) for n, v in launch.items()),
        key=lambda p: p.default is not Parameter.empty,
    )

    def graph(*given: Any) -> None:
        uris = dict(zip((p.name for p in parameters), given, strict=True))
        imported: dict[str, Any] = {}
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
                        task = _failure(node, settings)(
                            reason=tasks[node.reason.step].outputs[_said(node.reason.name)],
                            run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                        )
                        _place_small(task, node.outcome, settings)
                    case When():
                        told = tasks[node.condition.step].outputs[_said(node.condition.name)]
                        with dsl.If(told == True, f"{IF} {node.condition.name}"):  # noqa: E712  kfp builds a condition of it
                            emit(node.then)
                        if node.otherwise:
                            with dsl.Else(f"{IF} not {node.condition.name}"):
                                emit(node.otherwise)
                        continue
                task.after(*(tasks[step] for step in order.get(node, [])))

        last = _ending(settings)(
            run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER
        )
        _place_small(last, _words(LAST), settings)
        with dsl.ExitHandler(last, name=f"{RUN} {_words(pipeline.name)}"):
            for name, uri in uris.items():
                # An equal URI is the same artifact again, so that KFP's cache can recognise it.
                source = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset, reimport=False)
                imported[name] = source.set_display_name(name).output
            emit(pipeline.nodes)

    declared = dsl.pipeline(name=pipeline.name, display_name=_words(pipeline.name))
    return declared(_signed(graph, parameters))


def _require_names(pipeline: Pipeline) -> None:
    """Refuse names that KFP would change: logs, conditions and the UI could not be told apart."""
    seen: dict[str, str] = {}
    for step in pipeline.steps():
        name = re.sub(r"[^a-z0-9]+", "-", step.name.lower()).strip("-")
        if name in TAKEN or name in seen:
            other = f"step {seen[name]!r}" if name in seen else "a task of KFP"
            raise GraphError(f"step {step.name!r} would be named like {other}; rename it")
        seen[name] = step.name


def _container(step: Step, settings: KubeflowSettings) -> Any:
    """The component's contract, said the way KFP says it."""
    contract = step.component
    known = {bool, int, float, str}
    if strange := [n for n, kind in contract.values.items() if kind not in known]:
        raise GraphError(f"{step.name} reports {strange}; KFP carries bool, int, float and str")
    # KFP's cache key names an artifact without its place, hence the URI as a parameter too.
    uris = [f"{name}_uri" for name, o in step.inputs.items() if isinstance(o, Source)]
    pages = {f"{o}_{page}": DRAWN[page] for o in contract.outputs for page in PAGES.get(o, ())}
    interface = [
        *(_keyword(name, dsl.Input[dsl.Artifact]) for name in contract.inputs),
        *(_keyword(name, str) for name in uris),
        *(_keyword(name, dsl.Output[_kind(step, name)]) for name in contract.outputs),
        *(_keyword(name, dsl.Output[kind]) for name, kind in pages.items()),
        *(_keyword(_said(name), dsl.OutputPath(kind)) for name, kind in contract.values.items()),
    ]
    names = [parameter.name for parameter in interface]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise GraphError(f"{step.name}: KFP has one list of names, where {twice} would stand twice")

    def spec(*given: Any) -> dsl.ContainerSpec:
        at = dict(zip(names, given, strict=True))
        args = [contract.entry, "--config", _inert(step.config.model_dump_json())]
        for name in contract.inputs:
            args += ["--input", f"{name}={at[name].path}"]
        for name in contract.outputs:
            args += ["--output", f"{name}={at[name].path}"]
        for name in contract.values:
            args += ["--value", f"{name}={at[_said(name)]}"]
        args += ["--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER]
        return dsl.ContainerSpec(
            image=settings.image, command=["python", "-m", "components"], args=args
        )

    spec.__name__ = step.name
    spec.__doc__ = contract.function.__doc__
    return dsl.container_component(_signed(spec, interface))


def _failure(fail: Fail, settings: KubeflowSettings) -> Any:
    """A task that is named by the outcome, prints the reason and exits with the code."""

    def spec(reason: Any, run: Any) -> dsl.ContainerSpec:
        told = [f"--outcome={fail.outcome}", f"--reason={reason}", f"--exit-code={fail.exit_code}"]
        return dsl.ContainerSpec(
            image=settings.image,
            command=["python", "-m", "components.kubeflow_ending"],
            args=["fail", *told, f"--run={run}"],
        )

    spec.__name__ = fail.outcome.replace(" ", "_")
    return dsl.container_component(_signed(spec, [_keyword(n, str) for n in ("reason", "run")]))


def _ending(settings: KubeflowSettings) -> Any:
    """The exit handler's task: KFP gives it the state in which the run ended."""

    def spec(run: Any, name: Any, status: Any) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(
            image=settings.image,
            command=["python", "-m", "components.kubeflow_ending"],
            args=["end", f"--run={run}", f"--name={name}", f"--status={status}"],
        )

    spec.__name__ = LAST
    interface = [
        *(_keyword(name, str) for name in ("run", "name")),
        _keyword("status", dsl.PipelineTaskFinalStatus),
    ]
    return dsl.container_component(_signed(spec, interface))


def _place(task: dsl.PipelineTask, step: Step, settings: KubeflowSettings) -> dsl.PipelineTask:
    """Caching, retries, hardware and secrets: what the step declared, in Kubernetes' words."""
    contract, need = step.component, step.component.resources
    _harden(task, settings)
    task.set_display_name(_words(step.name))
    task.set_caching_options(not contract.effect)
    task.set_env_variable("LIGHTBOX_CODE_IDENTITY", settings.image)
    if contract.trains or contract.effect:
        task.set_env_variable("MLFLOW_TRACKING_URI", settings.tracking_uri)
    if TOKEN in contract.secrets:
        task.set_env_variable(ENDPOINT_URL, settings.endpoint_url)
    task.set_cpu_request(str(need.cpu)).set_memory_request(f"{need.memory_gib}Gi")
    task.set_memory_limit(f"{need.memory_gib}Gi")
    kubernetes.set_timeout(task, need.timeout_minutes * 60)
    if contract.retries:
        task.set_retry(contract.retries, backoff_duration="60s")
    if need.gpus or contract.trains:
        # PyTorch's loader workers share batches through /dev/shm; the 64 MiB default starves them.
        # What lies there counts as the container's memory.
        kubernetes.empty_dir_mount(
            task,
            "shm",
            "/dev/shm",  # noqa: S108  a mount in the container
            medium="Memory",
            size_limit=f"{need.memory_gib * 256}Mi",
        )
    if need.gpus:
        task.set_accelerator_type(settings.gpu_resource).set_accelerator_limit(need.gpus)
        for label, value in settings.gpu_node_selector.items():
            kubernetes.add_node_selector(task, label, value)
        for toleration in settings.gpu_tolerations:
            kubernetes.add_toleration(task, **toleration.model_dump())
    if contract.state or contract.secrets or contract.effect:
        _mount(task, settings)
    for name, holder in mapped_secrets(step, settings.secrets).items():
        secret, _, key = holder.partition("/")
        kubernetes.use_secret_as_env(task, secret, {key or name: secret_variable(name)})
    return task


def _place_small(task: dsl.PipelineTask, name: str, settings: KubeflowSettings) -> None:
    """A task of our own, which only writes a line into the workspace."""
    _harden(task, settings)
    task.set_display_name(name)
    task.set_caching_options(False)
    task.set_cpu_request("100m").set_memory_request("256Mi").set_memory_limit("512Mi")
    kubernetes.set_timeout(task, 300)
    _mount(task, settings)


def _mount(task: dsl.PipelineTask, settings: KubeflowSettings) -> None:
    task.set_env_variable("LIGHTBOX_HOME", HOME)
    kubernetes.mount_pvc(task, settings.workspace_claim, HOME)


def _harden(task: dsl.PipelineTask, settings: KubeflowSettings) -> None:
    """What KFP lets a task say of Kubernetes' restricted profile; its server adds the rest."""
    kubernetes.set_security_context(task, run_as_user=settings.run_as_user, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, "IfNotPresent")  # the digest says what it is
    if settings.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, settings.image_pull_secrets)
    for label, value in settings.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in settings.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    for variable, value in settings.environment.items():
        task.set_env_variable(variable, value)


def _inert(text: str) -> str:
    """The same JSON without what KFP, Argo and Kubernetes would take for placeholders."""
    return text.replace("$", "\\u0024").replace("{{", "{\\u007b")


def _said(value: str) -> str:
    """KFP has one list of names for a task's directories and values; our components have two."""
    return f"{value}_value"


def _words(name: str) -> str:
    """What the pages show of a name."""
    return re.sub(r"[_-]+", " ", name)


def _kind(step: Step, output: str) -> Any:
    return dsl.Model if output == step.component.trains else dsl.Dataset


def _keyword(name: str, annotation: Any, default: Any = Parameter.empty) -> Parameter:
    return Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def _signed(function: Callable[..., Any], parameters: list[Parameter]) -> Callable[..., Any]:
    """Give a function the signature that KFP's decorators read, as if it had been typed by hand."""
    function.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return function
