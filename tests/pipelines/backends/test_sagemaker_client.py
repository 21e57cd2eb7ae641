"""SageMaker's client against moto's server, over HTTP and with nothing patched.

What moto lacks is a stub's: steps, stops, and that one token is one execution; see
`sagemaker_stub`. moto calls an execution Succeeded that never ran; none of that counts as a run.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from sagemaker_stub import Aws, Frame, aws
from small_lifecycle import IMAGE, small_lifecycle

from lineage.digest import RECORD, tree_digest
from lineage.errors import BadInput, StepFailed
from pipelines.backends.sagemaker.client import SageMakerEngine
from pipelines.backends.sagemaker.settings import Instance, SageMakerSettings
from pipelines.submitting.engine import Order, Unreachable
from pipelines.submitting.identity import Identity

BUCKET = "lightbox-runs"
ROLE = "arn:aws:iam::123456789012:role/lightbox"
URIS = {"scans": f"s3://{BUCKET}/scans", "champion": f"s3://{BUCKET}/champion"}


@pytest.fixture(scope="module")
def server() -> Iterator[Aws]:
    with pytest.MonkeyPatch.context() as patch, aws(patch) as stub:
        yield stub


@pytest.fixture(scope="module")
def key(server: Aws) -> str:
    key: str = boto3.client("kms").create_key()["KeyMetadata"]["KeyId"]
    return key


@pytest.fixture(scope="module")
def s3(server: Aws) -> Any:
    client = boto3.client("s3")
    client.create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    return client


@pytest.fixture
def settings(key: str) -> SageMakerSettings:
    return SageMakerSettings(
        image=IMAGE,
        serving_image=IMAGE,
        role=ROLE,
        region="eu-west-1",
        bucket=BUCKET,
        kms_key=key,
        subnets=["subnet-0123456789abcdef0"],
        security_groups=["sg-0123456789abcdef0"],
        tracking_uri="https://mlflow.example",
        model_package_group="lightbox",
        instances=[
            Instance(type="ml.m5.xlarge", cpu=4, memory_gib=16),
            Instance(type="ml.g5.4xlarge", cpu=16, memory_gib=64, gpus=1, local_disks=True),
        ],
        secrets={"pseudonym.key": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:pseudonym"},
    )


@pytest.fixture
def engine(server: Aws, s3: Any, settings: SageMakerSettings) -> SageMakerEngine:
    server.play, server.refused = [], []
    server.started.clear()
    return SageMakerEngine(settings)


def order(commit: str = "c0ffee", **more: Any) -> Order:
    pipeline = small_lifecycle()
    identity = Identity(pipeline.name, commit, "", "c" * 64, {"scans": "a" * 64})
    return Order(pipeline, f"toy_finding.2-{identity.token[:8]}", identity, URIS, **more)


def test_a_run_carries_what_it_is_made_of(engine, server, s3, key) -> None:
    wanted = order(patch=b"--- a\n+++ b\n")
    started = engine.start(wanted)
    (request,) = server.started
    assert json.loads(request["PipelineExecutionDescription"]) == wanted.identity.facts()
    assert request["ClientRequestToken"] == wanted.identity.token
    assert request["PipelineExecutionDisplayName"] == f"toy-finding-2-{wanted.identity.token[:8]}"
    assert {p["Name"]: p["Value"] for p in request["PipelineParameters"]} == URIS
    assert started.state == "running"

    pipeline = boto3.client("sagemaker").describe_pipeline(PipelineName="small-lifecycle")
    assert pipeline["RoleArn"] == ROLE
    assert pipeline["PipelineDescription"].startswith("Steps: take_in, fit, evaluate")
    configs = {
        word
        for word in pipeline["PipelineDefinition"].split('"')
        if word.startswith(f"s3://{BUCKET}/configs/")
    }
    assert configs
    for uri in configs:
        found = s3.list_objects_v2(Bucket=BUCKET, Prefix=uri.removeprefix(f"s3://{BUCKET}/"))
        assert found["KeyCount"] == 1, uri
    patch = f"submissions/{wanted.identity.token}/work.patch"
    answer = s3.get_object(Bucket=BUCKET, Key=patch)
    assert answer["Body"].read() == wanted.patch
    assert (answer["ServerSideEncryption"], answer["SSEKMSKeyId"]) == ("aws:kms", key)
    assert answer["VersionId"]


def test_each_starts_the_version_that_it_brought(engine, server) -> None:
    engine.start(order("one"))  # creates or updates
    engine.start(order("two"))
    engine.start(order("three"))
    versions = [request.get("PipelineVersionId") for request in server.started]
    assert versions[2] == versions[1] + 1


def test_one_token_is_one_execution(engine, server) -> None:
    first, second = engine.start(order("same")), engine.start(order("same"))
    assert second.id == first.id
    assert engine.start(order("same", again="1234")).id != first.id


def test_a_run_is_found_by_its_token(engine) -> None:
    token = order("sought").identity.token
    engine.start(order("another"))
    assert engine.find("small-lifecycle", token) is None
    started = engine.start(order("sought"))
    engine.start(order("other"))
    assert engine.find("small-lifecycle", token).id == started.id
    assert engine.find("no-such-pipeline", token) is None


def test_what_moto_calls_succeeded_is_not_seen_to_run(engine, server) -> None:
    id = engine.start(order("unplayed")).id
    told = boto3.client("sagemaker").describe_pipeline_execution(PipelineExecutionArn=id)
    assert told["PipelineExecutionStatus"] == "Succeeded"  # though nothing ran
    server.play = [Frame("Succeeded", {})]
    assert engine.look(id).tasks == ()  # which is no success: see test_outcome


def test_how_a_run_looks(engine, server, s3) -> None:
    id = engine.start(order()).id
    boto3.client("sagemaker").create_processing_job(
        ProcessingJobName="judge-1",
        RoleArn=ROLE,
        AppSpecification={"ImageUri": IMAGE},
        ProcessingResources={
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": "ml.m5.xlarge",
                "VolumeSizeInGB": 1,
            }
        },
        ProcessingOutputConfig={
            "Outputs": [
                {
                    "OutputName": "values",
                    "S3Output": {
                        "S3Uri": f"s3://{BUCKET}/runs/1/evaluate/values",
                        "LocalPath": "/opt/ml/processing/output/values",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
    )
    values = {"passed": False, "reason": "auroc 0.5"}
    s3.put_object(
        Bucket=BUCKET, Key="runs/1/evaluate/values/values.json", Body=json.dumps(values).encode()
    )
    job = "arn:aws:sagemaker:eu-west-1:123456789012:processing-job/judge-1"
    server.play = [
        Frame("Executing", {"take_in": "Executing"}),
        Frame(
            "Failed",
            {
                "take_in": {
                    "StepStatus": "Succeeded",
                    "CacheHitResult": {"SourcePipelineExecutionArn": id},
                },
                "evaluate": {
                    "StepStatus": "Succeeded",
                    "Metadata": {"ProcessingJob": {"Arn": job}},
                },
                "refused": {
                    "StepStatus": "Failed",
                    "FailureReason": "a Fail step was reached",
                    "Metadata": {"Fail": {"ErrorMessage": "refused: auroc 0.5"}},
                },
            },
            "see the steps",
        ),
    ]
    look = engine.look(id)
    (task,) = look.tasks
    assert (look.state, task.state) == ("running", "running")
    assert task.started_at and task.ended_at is None
    look = engine.look(id)
    assert (look.state, look.reason) == ("failed", "see the steps")
    assert [(t.name, t.state) for t in look.tasks] == [
        ("take_in", "reused"),
        ("evaluate", "ran"),
        ("refused", "failed"),
    ]
    assert look.tasks[1].values == values
    assert look.tasks[2].why == "refused: auroc 0.5"


def test_only_an_end_is_an_end(engine, server) -> None:
    id = engine.start(order()).id
    server.play = [Frame("Stopping", {"fit": "Stopping"})]
    look = engine.look(id)
    assert (look.state, look.tasks[0].state) == ("running", "running")
    server.play = [Frame("Stopped", {"fit": "Stopped"})]
    look = engine.look(id)
    assert (look.state, look.tasks[0].state) == ("stopped", "stopped")


def test_stopping(engine, server) -> None:
    id = engine.start(order()).id
    engine.stop(id)
    assert server.stopped == [id]


def test_a_large_definition_travels_through_s3(engine, server, s3, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.backends.sagemaker.client.INLINE_BYTES", 1000)
    engine.start(order("large"))
    (found,) = s3.list_objects_v2(Bucket=BUCKET, Prefix="definitions/")["Contents"]
    stored = s3.get_object(Bucket=BUCKET, Key=found["Key"])["Body"].read()
    pipeline = boto3.client("sagemaker").describe_pipeline(PipelineName="small-lifecycle")
    # What moto read there it gives back as Python writes it.
    assert ast.literal_eval(pipeline["PipelineDefinition"]) == json.loads(stored)


def test_a_source_is_brought_once_and_whole(engine, server, s3, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "1.dcm").write_bytes(b"one")
    (folder / "2.dcm").write_bytes(b"two")
    content = tree_digest(folder)
    uri = engine.upload(folder, content)
    assert uri == f"s3://{BUCKET}/sources/{content}"
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"sources/{content}/")["Contents"]
    names = [item["Key"].removeprefix(f"sources/{content}/") for item in listed]
    assert names == ["2.dcm", "a/1.dcm"]
    assert s3.head_object(Bucket=BUCKET, Key=listed[0]["Key"])["ServerSideEncryption"] == "aws:kms"
    assert engine.upload(folder, content) == uri
    versions = s3.list_object_versions(Bucket=BUCKET, Prefix=f"sources/{content}/")["Versions"]
    assert len(versions) == 2  # and not four
    # An upload that was killed has left no mark, and is begun anew.
    s3.delete_object(Bucket=BUCKET, Key=f"sources/uploaded/{content}.json")
    s3.delete_object(Bucket=BUCKET, Key=f"sources/{content}/2.dcm")
    engine.upload(folder, content)
    assert s3.get_object(Bucket=BUCKET, Key=f"sources/{content}/2.dcm")["Body"].read() == b"two"


def test_a_file_and_an_empty_folder_can_be_brought_too(engine, s3, tmp_path: Path) -> None:
    table, nothing = tmp_path / "labels.csv", tmp_path / "none"
    table.write_text("a,b\n")
    nothing.mkdir()
    uri = engine.upload(table, tree_digest(table))
    assert uri.endswith(f"/{tree_digest(table)}/labels.csv")
    uri = engine.upload(nothing, tree_digest(nothing))
    # All that begins so, as an input of SageMaker has it.
    (found,) = s3.list_objects_v2(Bucket=BUCKET, Prefix=uri.removeprefix(f"s3://{BUCKET}/"))[
        "Contents"
    ]
    assert found["Key"].endswith(f"/{RECORD}")


def test_a_source_that_changes_meanwhile_is_not_taken_for_whole(engine, s3, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("a,b\n")
    with pytest.raises(StepFailed, match="changed while"):
        engine.upload(table, "f" * 64)
    mark = f"sources/uploaded/{'f' * 64}"
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix=mark)


def test_what_lies_in_s3_is_known_by_its_content(engine, s3) -> None:
    s3.put_object(Bucket=BUCKET, Key="intake/1.dcm", Body=b"one")
    before = engine.content(f"s3://{BUCKET}/intake/")
    assert engine.content(f"s3://{BUCKET}/intake/") == before
    s3.put_object(Bucket=BUCKET, Key="intake/1.dcm", Body=b"two")
    assert engine.content(f"s3://{BUCKET}/intake/") != before
    with pytest.raises(BadInput, match="nothing lies at"):
        engine.content(f"s3://{BUCKET}/nowhere/")


def test_a_schedule_is_placed_and_changed_in_place(engine) -> None:
    wanted = Order(**{**vars(order()), "name": "lightbox-small-lifecycle-toy"})
    engine.schedule(wanted, "0 2 * * *")
    made = engine.schedule(wanted, "30 1 * * 1-5")
    assert engine.schedules() == [made]
    assert made.cron == "cron(30 1 ? * MON,TUE,WED,THU,FRI *)"
    told = boto3.client("scheduler").get_schedule(Name=made.name)
    assert told["Target"]["Arn"].endswith(":pipeline/small-lifecycle")
    assert told["Target"]["RoleArn"] == ROLE
    parameters = told["Target"]["SageMakerPipelineParameters"]["PipelineParameterList"]
    assert {p["Name"]: p["Value"] for p in parameters} == URIS
    assert told["ScheduleExpressionTimezone"] == "UTC"
    assert engine.unschedule(made.name) and not engine.unschedule(made.name)
    assert engine.schedules() == []


def test_pipelines_and_schedules_may_have_roles_of_their_own(engine, settings) -> None:
    roles = {"pipeline_role": f"{ROLE}-pipeline", "scheduler_role": f"{ROLE}-scheduler"}
    own = SageMakerEngine(settings.model_copy(update=roles))
    made = own.schedule(Order(**{**vars(order()), "name": "lightbox-own-role"}), "0 2 * * *")
    told = boto3.client("scheduler").get_schedule(Name=made.name)
    assert told["Target"]["RoleArn"] == roles["scheduler_role"]
    pipeline = boto3.client("sagemaker").describe_pipeline(PipelineName="small-lifecycle")
    assert pipeline["RoleArn"] == roles["pipeline_role"]
    own.unschedule(made.name)


def test_what_aws_says_is_told_by_kind(engine, server, monkeypatch) -> None:
    id = engine.start(order()).id
    server.refused = [500] * 3
    with pytest.raises(Unreachable, match="DescribePipelineExecution"):
        engine.look(id)
    server.refused = [403]
    with pytest.raises(BadInput, match="permissions"):
        engine.look(id)
    with pytest.raises(StepFailed) as caught:
        engine.look(id.replace("/execution/", "/execution/x"))
    assert not isinstance(caught.value, Unreachable)


def test_nobody_there_and_nobody_known(settings, monkeypatch) -> None:
    arn = "arn:aws:sagemaker:eu-west-1:123456789012:pipeline/p/execution/e"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unreachable):
        SageMakerEngine(settings).look(arn)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BadInput, match="AWS_PROFILE"):
        SageMakerEngine(settings).look(arn)


def test_the_registry_and_the_endpoint_that_a_release_uses(server, key) -> None:
    """The calls of a release that no step makes through this client, against the same server."""
    client = boto3.client("sagemaker")
    client.create_model_package_group(ModelPackageGroupName="lightbox")
    package = client.create_model_package(
        ModelPackageGroupName="lightbox",
        ModelApprovalStatus="PendingManualApproval",
        InferenceSpecification={
            "Containers": [{"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"}],
            "SupportedContentTypes": ["application/dicom"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )["ModelPackageArn"]
    client.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    told = client.describe_model_package(ModelPackageName=package)
    assert told["ModelApprovalStatus"] == "Approved"

    variants = [
        {
            "VariantName": name,
            "ModelName": name,
            "InitialInstanceCount": 1,
            "InstanceType": "ml.m5.large",
            "InitialVariantWeight": weight,
        }
        for name, weight in (("champion", 0.9), ("canary", 0.1))
    ]
    for variant in variants:
        client.create_model(
            ModelName=variant["ModelName"],
            ExecutionRoleArn=ROLE,
            PrimaryContainer={"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"},
        )
    client.create_endpoint_config(
        EndpointConfigName="toy", ProductionVariants=variants, KmsKeyId=key
    )
    told = client.describe_endpoint_config(EndpointConfigName="toy")
    assert [v["InitialVariantWeight"] for v in told["ProductionVariants"]] == [0.9, 0.1]
    assert told["KmsKeyId"] == key


def test_the_stub_says_nothing_that_the_api_does_not_know(server, engine) -> None:
    id = engine.start(order()).id
    server.play = [Frame("Executing", {"fit": {"StepStatus": 7}})]
    with pytest.raises((ClientError, StepFailed)):
        engine.look(id)
