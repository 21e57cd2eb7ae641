"""A lowered SageMaker pipeline, executed in containers by the SDK's local mode; moto plays S3.

Local mode knows no step that registers a model: that one is sent to moto's SageMaker instead, with
the arguments that the step has when it is reached. And it copies outputs only at the end of a job,
also where the definition says that they are to be copied while it runs.
"""

import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from engines import Ended, mounts

from components.runtime import as_text
from pipelines.backends.sagemaker import lowering
from pipelines.backends.sagemaker.offline import offline
from pipelines.backends.sagemaker.settings import SageMakerSettings
from pipelines.graph import Fail, Node, Pipeline, Step, When

NETWORK = "sagemaker-local"  # the name is the SDK's


def upload(folder: Path, uri: str) -> str:
    """Put a folder's files below an S3 URI; the URI."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = f"{prefix}/{path.relative_to(folder)}"
            boto3.client("s3").upload_file(str(path), bucket, name)
    return uri


def download(uri: str, folder: Path) -> Path:
    """The files below an S3 URI, in a folder."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    folder.mkdir(parents=True, exist_ok=True)
    pages = boto3.client("s3").get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        for item in page.get("Contents", []):
            path = folder / item["Key"].removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            boto3.client("s3").download_file(bucket, item["Key"], str(path))
    return folder


def run_on_sagemaker(
    pipeline: Pipeline, settings: SageMakerSettings, launch: Mapping[str, str], folder: Path
) -> Ended:
    """Lower, then execute as local mode does.

    Args:
        pipeline: What to run.
        settings: As for the cloud; the bucket is moto's, the image this machine's.
        launch: The S3 URI of each source.
        folder: Where the SDK lets containers work, and where results are fetched to.
    """
    from sagemaker.core.workflow.pipeline_context import PipelineSession
    from sagemaker.mlops.local.local_pipeline_session import LocalPipelineSession

    class Session(LocalPipelineSession, PipelineSession):  # each has what the other lacks
        pass

    folder.mkdir(parents=True, exist_ok=True)
    with offline(), _complete():
        session = Session(
            boto_session=boto3.Session(region_name=settings.region),
            default_bucket=settings.bucket,
        )
        session.config = {
            "local": {
                "local_code": False,
                "container_root": str(folder),
                "container_config": _hardened(),
            }
        }
        native, configs = lowering.lower(pipeline, settings, session)
        lowering.compile_to(pipeline, settings, folder / "definition.json")
        # What is executed here is what would be sent there.
        assert json.loads(native.definition()) == json.loads(
            (folder / "definition.json").read_text()
        )
        for name, text in configs.items():
            place = folder / "configs" / name
            place.mkdir(parents=True)
            (place / "config.json").write_text(text)
        upload(folder / "configs", f"s3://{settings.bucket}/configs")
        session.create_pipeline(native, "conformance")
        execution = session.start_pipeline_execution(
            PipelineName=pipeline.name, PipelineParameters=dict(launch)
        )
    return _ended(pipeline, execution, folder)


def _hardened() -> dict[str, Any]:
    return {
        "volumes_from": [f"container:{_holder()}:ro"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "read_only": True,
        "tmpfs": ["/tmp"],
        "mem_limit": "8g",
        "shm_size": "1g",
    }


def _holder() -> str:
    """A container that never runs: the SDK takes no mounts, but those of another container."""
    name = f"lightbox-volumes-{os.getpid()}"  # another checkout has other volumes
    found = subprocess.run(["docker", "inspect", name], capture_output=True)
    if found.returncode:
        flags = [word for at, to in mounts().items() for word in ("-v", f"{at}:{to}:ro")]
        command = ["docker", "create", "--name", name, *flags, "lightbox/conformance"]
        subprocess.run(command, check=True, capture_output=True)
    return name


@contextmanager
def network() -> Iterator[str]:
    """A network of containers that leads nowhere but to this machine; this machine's address."""
    subprocess.run(["docker", "network", "rm", NETWORK], capture_output=True)  # of a killed run
    subprocess.run(
        ["docker", "network", "create", "--internal", NETWORK], check=True, capture_output=True
    )
    try:
        told = subprocess.run(
            ["docker", "network", "inspect", NETWORK], check=True, capture_output=True
        )
        yield json.loads(told.stdout)[0]["IPAM"]["Config"][0]["Gateway"]
    finally:
        subprocess.run(["docker", "network", "rm", NETWORK], check=True, capture_output=True)


def _ended(pipeline: Pipeline, execution: Any, folder: Path) -> Ended:
    ended = Ended()
    for step in pipeline.steps():
        state = execution.step_execution[step.name]
        if state.status == "Failed":
            ended.failed, ended.reason = step.name, state.failure_reason
            code = re.search(r"exited with code: (\d+)|exit code[: ]+(\d+)", state.failure_reason)
            ended.exit_code = int(next(filter(None, code.groups()))) if code else 1
        if state.status != "Succeeded":
            continue
        ended.steps.add(step.name)
        _take(ended, step, state.properties, folder / "fetched" / step.name)
    for fail in _fails(pipeline.nodes):
        state = execution.step_execution[re.sub(r"[^A-Za-z0-9_-]+", "-", fail.outcome)]
        if state.status == "Failed":
            ended.failed, ended.exit_code = fail.outcome, fail.exit_code
            ended.reason = state.failure_reason.removeprefix(f"{fail.outcome}: ")
    said = {"Succeeded": False, "Failed": True}[execution.status]
    assert said == (ended.exit_code != 0), execution.failure_reason
    return ended


def _take(ended: Ended, step: Step, properties: Mapping[str, Any], folder: Path) -> None:
    if step.component.trains:
        uri = properties["ModelArtifacts"]["S3ModelArtifacts"]
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        for name in ("model", "output"):  # what a training job reports lies beside its model
            archive = folder / f"{name}.tar.gz"
            (folder / name).mkdir(parents=True)
            key_of_it = key.replace("model.tar.gz", archive.name)
            boto3.client("s3").download_file(bucket, key_of_it, str(archive))
            with tarfile.open(archive) as tar:
                tar.extractall(folder / name, filter="data")
        ended.take_output(step.name, step.component.trains, folder / "model")
        if step.component.values:
            (told,) = (folder / "output").rglob("values.json")
            _take_values(ended, step, told)
        return
    outputs = properties["ProcessingOutputConfig"]["Outputs"]
    for name in step.component.outputs:
        place = download(outputs[name]["S3Output"]["S3Uri"], folder / name)
        ended.take_output(step.name, name, place)
    if step.component.values:
        place = download(outputs["values"]["S3Output"]["S3Uri"], folder / "values")
        _take_values(ended, step, place / "values.json")


def _take_values(ended: Ended, step: Step, path: Path) -> None:
    values = json.loads(path.read_text())
    ended.values |= {f"{step.name}.{name}": as_text(value) for name, value in values.items()}


def _fails(nodes: Any) -> Iterator[Fail]:
    node: Node
    for node in nodes:
        if isinstance(node, Fail):
            yield node
        elif isinstance(node, When):
            yield from _fails([*node.then, *node.otherwise])


@contextmanager
def _complete() -> Iterator[None]:
    from sagemaker.mlops.local import pipeline as executors
    from sagemaker.mlops.local import pipeline_entities as entities
    from sagemaker.mlops.workflow.steps import StepTypeEnum

    class Register(executors._StepExecutor):  # type: ignore[misc]
        def execute(self) -> dict[str, Any]:
            runner = self.pipline_executor
            wanted = runner.evaluate_step_arguments(self.step)
            try:
                return dict(boto3.client("sagemaker").create_model_package(**wanted))
            except Exception as error:
                return runner.execution.update_step_failure(self.step.name, str(error))

    get, begin = executors._StepExecutorFactory.get, entities._LocalPipelineExecution
    initialize = begin._initialize_step_execution
    evaluate = executors.LocalPipelineExecutor.evaluate_step_arguments

    def chosen(self: Any, step: Any) -> Any:
        if step.step_type == StepTypeEnum.REGISTER_MODEL:
            return Register(self.pipeline_executor, step)
        return get(self, step)

    def at_the_end(self: Any, step: Any) -> Any:
        arguments = evaluate(self, step)
        for output in arguments.get("ProcessingOutputConfig", {}).get("Outputs", []):
            output["S3Output"]["S3UploadMode"] = "EndOfJob"
        return arguments

    def with_registering(self: Any, steps: Any) -> None:
        known = [step for step in steps if step.step_type != StepTypeEnum.REGISTER_MODEL]
        initialize(self, known)
        for step in steps:
            if step.step_type == StepTypeEnum.REGISTER_MODEL:
                self.step_execution[step.name] = entities._LocalPipelineExecutionStep(
                    step.name, StepTypeEnum.CREATE_MODEL, step.description, step.display_name
                )

    executors._StepExecutorFactory.get = chosen
    begin._initialize_step_execution = with_registering
    executors.LocalPipelineExecutor.evaluate_step_arguments = at_the_end
    try:
        yield
    finally:
        executors._StepExecutorFactory.get = get
        begin._initialize_step_execution = initialize
        executors.LocalPipelineExecutor.evaluate_step_arguments = evaluate
