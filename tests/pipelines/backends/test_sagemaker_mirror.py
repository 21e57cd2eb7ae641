"""The model package that mirrors a registered model, made for real by moto's server over HTTP."""

import json
from typing import Any

import boto3

from lineage.code import ROOT

GOLDEN = ROOT / "tests/pipelines/golden/sagemaker/model-lifecycle.json"


def filled_in(value: Any, told: dict[str, str]) -> Any:
    """What the pipeline service makes of a definition's variables when the step starts."""
    match value:
        case {"Get": name}:
            place = name.replace("Steps.", "").split(".")[0]
            return f"s3://lightbox-123456789012/runs/run/{place}"
        case {"Std:Join": {"On": on, "Values": values}}:
            return on.join(filled_in(inner, told) for inner in values)
        case {"Std:JsonGet": {"Path": path}}:
            return told[path]
        case dict():
            return {key: filled_in(inner, told) for key, inner in value.items()}
        case list():
            return [filled_in(inner, told) for inner in value]
    return value


def test_the_package_is_taken_waits_and_can_be_approved(aws: str) -> None:
    steps = json.loads(GOLDEN.read_text())["Steps"]
    [arguments] = [s["Arguments"] for s in steps if s["Type"] == "RegisterModel"]
    request = filled_in(
        arguments, {"model_version": "phantom-finding:7", "model_digest": "ab" * 32}
    )
    group = request["ModelPackageGroupName"]
    client = boto3.client("sagemaker")
    client.create_model_package_group(ModelPackageGroupName=group)
    name = client.create_model_package(**request)["ModelPackageArn"]

    made = client.describe_model_package(ModelPackageName=name)
    assert made["ModelApprovalStatus"] == "PendingManualApproval"
    assert made["CustomerMetadataProperties"]["model_version"] == "phantom-finding:7"
    [container] = made["InferenceSpecification"]["Containers"]
    assert container["Environment"]["LIGHTBOX_MODEL_DIGEST"] == "ab" * 32
    [container] = made["InferenceSpecification"]["Containers"]
    assert container["ModelDataUrl"] == "s3://lightbox-123456789012/runs/run/train"
    quality = made["ModelMetrics"]["ModelQuality"]
    assert quality["Statistics"]["S3Uri"].endswith("/evaluate/metrics.json")
    assert quality["Constraints"]["S3Uri"].endswith("/gate/verdict.json")
    baseline = made["DriftCheckBaselines"]["ModelDataQuality"]["Statistics"]
    assert baseline["S3Uri"].endswith("/evaluate/reference.parquet")

    client.update_model_package(ModelPackageArn=name, ModelApprovalStatus="Approved")
    assert client.describe_model_package(ModelPackageName=name)["ModelApprovalStatus"] == "Approved"
