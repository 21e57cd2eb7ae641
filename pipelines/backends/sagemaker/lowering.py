"""Lower a pipeline to SageMaker Pipelines.

A step that trains becomes a TrainingStep, a branch a ConditionStep, a Fail a FailStep, everything
else a ProcessingStep. A step that registers is followed by a ModelStep, which mirrors the MLflow
version into SageMaker's own registry.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lineage.digest import digest
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
from pipelines.backends.sagemaker.mirror import mirror
from pipelines.backends.sagemaker.offline import offline, offline_session, quick
from pipelines.backends.sagemaker.requests import check
from pipelines.backends.sagemaker.safeguards import eligible, require_eligible, require_safeguards
from pipelines.backends.sagemaker.settings import Instance, SageMakerSettings
from pipelines.graph import Fail, GraphError, Node, Pipeline, Port, Source, Step, When
from serving.config import ENDPOINT_URL, TOKEN

with offline():
    from sagemaker.core.network import NetworkConfig
    from sagemaker.core.processing import Processor
    from sagemaker.core.shapes import (
        CheckpointConfig,
        ProcessingInput,
        ProcessingOutput,
        ProcessingS3Input,
        ProcessingS3Output,
        Tag,
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
    from sagemaker.mlops.workflow.pipeline import Pipeline as SageMakerPipeline
    from sagemaker.mlops.workflow.retry import (
        SageMakerJobExceptionTypeEnum,
        SageMakerJobStepRetryPolicy,
    )
    from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep, TrainingStep
    from sagemaker.train.model_trainer import ModelTrainer

PROCESSING = "/opt/ml/processing"
CHECKPOINTS = "/opt/ml/checkpoints"
WORKSPACE = "workspace"  # of an isolated job, what it adds to the shared workspace
OURS = ("LIGHTBOX_", "MLFLOW_TRACKING_URI", "AWS_DEFAULT_REGION")


def compile_to(pipeline: Pipeline, settings: SageMakerSettings, path: Path) -> None:
    """Write the native definition (JSON), and beside it the configs that it will look for.

    A container argument holds 256 characters, so that configs travel as files named by digest:
    `<path without suffix>.configs/` is to be copied to `s3://<bucket>/configs/` before a start.
    Raises what `compiled` does.
    """
    definition, configs = compiled(pipeline, settings)
    path.write_text(definition)
    for name, text in configs.items():
        place = path.with_suffix(".configs") / name / "config.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def compiled(pipeline: Pipeline, settings: SageMakerSettings) -> tuple[str, dict[str, str]]:
    """The native definition (JSON), and the text of each config by its digest.

    Raises:
        BadInput: The settings lack something, or hold what SageMaker cannot use.
        GraphError: The pipeline asks for what SageMaker cannot do, or for what its API refuses.
    """
    require_safeguards(settings, pipeline)
    with offline(), quick():
        session = offline_session(settings.region, settings.bucket)
        native, configs = lower(pipeline, settings, session)
        definition = json.loads(native.definition())
    check(definition, pipeline_request(pipeline, settings))
    require_eligible(definition, settings)
    return json.dumps(definition, indent=2) + "\n", configs


def pipeline_request(pipeline: Pipeline, settings: SageMakerSettings) -> dict[str, Any]:
    """What CreatePipeline takes besides the definition: name, role, tags, and a description.

    The description says what a person asks who finds the pipeline in Studio: what runs, from
    which image, and without which safeguards.
    """
    sentences = [
        f"Steps: {', '.join(step.name for step in pipeline.steps())}",
        f"image {settings.image.rpartition('@')[2]}",
    ]
    if settings.hipaa_eligible:
        sentences.append(f"HIPAA-eligible services as listed on {eligible(settings).as_of}")
    sentences += [f"without {name}: {why}" for name, why in sorted(settings.waivers.items())]
    return {
        "PipelineName": pipeline.name,
        "PipelineDisplayName": pipeline.name,
        "PipelineDescription": ". ".join(sentences),
        "RoleArn": settings.pipeline_role or settings.role,
        "Tags": _tags(settings),
    }


def lower(
    pipeline: Pipeline, settings: SageMakerSettings, session: PipelineSession
) -> tuple[SageMakerPipeline, dict[str, str]]:
    """The pipeline as the SDK's own object, and the text of each config by its digest."""
    require_pinned(image=settings.image, serving_image=settings.serving_image)
    require_server(settings.tracking_uri)
    require_endpoint(pipeline, settings.endpoint_url)
    require_public(settings.environment)
    if taken := sorted(name for name in settings.environment if name.startswith(OURS)):
        raise BadInput(f"environment: {taken} are set for each step by what it needs; remove them")
    launch = launch_values(pipeline, settings.sources, ("s3",))
    parameters = {n: ParameterString(n, default_value=v) for n, v in launch.items()}
    names = {step.name for step in pipeline.steps()}
    lowering = _Lowering(settings, session, parameters, waits(pipeline), names)
    steps = lowering.lower(pipeline.nodes)
    # The SDK makes each run an experiment's trial, in regions that have experiments.
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
                    if node.component.registers:
                        self.steps[node].append(self._mirror(node))
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
            display_name=f"{_said(when.condition)}?",
            description=f"Goes on by what {when.condition.step.name} reported",
            conditions=[ConditionEquals(left=_value(when.condition), right=True)],
            if_steps=self.lower(when.then, nested=True),
            else_steps=self.lower(when.otherwise, nested=True),
        )
        self.branches.insert(place, condition)

    def _fail(self, fail: Fail) -> FailStep:
        return FailStep(
            name=self._name(fail.outcome),
            display_name=fail.outcome,
            description=f"Ends the run as {fail.outcome}: exit code {fail.exit_code}",
            error_message=Join(on=": ", values=[fail.outcome, _value(fail.reason)]),
            depends_on=self._awaited(fail),
        )

    def _processing(self, step: Step) -> ProcessingStep:
        contract = step.component
        outputs = {name: self._output_uri(step, name) for name in contract.outputs}
        if contract.values:
            outputs["values"] = self._output_uri(step, "values")

        if alike := [
            f"{a} and {b}" for a in outputs for b in outputs if a != b and b.startswith(a)
        ]:
            # An input in S3 is all that begins with its name.
            raise GraphError(
                f"{step.name} makes {alike[0]}, of which SageMaker would mix the files"
            )
        arguments = [contract.entry, "--config", f"{PROCESSING}/input/config/config.json"]
        for name in contract.inputs:
            arguments += ["--input", f"{name}={PROCESSING}/input/{name}"]
        for name in contract.outputs:
            arguments += ["--output", f"{name}={PROCESSING}/output/{name}"]
        if contract.values:
            arguments += ["--values-json", f"{PROCESSING}/output/values/values.json"]

        native_outputs = [_output(name, uri) for name, uri in outputs.items()]
        if self._keeps_state_offline(step):
            if WORKSPACE in outputs:
                raise GraphError(f"{step.name} has an output {WORKSPACE!r}, which is taken here")
            native_outputs.append(_output(WORKSPACE, self._workspace_uri(), "Continuous"))
        instance = self._instance(step)
        processor = Processor(
            role=self.settings.role,
            image_uri=self.settings.image,
            entrypoint=["python", "-m", "components"],
            env=self._environment(step),
            instance_type=instance.type,
            instance_count=1,
            volume_size_in_gb=self.settings.volume_gib,
            volume_kms_key=self._volume_key(instance),
            output_kms_key=self.settings.kms_key or None,
            max_runtime_in_seconds=contract.resources.timeout_minutes * 60,
            network_config=NetworkConfig(
                enable_network_isolation=self._isolated(step),
                encrypt_inter_container_traffic=self.settings.encrypt_between_instances,
                subnets=self.settings.subnets or None,
                security_group_ids=self.settings.security_groups or None,
            ),
            tags=_tags(self.settings) or None,
            sagemaker_session=self.session,
        )
        run = processor.run(
            arguments=arguments,
            inputs=[_input(name, uri) for name, uri in self._origins(step).items()],
            outputs=native_outputs,
        )
        values = PropertyFile(name="values", output_name="values", path="values.json")
        return ProcessingStep(
            name=step.name,
            step_args=run,
            property_files=[values] if contract.values else None,
            **self._told(step),
        )

    def _training(self, step: Step) -> TrainingStep:
        contract = step.component
        if contract.outputs != (contract.trains,):
            raise GraphError(f"{step.name} trains; SageMaker takes nothing but a model out of that")
        if contract.state:
            raise GraphError(
                f"{step.name} trains, without a network; it cannot add to {list(contract.state)}"
            )
        instance = self._instance(step)
        seconds = contract.resources.timeout_minutes * 60
        # SageMaker starts `<image> train` with fixed paths; this tells it which step to be.
        environment = self._environment(step) | {"LIGHTBOX_STEP": contract.entry}
        spot: dict[str, Any] = {}
        if self.settings.spot:
            environment["LIGHTBOX_CHECKPOINTS"] = CHECKPOINTS
            spot = {"checkpoint_config": self._checkpoints(step)}
        trainer = ModelTrainer(
            role=self.settings.role,
            training_image=self.settings.image,
            base_job_name=step.name,
            environment=environment,
            compute=Compute(
                instance_type=instance.type,
                instance_count=self.settings.training_instances,
                volume_size_in_gb=self.settings.volume_gib,
                volume_kms_key_id=self._volume_key(instance),
                enable_managed_spot_training=self.settings.spot or None,
            ),
            networking=Networking(
                enable_network_isolation=self._isolated(step),
                enable_inter_container_traffic_encryption=self.settings.encrypt_between_instances,
                subnets=self.settings.subnets or None,
                security_group_ids=self.settings.security_groups or None,
            ),
            stopping_condition=StoppingCondition(
                max_runtime_in_seconds=seconds,
                max_wait_time_in_seconds=seconds + self.settings.spot_wait_minutes * 60
                if self.settings.spot
                else None,
            ),
            input_data_config=[
                InputData(channel_name=name, data_source=uri)
                for name, uri in self._origins(step).items()
            ],
            output_data_config=OutputDataConfig(
                s3_output_path=f"s3://{self.settings.bucket}/models",
                kms_key_id=self.settings.kms_key or None,
            ),
            tags=[Tag(key=t["Key"], value=t["Value"]) for t in _tags(self.settings)] or None,
            sagemaker_session=self.session,
            **spot,
        )
        return TrainingStep(name=step.name, step_args=trainer.train(), **self._told(step))

    def _checkpoints(self, step: Step) -> CheckpointConfig:
        """One place for each run: a job that is interrupted finds its own, and no other's."""
        run = ExecutionVariables.PIPELINE_EXECUTION_ID
        place = [f"s3://{self.settings.bucket}/checkpoints", run, step.name]
        return CheckpointConfig(s3_uri=Join(on="/", values=place), local_path=CHECKPOINTS)

    def _mirror(self, step: Step) -> Any:
        component = step.component
        model = step.inputs[str(component.registers)]
        if isinstance(model, Port) and not model.step.component.trains:
            raise GraphError(
                f"{step.name} registers what {model.step.name} made; "
                "SageMaker packages only what a step that trains has made"
            )
        uris = self._origins(step) | {name: self._uri(step[name]) for name in component.outputs}
        told = {n: _value(step[n]) for n, kind in component.values.items() if kind is str}
        name = self._name(f"{step.name}-mirror")
        return mirror(step, name, uris, told, self.settings, self.session)

    def _origins(self, step: Step) -> dict[str, Any]:
        """Where each of its inputs comes from, its config first."""
        inputs = {name: self._uri(origin) for name, origin in step.inputs.items()}
        return {"config": self._config_uri(step)} | inputs

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

    def _workspace_uri(self) -> str:
        return f"s3://{self.settings.bucket}/workspace"

    def _environment(self, step: Step) -> dict[str, str]:
        secrets = mapped_secrets(step, self.settings.secrets)
        if secrets and self._isolated(step):
            raise BadInput(f"{step.name} reads {list(secrets)}, but runs without a network")
        found = self.settings.environment | {"LIGHTBOX_CODE_IDENTITY": self.settings.image}
        if self._keeps_state_offline(step):
            found["LIGHTBOX_HOME"] = f"{PROCESSING}/output/{WORKSPACE}"
        if self._isolated(step):
            return found
        found |= {
            "AWS_DEFAULT_REGION": self.settings.region,
            "MLFLOW_TRACKING_URI": self.settings.tracking_uri,
            # The ARN, never the secret: whoever may read a definition may not read that.
            **{secret_variable(name): arn for name, arn in secrets.items()},
        }
        if TOKEN in secrets:
            found[ENDPOINT_URL] = self.settings.endpoint_url
        if step.component.state:
            found["LIGHTBOX_STATE"] = self._workspace_uri()
        return found

    def _isolated(self, step: Step) -> bool:
        return bool(step.component.trains) or step.component.name in self.settings.isolated

    def _keeps_state_offline(self, step: Step) -> bool:
        """A job without a network cannot write to the workspace; SageMaker copies what it adds."""
        return bool(step.component.state) and self._isolated(step)

    def _instance(self, step: Step) -> Instance:
        need = step.component.resources
        for has in self.settings.instances:
            if has.cpu >= need.cpu and has.memory_gib >= need.memory_gib and has.gpus >= need.gpus:
                return has
        raise BadInput(f"instances: none is large enough for {step.name}, which needs {need}")

    def _volume_key(self, instance: Instance) -> str | None:
        return None if instance.local_disks else self.settings.kms_key or None

    def _awaited(self, node: Node) -> list[Any] | None:
        return [native for step in self.order.get(node, []) for native in self.steps[step]] or None

    def _told(self, step: Step) -> dict[str, Any]:
        """What a person and the engine are told of a job: its name, cache, retries, and order."""
        kinds = SageMakerJobExceptionTypeEnum
        retries = [
            # Nothing has run yet, so trying again repeats nothing.
            SageMakerJobStepRetryPolicy(
                exception_types=[kinds.CAPACITY_ERROR, kinds.RESOURCE_LIMIT],
                interval_seconds=60,
                max_attempts=self.settings.start_attempts,
            )
        ]
        if step.component.retries:
            retries.append(
                SageMakerJobStepRetryPolicy(
                    exception_types=[kinds.INTERNAL_ERROR],
                    interval_seconds=60,
                    max_attempts=step.component.retries,
                )
            )
        purpose = (step.component.function.__doc__ or "").strip().partition("\n")[0]
        return {
            "display_name": step.name.replace("_", " "),
            "description": purpose or None,
            "cache_config": CacheConfig(
                enable_caching=not step.component.effect, expire_after=self.settings.cache_for
            ),
            "retry_policies": retries,
            "depends_on": self._awaited(step),
        }

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


def _tags(settings: SageMakerSettings) -> list[dict[str, str]]:
    """Those of the settings, and each waiver with its reason, for whoever reviews a job."""
    waived = {f"lightbox:without:{name}": why for name, why in settings.waivers.items()}
    return [{"Key": k, "Value": v} for k, v in sorted((settings.tags | waived).items())]


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


def _output(name: str, uri: Any, upload: str = "EndOfJob") -> ProcessingOutput:
    return ProcessingOutput(
        output_name=name,
        s3_output=ProcessingS3Output(
            s3_uri=uri,
            s3_upload_mode=upload,
            local_path=f"{PROCESSING}/output/{name}",
        ),
    )
