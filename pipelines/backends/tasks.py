"""What an engine would really get: every task of a compiled document, said in one shape.

Read from the document and not from the graph, so that it shows what the lowering made of it.
Members that are not known here are passed over: a document may hold more than this tells.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import yaml

from pipelines.graph import Pipeline
from pipelines.settings import read_settings

Engine = Literal["kubeflow", "sagemaker"]
ALWAYS = "the run has ended, well or badly"
OUTCOME = "--outcome="  # what marks a container that does nothing but to end a run
OUTPUT = re.compile(r"Steps\.([^.]+)\.ProcessingOutputConfig\.Outputs\['([^']+)'\]")
MODEL = re.compile(r"Steps\.([^.]+)\.ModelArtifacts\.")
CAPACITY = frozenset({"SageMaker.CAPACITY_ERROR", "SageMaker.RESOURCE_LIMIT"})
KINDS = {"RegisterModel": "model package", "Model": "model"}
GIB_PER_GB = 1e9 / 2**30


@dataclass(frozen=True)
class Instances:
    """What SageMaker starts for a job."""

    type: str
    count: int = 1
    volume_gib: int = 0
    spot: bool = False

    def __str__(self) -> str:
        count = f"{self.count} x " if self.count > 1 else ""
        return f"{count}{self.type}{' spot' if self.spot else ''}"


@dataclass(frozen=True)
class Pod:
    """What a Kubernetes pod asks for."""

    cpu: float
    memory_gib: float
    gpus: int = 0
    gpu_resource: str = ""

    def __str__(self) -> str:
        gpus = f", {self.gpus} {self.gpu_resource}" if self.gpus else ""
        return f"{self.cpu:g} CPU, {self.memory_gib:g} GiB{gpus}"


@dataclass(frozen=True)
class Task:
    """One task of an engine.

    Args:
        name: As the engine knows it.
        kind: processing, training, model package, condition, fail; container, importer.
        runs_on: None for a task that the engine does by itself.
        inputs: Where each comes from: `task.output`, the name of a launch parameter, or a URI.
        outputs: Directories and values.
        condition: The nearest branch that it hangs on, such as `not gate.passed`.
        after: What it waits for besides the tasks that its inputs come from.
        retries: How often a failed attempt is repeated.
        cached: Whether the engine may reuse an earlier result.
        network: none, vpc, public, or namespace: what that one's network policies let through.
        minutes_limit: When the engine stops it.
        outcome: How a run that reaches this ends.
    """

    name: str
    kind: str
    runs_on: Instances | Pod | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    condition: str = ""
    after: tuple[str, ...] = ()
    retries: int = 0
    cached: bool = False
    network: str = ""
    minutes_limit: float | None = None
    outcome: str = ""


def compiled(pipeline: Pipeline, engine: Engine, environment: Path) -> list[Task]:
    """Compile for an engine, and list what came of it.

    Raises:
        BadInput: The environment lacks something.
        GraphError: The engine cannot do what the pipeline asks for.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "compiled"
        compile_for(pipeline, engine, environment, path)
        text = path.read_text()
    return kubeflow_tasks(text) if engine == "kubeflow" else sagemaker_tasks(text)


def compile_for(pipeline: Pipeline, engine: Engine, environment: Path, path: Path) -> None:
    """Write what an engine gets; its SDK is imported only here. Raises what `compiled` does."""
    if engine == "kubeflow":
        from pipelines.backends.kubeflow import lowering as kubeflow
        from pipelines.backends.kubeflow.settings import KubeflowSettings

        kubeflow.compile_to(pipeline, read_settings(environment, KubeflowSettings), path)
    else:
        from pipelines.backends.sagemaker import lowering as sagemaker
        from pipelines.backends.sagemaker.settings import SageMakerSettings

        sagemaker.compile_to(pipeline, read_settings(environment, SageMakerSettings), path)


def sagemaker_tasks(text: str) -> list[Task]:
    """The steps of a SageMaker pipeline definition (JSON), those in branches too."""
    return [task for step in json.loads(text)["Steps"] for task in _steps(step, "")]


def _steps(step: dict[str, Any], condition: str) -> Iterator[Task]:
    yield _sagemaker_task(step, condition)
    if step["Type"] == "Condition":
        told = " and ".join(_references(step["Arguments"]["Conditions"]))
        for inner in step["Arguments"].get("IfSteps", []):
            yield from _steps(inner, told)
        for inner in step["Arguments"].get("ElseSteps", []):
            yield from _steps(inner, f"not {told}")


def _sagemaker_task(step: dict[str, Any], condition: str) -> Task:
    arguments, kind = step.get("Arguments", {}), step["Type"]
    told: dict[str, Any] = {"name": step["Name"], "condition": condition}
    told |= {"kind": KINDS.get(kind, kind.lower()), "after": tuple(step.get("DependsOn", []))}
    if kind not in ("Processing", "Training"):
        read = arguments["Conditions"] if kind == "Condition" else arguments
        outcome = _text(arguments["ErrorMessage"]) if kind == "Fail" else ""
        return Task(
            inputs={origin: origin for origin in _references(read)},
            outcome=outcome.partition(":")[0],
            **told,
        )
    if kind == "Processing":
        machine = arguments["ProcessingResources"]["ClusterConfig"]
        network = arguments.get("NetworkConfig", {})
        read = {i["InputName"]: i["S3Input"]["S3Uri"] for i in arguments["ProcessingInputs"]}
        made = [o["OutputName"] for o in arguments["ProcessingOutputConfig"]["Outputs"]]
    else:
        machine, network = arguments["ResourceConfig"], arguments
        read = {
            channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"]
            for channel in arguments["InputDataConfig"]
        }
        made = ["model"]
    reachable = "vpc" if network.get("VpcConfig") else "public"
    return Task(
        runs_on=Instances(
            type=machine["InstanceType"],
            count=machine.get("InstanceCount", 1),
            volume_gib=machine.get("VolumeSizeInGB", 0),
            spot=bool(arguments.get("EnableManagedSpotTraining")),
        ),
        inputs={name: _text(uri) for name, uri in read.items()},
        outputs=tuple(made),
        retries=_retries(step),
        cached=bool(step.get("CacheConfig", {}).get("Enabled")),
        network="none" if network.get("EnableNetworkIsolation") else reachable,
        minutes_limit=_minutes(arguments.get("StoppingCondition", {}).get("MaxRuntimeInSeconds")),
        **told,
    )


def _retries(step: dict[str, Any]) -> int:
    """How often a job that ran and failed is repeated; waiting for capacity is no such attempt."""
    again = (p for p in step.get("RetryPolicies", []) if not CAPACITY.issuperset(_causes(p)))
    return max((policy["MaxAttempts"] for policy in again), default=0)


def _causes(policy: dict[str, Any]) -> list[str]:
    found: list[str] = policy.get("ExceptionType", [])
    return found


def _references(value: Any) -> list[str]:
    """What a part of a definition reads from other steps, each once."""
    match value:
        case {"Std:JsonGet": _} | {"Get": _}:
            found = [_text(value)]
        case dict():
            found = [each for inner in value.values() for each in _references(inner)]
        case list():
            found = [each for inner in value for each in _references(inner)]
        case _:
            found = []
    return list(dict.fromkeys(each for each in found if not each.startswith("Execution.")))


def _text(value: Any) -> str:
    """A text of a definition, with its variables in our words."""
    match value:
        case {"Std:Join": {"On": separator, "Values": values}}:
            return str(separator).join(_text(each) for each in values)
        case {"Std:JsonGet": {"PropertyFile": {"Get": file}, "Path": path}}:
            return f"{file.split('.')[1]}.{path}"
        case {"Get": str(name)}:
            if output := OUTPUT.match(name):
                return ".".join(output.groups())
            if model := MODEL.match(name):
                return f"{model[1]}.model"
            return name.removeprefix("Parameters.")
        case str():
            return value
    return json.dumps(value)


def kubeflow_tasks(text: str) -> list[Task]:
    """The tasks of a Kubeflow package (YAML), those in branches too."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is
    documents = list(yaml.load_all(text, Loader=loader))
    platform: dict[str, Any] = documents[1] if len(documents) > 1 else {}
    kubernetes = platform.get("platforms", {}).get("kubernetes", {})
    return _plain(_in_order(list(_Package(documents[0], kubernetes).tasks())))


@dataclass(frozen=True)
class _Package:
    spec: dict[str, Any]
    kubernetes: dict[str, Any]

    def tasks(self) -> Iterator[Task]:
        launch = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return self._dag(self.spec["root"]["dag"], {name: name for name in launch}, "", ())

    def _dag(
        self,
        dag: dict[str, Any],
        given: Mapping[str, str],
        condition: str,
        waits: tuple[str, ...],
    ) -> Iterator[Task]:
        """Every task of one graph.

        Args:
            dag: The graph.
            given: Where what it was handed comes from.
            condition: The branch that it stands in.
            waits: What it waits for as a whole.
        """
        imported = {
            name: _origin(body["inputs"]["parameters"]["uri"], given, {})
            for name, body in dag["tasks"].items()
            if "importer" in self._executor(self._component(body))
        }
        for name, body in dag["tasks"].items():
            read = body.get("inputs", {})
            inputs = {
                key: _origin(origin, given, imported)
                for kind in ("artifacts", "parameters")
                for key, origin in read.get(kind, {}).items()
            }
            hangs_on = _condition(body.get("triggerPolicy", {}), inputs) or condition
            component = self._component(body)
            after = (*waits, *(imported.get(n, n) for n in body.get("dependentTasks", [])))
            if "dag" in component:
                yield from self._dag(component["dag"], inputs, hangs_on, after)
                continue
            told: dict[str, Any] = {
                "inputs": inputs,
                "condition": hangs_on,
                "after": after,
                "cached": bool(body.get("cachingOptions", {}).get("enableCache")),
                "retries": int(body.get("retryPolicy", {}).get("maxRetryCount", 0)),
            }
            if name in imported:
                yield Task(imported[name], "importer", outputs=("artifact",), **told)
            else:
                yield self._task(name, component, told)

    def _task(self, name: str, component: dict[str, Any], told: dict[str, Any]) -> Task:
        container = self._executor(component).get("container", {})
        placed = self.kubernetes.get("deploymentSpec", {}).get("executors", {})
        limit = placed.get(component.get("executorLabel", ""), {}).get("activeDeadlineSeconds")
        made = component.get("outputDefinitions", {})
        words = [word for word in container.get("args", []) if word.startswith(OUTCOME)]
        outcome = words[0].removeprefix(OUTCOME) if words else ""
        return Task(
            name,
            "fail" if outcome else "container",
            runs_on=_pod(container.get("resources", {})),
            outputs=tuple(_said(key) for kind in made.values() for key in kind),
            network="namespace",
            minutes_limit=_minutes(limit),
            outcome=outcome,
            **told,
        )

    def _component(self, body: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self.spec["components"][body["componentRef"]["name"]]
        return found

    def _executor(self, component: dict[str, Any]) -> dict[str, Any]:
        executors: dict[str, Any] = self.spec["deploymentSpec"]["executors"]
        found: dict[str, Any] = executors.get(component.get("executorLabel", ""), {})
        return found


def _origin(read: dict[str, Any], given: Mapping[str, str], imported: Mapping[str, str]) -> str:
    match read:
        case {"taskOutputArtifact": {"producerTask": task}} if task in imported:
            return imported[task]
        case {"taskOutputArtifact": {"producerTask": task, "outputArtifactKey": key}}:
            return f"{task}.{key}"
        case {"taskOutputParameter": {"producerTask": task, "outputParameterKey": key}}:
            return f"{task}.{_said(key)}"
        case {"componentInputArtifact": name} | {"componentInputParameter": name}:
            return given.get(name, name)
        case {"runtimeValue": {"constant": value}}:
            return str(value)
        case {"taskFinalStatus": _}:
            return "how the run ended"
    return json.dumps(read)


def _condition(policy: dict[str, Any], inputs: Mapping[str, str]) -> str:
    if policy.get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED":
        return ALWAYS
    told = str(policy.get("condition", ""))
    for name, origin in inputs.items():
        told = told.replace(f"inputs.parameter_values['{name}']", origin)
    told = told.replace(" == true", "")
    return f"not {told[2:-1]}" if told.startswith("!(") else told


def _in_order(tasks: list[Task]) -> list[Task]:
    """A package lists its tasks by name; people look for what comes first."""
    names, left = {task.name for task in tasks}, tasks
    ordered: list[Task] = []
    while left:
        done = {task.name for task in ordered}
        ready = [t for t in left if (_awaited(t) & names) <= done and t.condition != ALWAYS]
        ordered += ready[:1] or left
        left = [task for task in left if task not in ordered]
    return ordered


def _plain(tasks: list[Task]) -> list[Task]:
    """Without the waits that follow from others: a branch waits for whatever passes through it,
    and what stands in it for all of that."""
    earlier: dict[str, set[str]] = {}
    fetched = {task.name for task in tasks if task.kind == "importer"}
    found = []
    for task in tasks:
        direct = _awaited(task) & earlier.keys()
        earlier[task.name] = direct.union(*(earlier[name] for name in direct))
        read = {_task(origin) for origin in (*task.inputs.values(), task.condition)}
        implied = read.union(fetched, *(earlier[name] for name in direct))
        after = [name for name in dict.fromkeys(task.after) if name in direct - implied]
        found.append(replace(task, after=tuple(after)))
    return found


def _awaited(task: Task) -> set[str]:
    origins = (*task.inputs.values(), *task.after, task.condition)
    return {_task(origin) for origin in origins} - {task.name}


def _task(origin: str) -> str:
    """The task in `gate.passed`, and in `not gate.passed`."""
    return origin.removeprefix("not ").partition(".")[0]


def _pod(resources: dict[str, Any]) -> Pod | None:
    if not resources:
        return None
    gpus = resources.get("accelerator", {})
    return Pod(
        cpu=resources.get("cpuRequest", 0),
        memory_gib=round(resources.get("memoryRequest", 0) * GIB_PER_GB, 3),
        gpus=int(gpus.get("resourceCount") or gpus.get("count") or 0),
        gpu_resource=gpus.get("resourceType") or gpus.get("type", ""),
    )


def _said(key: str) -> str:
    """KFP keeps directories and values under one list of names, so the lowering marks values."""
    return key.removesuffix("_value")


def _minutes(seconds: Any) -> float | None:
    return int(seconds) / 60 if seconds else None
