"""Lower a pipeline to SageMaker Pipelines.

A step that trains becomes a TrainingStep, a branch a ConditionStep, a Fail a FailStep, everything
else a ProcessingStep. A step that registers is followed by a ModelStep, which mirrors the MLflow
version into SageMaker's own registry.
"""

import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lineage.digest import digest
from lineage.errors import BadInput
from pipelines.backends.cluster import (
    launch_values,
    mapped_secrets,
    require_pinned,
    require_server,
    waits,
)
from pipelines.backends.sagemaker.settings import SageMakerSettings
from pipelines.graph import Fail, GraphError, Node, Pipeline, Port, Source, Step, When


@contextmanager
def _offline() -> Iterator[None]:
    """Let the SDK neither look for a region, credentials and roles, nor set up our logging."""
    root = logging.getLogger()
    level, handlers, environment = root.level, root.handlers[:], dict(os.environ)
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")  # imports fail without any
    os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "SAGEMAKER_VALIDATE_ROLE": "false"}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Running within a PipelineSession")
            yield
    finally:
        os.environ.clear()
        os.environ |= environment
        root.setLevel(level)
        root.handlers[:] = handlers


with _offline():
    import boto3
    from sagemaker.core.config.config_manager import SageMakerConfig
    from sagemaker.core.network import NetworkConfig
    from sagemaker.core.processing import Processor
    from sagemaker.core.shapes import (
        ProcessingInput,
        ProcessingOutput,
        ProcessingS3Input,
        ProcessingS3Output,
    )
    from sagemaker.core.training.configs import (
        Compute,
        InputData,
        Networking,
        OutputDataConfig,
        StoppingCondition,
    )
    from sagemaker.core.workflow.conditions import ConditionEquals
    from sagemaker.core.workflow.execution_variables import ExecutionVariables
    from sagemaker.core.workflow.functions import Join, JsonGet
    from sagemaker.core.workflow.parameters import ParameterString
    from sagemaker.core.workflow.pipeline_context import PipelineSession
    from sagemaker.core.workflow.properties import PropertyFile
    from sagemaker.mlops.workflow.condition_step import ConditionStep
    from sagemaker.mlops.workflow.fail_step import FailStep
    from sagemaker.mlops.workflow.model_step import ModelStep
    from sagemaker.mlops.workflow.pipeline import Pipeline as SageMakerPipeline
    from sagemaker.mlops.workflow.retry import (
        SageMakerJobExceptionTypeEnum,
        SageMakerJobStepRetryPolicy,
    )
    from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep, TrainingStep
    from sagemaker.serve.model_builder import ModelBuilder
    from sagemaker.train.model_trainer import ModelTrainer

PROCESSING = "/opt/ml/processing"
MOST_INPUTS = 10  # of one processing job, the config among them


def compile_to(pipeline: Pipeline, settings: SageMakerSettings, path: Path) -> None:
    """Write the native definition (JSON), and beside it the configs that it will look for.

    A container argument holds 256 characters, so that configs travel as files named by digest:
    `<path without suffix>.configs/` is to be copied to `s3://<bucket>/configs/` before a start.

    Raises:
        BadInput: The settings lack something, or hold what SageMaker cannot use.
        GraphError: The pipeline asks for what SageMaker cannot do.
    """
    with _offline(), _schema_checked_once():
        native, configs = lower(pipeline, settings, _session(settings))
        definition = json.loads(native.definition())
    path.write_text(json.dumps(definition, indent=2) + "\n")
    for name, text in configs.items():
        place = path.with_suffix(".configs") / name / "config.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def lower(
    pipeline: Pipeline, settings: SageMakerSettings, session: PipelineSession
) -> tuple[SageMakerPipeline, dict[str, str]]:
    """The pipeline as the SDK's own object, and the text of each config by its digest."""
    require_pinned(image=settings.image, serving_image=settings.serving_image)
    require_server(settings.tracking_uri)
    launch = launch_values(pipeline, settings.sources, ("s3",))
    parameters = {n: ParameterString(n, default_value=v) for n, v in launch.items()}
    names = {step.name for step in pipeline.steps()}
    if strange := sorted(n for n in names if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", n)):
        raise GraphError(f"SageMaker takes no steps named {strange}; use letters, digits, - and _")
    lowering = _Lowering(settings, session, parameters, waits(pipeline), names)
    steps = lowering.lower(pipeline.nodes)
    native = SageMakerPipeline(
        name=pipeline.name,
        parameters=list(parameters.values()),
        steps=[*steps, *lowering.branches],
        sagemaker_session=session,
    )
    return native, lowering.configs


@dataclass
class _Lowering:
    settings: SageMakerSettings
    session: PipelineSession
    parameters: dict[str, ParameterString]
    order: dict[Node, list[Step]]
    names: set[str]  # taken ones
    steps: dict[Step, list[Any]] = field(default_factory=dict)  # the job, and perhaps its mirror
    branches: list[ConditionStep] = field(default_factory=list)
    configs: dict[str, str] = field(default_factory=dict)

    def lower(self, nodes: Sequence[Node], nested: bool = False) -> list[Any]:
        """The steps of one list; its branches are collected apart, see `_branch`."""
        lowered: list[Any] = []
        for node in nodes:
            match node:
                case Step():
                    make = self._training if node.component.trains else self._processing
                    self.steps[node] = [make(node)]
                    if model := node.component.registers:
                        self.steps[node].append(self._mirror(node, node.inputs[model]))
                    lowered += self.steps[node]
                case Fail():
                    lowered.append(self._fail(node))
                case When():
                    if nested and node.condition.step not in nodes:
                        raise GraphError(
                            f"the branch on {_said(node.condition)} stands within another, but "
                            "reads what was known before; SageMaker cannot nest conditions"
                        )
                    self._branch(node)
        return lowered

    def _branch(self, when: When) -> None:
        """A ConditionStep, always at the top level: SageMaker does not nest them.

        One that stands within a branch still waits for that branch, because a step in there
        reports the value that it reads, and SageMaker starts nothing that needs a step which
        was not run.
        """
        place = len(self.branches)
        name = self._name(f"when-{when.condition.step.name}-{when.condition.name}")
        condition = ConditionStep(
            name=name,
            conditions=[ConditionEquals(left=_value(when.condition), right=True)],
            if_steps=self.lower(when.then, nested=True),
            else_steps=self.lower(when.otherwise, nested=True),
        )
        self.branches.insert(place, condition)

    def _fail(self, fail: Fail) -> FailStep:
        return FailStep(
            name=self._name(fail.outcome),
            error_message=Join(on=": ", values=[fail.outcome, _value(fail.reason)]),
            depends_on=self._awaited(fail),
        )

    def _processing(self, step: Step) -> ProcessingStep:
        contract = step.component
        origins = {"config": self._config_uri(step)}
        origins |= {name: self._uri(origin) for name, origin in step.inputs.items()}
        if len(origins) > MOST_INPUTS:
            raise GraphError(f"{step.name} reads {len(origins)} folders; SageMaker allows 10")
        outputs = [*contract.outputs, *(["values"] if contract.values else [])]

        arguments = ["--config", f"{PROCESSING}/input/config/config.json"]
        for name in contract.inputs:
            arguments += ["--input", f"{name}={PROCESSING}/input/{name}"]
        for name in contract.outputs:
            arguments += ["--output", f"{name}={PROCESSING}/output/{name}"]
        if contract.values:
            arguments += ["--values-json", f"{PROCESSING}/output/values/values.json"]

        processor = Processor(
            role=self.settings.role,
            image_uri=self.settings.image,
            entrypoint=["python", "-m", contract.module],
            env=self._environment(step),
            instance_type=self._instance(step),
            instance_count=1,
            volume_size_in_gb=self.settings.volume_gib,
            volume_kms_key=self.settings.kms_key,
            output_kms_key=self.settings.kms_key,
            max_runtime_in_seconds=contract.resources.timeout_minutes * 60,
            network_config=NetworkConfig(
                enable_network_isolation=self._isolated(step),
                encrypt_inter_container_traffic=True,
                subnets=self.settings.subnets,
                security_group_ids=self.settings.security_groups,
            ),
            sagemaker_session=self.session,
        )
        run = processor.run(
            arguments=arguments,
            inputs=[_input(name, uri) for name, uri in origins.items()],
            outputs=[_output(name, self._output_uri(step, name)) for name in outputs],
        )
        values = PropertyFile(name="values", output_name="values", path="values.json")
        return ProcessingStep(
            name=step.name,
            step_args=run,
            property_files=[values] if contract.values else None,
            depends_on=self._awaited(step),
            **self._policies(step),
        )

    def _training(self, step: Step) -> TrainingStep:
        contract = step.component
        if contract.outputs != (contract.trains,):
            raise GraphError(f"{step.name} trains; SageMaker takes nothing but a model out of that")
        origins = {"config": self._config_uri(step)}
        origins |= {name: self._uri(origin) for name, origin in step.inputs.items()}
        trainer = ModelTrainer(
            role=self.settings.role,
            training_image=self.settings.image,
            base_job_name=step.name,
            # SageMaker starts `<image> train` with fixed paths; this tells it which step to be.
            environment=self._environment(step) | {"LIGHTBOX_STEP": contract.module},
            compute=Compute(
                instance_type=self._instance(step),
                instance_count=1,
                volume_size_in_gb=self.settings.volume_gib,
                volume_kms_key_id=self.settings.kms_key,
            ),
            networking=Networking(
                enable_network_isolation=self._isolated(step),
                enable_inter_container_traffic_encryption=True,
                subnets=self.settings.subnets,
                security_group_ids=self.settings.security_groups,
            ),
            stopping_condition=StoppingCondition(
                max_runtime_in_seconds=contract.resources.timeout_minutes * 60
            ),
            input_data_config=[
                InputData(channel_name=name, data_source=uri) for name, uri in origins.items()
            ],
            output_data_config=OutputDataConfig(
                s3_output_path=f"s3://{self.settings.bucket}/models",
                kms_key_id=self.settings.kms_key,
            ),
            sagemaker_session=self.session,
        )
        return TrainingStep(
            name=step.name,
            step_args=trainer.train(),
            depends_on=self._awaited(step),
            **self._policies(step),
        )

    def _mirror(self, step: Step, origin: Port | Source) -> ModelStep:
        model = ModelBuilder(
            image_uri=self.settings.serving_image,
            s3_model_data_url=self._uri(origin),
            role_arn=self.settings.role,
            sagemaker_session=self.session,
        )
        told = [name for name, kind in step.component.values.items() if kind is str]
        package = model.register(
            model_package_group_name=self.settings.model_package_group,
            approval_status="PendingManualApproval",
            content_types=["application/dicom"],
            response_types=["application/json"],
            customer_metadata_properties={name: _value(step[name]) for name in told},
        )
        return ModelStep(name=self._name(f"{step.name}-mirror"), step_args=package)

    def _uri(self, origin: Port | Source) -> Any:
        if isinstance(origin, Source):
            return self.parameters[origin.name]
        made = self.steps[origin.step][0].properties
        if origin.step.component.trains:
            return made.ModelArtifacts.S3ModelArtifacts
        return made.ProcessingOutputConfig.Outputs[origin.name].S3Output.S3Uri

    def _output_uri(self, step: Step, name: str) -> Join:
        run = ExecutionVariables.PIPELINE_EXECUTION_ID
        return Join(on="/", values=[f"s3://{self.settings.bucket}/runs", run, step.name, name])

    def _config_uri(self, step: Step) -> str:
        text = step.config.model_dump_json()
        name = digest("config", text)
        self.configs[name] = text
        return f"s3://{self.settings.bucket}/configs/{name}"

    def _environment(self, step: Step) -> dict[str, str]:
        secrets = mapped_secrets(step, self.settings.secrets)
        if secrets and self._isolated(step):
            raise BadInput(f"{step.name} reads {list(secrets)}, but runs without a network")
        return {
            "LIGHTBOX_CODE_IDENTITY": self.settings.image,
            "MLFLOW_TRACKING_URI": self.settings.tracking_uri,
            # The ARN, never the secret: whoever may read a definition may not read that.
            **{_secret_variable(name): arn for name, arn in secrets.items()},
        }

    def _isolated(self, step: Step) -> bool:
        return bool(step.component.trains) or step.component.name in self.settings.isolated

    def _instance(self, step: Step) -> str:
        need = step.component.resources
        for has in self.settings.instances:
            if has.cpu >= need.cpu and has.memory_gib >= need.memory_gib and has.gpus >= need.gpus:
                return has.type
        raise BadInput(f"instances: none is large enough for {step.name}, which needs {need}")

    def _awaited(self, node: Node) -> list[Any] | None:
        return [native for step in self.order.get(node, []) for native in self.steps[step]] or None

    def _policies(self, step: Step) -> dict[str, Any]:
        cached = CacheConfig(
            enable_caching=not step.component.effect, expire_after=self.settings.cache_for
        )
        policies: dict[str, Any] = {"cache_config": cached}
        if step.component.retries:
            policies["retry_policies"] = [
                SageMakerJobStepRetryPolicy(
                    exception_types=list(SageMakerJobExceptionTypeEnum),
                    max_attempts=step.component.retries,
                )
            ]
        return policies

    def _name(self, wish: str) -> str:
        """A name that SageMaker accepts and that nothing else bears."""
        base = re.sub(r"[^A-Za-z0-9_-]+", "-", wish)
        name, number = base, 1
        while name in self.names:
            number += 1
            name = f"{base}-{number}"
        self.names.add(name)
        return name


def _value(port: Port) -> JsonGet:
    if port.step.component.trains:
        raise GraphError(
            f"{_said(port)} is reported by a training job, which SageMaker cannot read"
        )
    return JsonGet(step_name=port.step.name, property_file="values", json_path=port.name)


def _said(port: Port) -> str:
    return f"{port.step.name}.{port.name}"


def _secret_variable(name: str) -> str:
    return "LIGHTBOX_SECRET_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def _input(name: str, uri: Any) -> ProcessingInput:
    return ProcessingInput(
        input_name=name,
        s3_input=ProcessingS3Input(
            s3_uri=uri,
            s3_data_type="S3Prefix",
            s3_input_mode="File",
            local_path=f"{PROCESSING}/input/{name}",
        ),
    )


def _output(name: str, uri: Any) -> ProcessingOutput:
    return ProcessingOutput(
        output_name=name,
        s3_output=ProcessingS3Output(
            s3_uri=uri,
            s3_upload_mode="EndOfJob",
            local_path=f"{PROCESSING}/output/{name}",
        ),
    )


class _OfflineSession(PipelineSession):  # type: ignore[misc]
    """A session that is asked for nothing but names."""

    def default_bucket(self) -> str:
        """The bucket of the settings; the SDK's own would look whether it exists."""
        return str(self._default_bucket_name_override)


def _session(settings: SageMakerSettings) -> PipelineSession:
    # Keys that open nothing: without any, boto would look for real ones.
    boto = boto3.Session("none", "none", region_name=settings.region)
    return _OfflineSession(
        boto_session=boto,
        default_bucket=settings.bucket,
        sagemaker_config={
            "SchemaVersion": "1.0",
            "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
        },
    )


@contextmanager
def _schema_checked_once() -> Iterator[None]:
    """The SDK checks its whole config for each default that it looks up; once is enough."""
    check, seen = SageMakerConfig.validate_sagemaker_config, set()

    def once(config: dict[str, Any] | None = None) -> None:
        text = json.dumps(config, sort_keys=True)
        if text not in seen:
            check(config)
            seen.add(text)

    SageMakerConfig.validate_sagemaker_config = staticmethod(once)
    try:
        yield
    finally:
        SageMakerConfig.validate_sagemaker_config = staticmethod(check)
