"""Start, follow and schedule runs on SageMaker, through boto3."""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from lineage.digest import digest
from pipelines.backends.sagemaker.settings import SageMakerSettings
from pipelines.submitting.aws import explained
from pipelines.submitting.bucket import Bucket, listing_digest
from pipelines.submitting.cron import for_eventbridge
from pipelines.submitting.engine import Execution, Name, Order, Schedule, Task

INLINE_BYTES = 100_000  # a larger definition goes through S3
PREFIX = "lightbox-"  # of our schedules
STATES: Mapping[str, Literal["running", "succeeded", "failed", "stopped"]] = {
    **{"Executing": "running", "Stopping": "running", "Stopped": "stopped"},
    **{"Succeeded": "succeeded", "Failed": "failed", "CompletedWithFailures": "failed"},
}
STEP_STATES = {
    **{"Starting": "running", "Executing": "running", "Stopping": "running"},
    **{"Stopped": "stopped", "Failed": "failed", "Succeeded": "ran"},
}


class SageMakerEngine:
    """One account and region. Credentials are boto3's to find; `AWS_ENDPOINT_URL` is honoured."""

    name: Name = "sagemaker"
    schemes: tuple[str, ...] = ("s3",)

    def __init__(self, settings: SageMakerSettings) -> None:
        self.settings = settings
        self.given, self.image = settings.sources, settings.image
        self.registry = settings.tracking_uri
        self.state = f"s3://{settings.bucket}/workspace"
        self._role = settings.pipeline_role or settings.role
        self._values: dict[str, dict[str, Any]] = {}  # of each job that ended

    @cached_property
    def _session(self) -> Any:
        return boto3.Session(region_name=self.settings.region)

    def _client(self, service: str) -> Any:
        # The follower has a patience of its own; a start is tried again by boto3.
        retries = {"mode": "standard", "total_max_attempts": 3}
        return self._session.client(
            service, config=Config(retries=retries, connect_timeout=10, read_timeout=60)
        )

    @cached_property
    def _sagemaker(self) -> Any:
        return self._client("sagemaker")

    @cached_property
    def _bucket(self) -> Bucket:
        return Bucket(self._client("s3"), self.settings.bucket, self.settings.kms_key)

    @cached_property
    def _scheduler(self) -> Any:
        return self._client("scheduler")

    def content(self, uri: str) -> str:
        """See `listing_digest`."""
        with explained("sources"):
            return listing_digest(self._bucket.s3, uri)

    def upload(self, path: Path, content: str) -> str:
        """See `Bucket.upload`."""
        with explained("uploading a source"):
            return self._bucket.upload(path, content)

    def find(self, pipeline: str, token: str) -> Execution | None:
        """The newest execution that says so in its description."""
        with explained("looking for earlier runs"):
            try:
                pages = self._sagemaker.get_paginator("list_pipeline_executions").paginate(
                    PipelineName=pipeline, SortBy="CreationTime", SortOrder="Descending"
                )
                for page in pages:
                    for summary in page["PipelineExecutionSummaries"]:
                        if _facts(summary).get("token") == token:
                            arn = summary["PipelineExecutionArn"]
                            state = STATES.get(summary["PipelineExecutionStatus"], "running")
                            return Execution(arn, state)
            except ClientError as error:
                if not _is_missing(error):  # the first run brings the pipeline
                    raise
        return None

    def start(self, order: Order) -> Execution:
        """Bring configs, patch and definition, and start.

        The token makes SageMaker answer two starters with one execution; and each starts the very
        version that it brought, whoever else brings another meanwhile.
        """
        definition = self._definition(order)
        version = self._bring(order, definition)
        token = digest("start", order.identity.token, order.again) if order.again else ""
        request = {
            "PipelineName": order.pipeline.name,
            "PipelineExecutionDisplayName": _display_name(order),
            "PipelineExecutionDescription": json.dumps(order.identity.facts()),
            "PipelineParameters": _parameters(order, definition),
            "ClientRequestToken": token or order.identity.token,
            **({"PipelineVersionId": version} if version else {}),
        }
        with explained("starting the pipeline"):
            arn = self._sagemaker.start_pipeline_execution(**request)["PipelineExecutionArn"]
        return Execution(arn, "running")

    def look(self, id: str) -> Execution:
        """The execution, and its steps."""
        with explained("following the run"):
            told = self._sagemaker.describe_pipeline_execution(PipelineExecutionArn=id)
            pages = self._sagemaker.get_paginator("list_pipeline_execution_steps").paginate(
                PipelineExecutionArn=id, SortOrder="Ascending"
            )
            steps = [step for page in pages for step in page["PipelineExecutionSteps"]]
        return Execution(
            id=id,
            # A word that is new to us is no end.
            state=STATES.get(told["PipelineExecutionStatus"], "running"),
            reason=told.get("FailureReason", ""),
            tasks=tuple(self._task(step) for step in steps),
        )

    def stop(self, id: str) -> None:
        """Ask it to stop; it goes on until the jobs have."""
        with explained("stopping the run"):
            self._sagemaker.stop_pipeline_execution(
                PipelineExecutionArn=id, ClientRequestToken=digest("stop", id)
            )

    def schedule(self, order: Order, cron: str) -> Schedule:
        """A schedule of EventBridge that starts the pipeline."""
        definition = self._definition(order)
        self._bring(order, definition)
        with explained("scheduling"):
            arn = self._sagemaker.describe_pipeline(PipelineName=order.pipeline.name)["PipelineArn"]
            wanted: dict[str, Any] = {
                "Name": order.name,
                "Description": f"lightbox: {order.identity.token}",
                "ScheduleExpression": for_eventbridge(cron),
                "ScheduleExpressionTimezone": "UTC",
                "FlexibleTimeWindow": {"Mode": "OFF"},
                "State": "ENABLED",
                "Target": {
                    "Arn": arn,
                    # Whichever it is must trust scheduler.amazonaws.com.
                    "RoleArn": self.settings.scheduler_role or self._role,
                    "RetryPolicy": {"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 3600},
                    "SageMakerPipelineParameters": {
                        "PipelineParameterList": _parameters(order, definition)
                    },
                },
            }
            try:
                self._scheduler.create_schedule(**wanted)
            except self._scheduler.exceptions.ConflictException:
                self._scheduler.update_schedule(**wanted)
        return Schedule(order.name, wanted["ScheduleExpression"], arn)

    def schedules(self) -> list[Schedule]:
        """Those of EventBridge that bear our prefix."""
        with explained("listing schedules"):
            pages = self._scheduler.get_paginator("list_schedules").paginate(NamePrefix=PREFIX)
            names = [item["Name"] for page in pages for item in page["Schedules"]]
            found = [self._scheduler.get_schedule(Name=name) for name in names]
        return [
            Schedule(
                s["Name"], s["ScheduleExpression"], s["Target"]["Arn"], s["State"] == "ENABLED"
            )
            for s in found
        ]

    def unschedule(self, name: str) -> bool:
        """Delete it."""
        with explained("removing the schedule"):
            try:
                self._scheduler.delete_schedule(Name=name)
            except self._scheduler.exceptions.ResourceNotFoundException:
                return False
        return True

    def _definition(self, order: Order) -> str:
        """Compile, and bring what the definition names in the bucket, and the patch."""
        from pipelines.backends.sagemaker.lowering import compiled

        definition, configs = compiled(order.pipeline, self.settings)
        with explained("uploading the settings"):
            for name, text in configs.items():
                self._bucket.put(f"configs/{name}/config.json", text.encode())
            if order.patch:
                self._bucket.put(f"submissions/{order.identity.token}/work.patch", order.patch)
        return json.dumps(json.loads(definition))  # without what is for people

    def _bring(self, order: Order, definition: str) -> int | None:
        """Create or update the pipeline; the version's number, where SageMaker tells it."""
        body: dict[str, Any] = {"PipelineDefinition": definition}
        if len(definition.encode()) > INLINE_BYTES:
            key = f"definitions/{digest('definition', definition)}.json"
            with explained("uploading the definition"):
                self._bucket.put(key, definition.encode())
            body = {
                "PipelineDefinitionS3Location": {"Bucket": self.settings.bucket, "ObjectKey": key}
            }
        from pipelines.backends.sagemaker.lowering import pipeline_request

        told = pipeline_request(order.pipeline, self.settings)
        tags = told.pop("Tags")
        body |= told
        with explained("bringing the pipeline"):
            try:
                answer = self._sagemaker.update_pipeline(**body)
            except ClientError as error:
                if not _is_missing(error):
                    raise
                answer = self._create(body, tags)
        found: int | None = answer.get("PipelineVersionId")
        return found

    def _create(self, body: dict[str, Any], tags: list[dict[str, str]]) -> dict[str, Any]:
        token = digest("create", {k: v for k, v in body.items() if isinstance(v, str)})
        try:
            self._sagemaker.create_pipeline(**body, ClientRequestToken=token, Tags=tags)
        except ClientError as error:
            if "already exist" not in error.response["Error"]["Message"]:
                raise  # else somebody was quicker
        # Only an update says which version it made, and a start names the one that it brought.
        answer: dict[str, Any] = self._sagemaker.update_pipeline(**body)
        return answer

    def _task(self, step: dict[str, Any]) -> Task:
        metadata = step.get("Metadata", {})
        state = STEP_STATES.get(step.get("StepStatus", ""), "running")
        if state == "ran" and step.get("CacheHitResult"):
            state = "reused"
        # What a Fail says stands in its metadata; its own reason is only that it was reached.
        why = metadata.get("Fail", {}).get("ErrorMessage") or step.get("FailureReason", "")
        job = metadata.get("ProcessingJob", {}).get("Arn", "")
        return Task(
            name=step["StepName"],
            state=state,
            started_at=_moment(step.get("StartTime")),
            ended_at=_moment(step.get("EndTime")),
            why=why,
            values=self._values_of(job) if job and state in ("ran", "reused") else {},
        )

    def _values_of(self, job: str) -> dict[str, Any]:
        """What the step reported, from where its job left it; nothing where that cannot be read."""
        if job not in self._values:
            try:
                told = self._sagemaker.describe_processing_job(
                    ProcessingJobName=job.rpartition("/")[2]
                )
                outputs = told.get("ProcessingOutputConfig", {}).get("Outputs", [])
                uri = next(o["S3Output"]["S3Uri"] for o in outputs if o["OutputName"] == "values")
                bucket, _, prefix = uri.removeprefix("s3://").partition("/")
                answer = self._bucket.s3.get_object(Bucket=bucket, Key=f"{prefix}/values.json")
                values = json.loads(answer["Body"].read())
            except (ClientError, BotoCoreError, StopIteration, ValueError):
                values = {}
            self._values[job] = values if isinstance(values, dict) else {}
        return self._values[job]


def _is_missing(error: ClientError) -> bool:
    """ResourceNotFound by SageMaker's own model; moto says it as a fault of the request."""
    told = error.response["Error"]
    return told["Code"] == "ResourceNotFound" or "Could not find" in told.get("Message", "")


def _facts(summary: dict[str, Any]) -> dict[str, Any]:
    try:
        facts = json.loads(summary.get("PipelineExecutionDescription") or "{}")
    except ValueError:
        return {}  # somebody's own words
    return facts if isinstance(facts, dict) else {}


def _parameters(order: Order, definition: str) -> list[dict[str, str]]:
    known = {parameter["Name"] for parameter in json.loads(definition).get("Parameters", [])}
    return [{"Name": n, "Value": uri} for n, uri in order.uris.items() if n in known]


def _display_name(order: Order) -> str:
    """Letters, digits and single dashes; 82 at most."""
    name = f"{order.name}-{order.again}" if order.again else order.name
    return "-".join(part for part in _alphanumeric(name).split("-") if part)[:82].rstrip("-")


def _alphanumeric(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)


def _moment(value: Any) -> datetime | None:
    return value if isinstance(value, datetime) else None
