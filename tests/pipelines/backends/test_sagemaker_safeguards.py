"""What is refused for safety's sake, and what a waiver takes to be one."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from small_lifecycle import IMAGE, small_lifecycle

from lineage.code import ROOT
from lineage.errors import BadInput
from pipelines.backends.sagemaker.lowering import compile_to
from pipelines.backends.sagemaker.safeguards import (
    SAFEGUARDS,
    eligible,
    require_eligible,
    require_safeguards,
    services,
)
from pipelines.backends.sagemaker.settings import SageMakerSettings
from pipelines.config import load
from pipelines.graph import Pipeline
from pipelines.model_lifecycle import model_lifecycle
from pipelines.settings import read_settings

SHIPPED = ROOT / "configs/environments/sagemaker.yaml"
BOB = "bob:" + "word"
GOLDEN = ROOT / "tests/pipelines/golden/sagemaker"
EMPTY: dict[str, Any] = {
    "kms_key": "",
    "subnets": [],
    "security_groups": [],
    "encrypt_between_instances": False,
    "isolated": [],
    "hipaa_eligible": "",
}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> SageMakerSettings:
    for name in ("LIGHTBOX_IMAGE", "LIGHTBOX_SERVING_IMAGE"):
        monkeypatch.setenv(name, IMAGE)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    return read_settings(SHIPPED, SageMakerSettings)


def refuse(settings: SageMakerSettings, **changes: Any) -> None:
    require_safeguards(settings.model_copy(update=changes), small_lifecycle())


def test_the_shipped_settings_lack_nothing(settings: SageMakerSettings) -> None:
    refuse(settings)
    assert EMPTY.keys() == SAFEGUARDS.keys()


@pytest.mark.parametrize("name", sorted(EMPTY))
def test_a_missing_safeguard_is_refused_by_name_unless_waived_by_name(
    settings: SageMakerSettings, name: str
) -> None:
    with pytest.raises(BadInput, match=rf"^\['{name}'\] are missing: without {name} "):
        refuse(settings, **{name: EMPTY[name]})
    refuse(settings, **{name: EMPTY[name]}, waivers={name: "phantoms only"})


def test_a_waiver_covers_what_it_names_and_no_more(settings: SageMakerSettings) -> None:
    with pytest.raises(BadInput, match=r"^\['subnets'\] are missing"):
        refuse(settings, kms_key="", subnets=[], waivers={"kms_key": "phantoms only"})


@pytest.mark.parametrize("name", ["kms_key", "kms-key", "role"])
def test_a_waiver_for_what_is_not_missing_is_refused(
    settings: SageMakerSettings, name: str
) -> None:
    with pytest.raises(BadInput, match=rf"waivers: \['{name}'\] are not missing"):
        refuse(settings, waivers={name: "phantoms only"})


def test_a_waiver_without_a_reason_is_refused(settings: SageMakerSettings) -> None:
    with pytest.raises(BadInput, match=r"waivers: \['kms_key'\] lack a reason"):
        refuse(settings, kms_key="", waivers={"kms_key": " "})


@pytest.mark.parametrize(
    "alias", ["alias/lightbox", "arn:aws:kms:eu-central-1:123456789012:alias/lightbox"]
)
def test_an_alias_is_refused_because_volumes_take_none(
    settings: SageMakerSettings, alias: str
) -> None:
    with pytest.raises(BadInput, match="kms_key: the volumes of jobs take no alias"):
        refuse(settings, kms_key=alias)


def test_a_misspelt_component_would_have_a_network_and_is_refused(
    settings: SageMakerSettings,
) -> None:
    with pytest.raises(BadInput, match="no component is called 'evalute'; did you mean 'evaluate'"):
        refuse(settings, isolated=["evalute"])
    # Another pipeline of the same project may lack it altogether.
    require_safeguards(settings, Pipeline("p", []))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("role: lightbox", "role: expected the ARN of an IAM role, such as arn:aws"),
        ("bucket: s3://lightbox", "bucket: expected a bucket's name alone"),
        ("training_instances: 0", "training_instances: expected 1 or more"),
        ("start_attempts: 21", "start_attempts: expected 20 or less"),
        ("kms: x", "kms"),
    ],
)
def test_settings_are_checked_where_they_are_read(
    settings: SageMakerSettings, tmp_path: Path, line: str, told: str
) -> None:
    path = tmp_path / "sagemaker.yaml"
    key = line.partition(":")[0]
    lines = [known for known in SHIPPED.read_text().splitlines() if not known.startswith(f"{key}:")]
    path.write_text("\n".join([*lines, line]))
    with pytest.raises(BadInput, match=told):
        read_settings(path, SageMakerSettings)


@pytest.mark.parametrize("name", ["model-lifecycle", "drift-watch"])
def test_the_shipped_pipelines_use_eligible_services_only(
    settings: SageMakerSettings, name: str
) -> None:
    definition = json.loads((GOLDEN / f"{name}.json").read_text())
    assert services(definition) == {"sagemaker", "logs", "s3", "kms", "secretsmanager", "ec2"}
    require_eligible(definition, settings)


@pytest.mark.parametrize(
    ("text", "service"),
    [
        ("arn:aws:lookoutvision:eu-central-1:123456789012:project/x", "lookoutvision"),
        ("arn:aws-us-gov:dynamodb:us-gov-west-1:123456789012:table/x", "dynamodb"),
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com/lightbox@sha256:ab", "ecr"),
        ("https://vpce-0a-b.secretsmanager.eu-central-1.vpce.amazonaws.com", "secretsmanager"),
        ("https://bucket.s3.eu-central-1.amazonaws.com/key", "s3"),
        ("https://rekognition.us-gov-west-1.amazonaws.com", "rekognition"),
        ("s3://bucket/key", "s3"),
    ],
)
def test_a_service_is_recognised_by_arn_host_or_uri(text: str, service: str) -> None:
    used = services({"Steps": [{"Arguments": {"Environment": {"A": text}}}]})
    assert used == {"sagemaker", "logs", service}


@pytest.mark.parametrize(
    ("key", "value", "service"),
    [
        ("VolumeKmsKeyId", "01234567-89ab-cdef-0123-456789abcdef", "kms"),
        ("InstanceType", "ml.m5.xlarge", "ec2"),
        ("Subnets", ["subnet-0"], "ec2"),
    ],
)
def test_a_service_is_recognised_by_the_member_that_names_something_of_it(
    key: str, value: Any, service: str
) -> None:
    assert services({"Steps": [{key: value}]}) == {"sagemaker", "logs", service}


def test_roles_are_no_service_that_data_passes_through() -> None:
    assert services({"RoleArn": "arn:aws:iam::123456789012:role/x"}) == {"sagemaker", "logs"}


def test_a_service_that_is_not_on_the_list_is_refused_by_name(settings: SageMakerSettings) -> None:
    definition = {"A": "arn:aws:lookoutvision:eu-central-1:123456789012:project/x"}
    listed = rf"\['lookoutvision'\] are used, but not on the list .* of {eligible(settings).as_of}"
    with pytest.raises(BadInput, match=listed):
        require_eligible(definition, settings)
    require_eligible(definition, settings.model_copy(update={"hipaa_eligible": ""}))  # waived


def test_the_list_is_the_users_to_replace(settings: SageMakerSettings, tmp_path: Path) -> None:
    shipped = yaml.safe_load((ROOT / settings.hipaa_eligible).read_text())
    shorter = {k: v for k, v in shipped["services"].items() if k != "secretsmanager"}
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(shipped | {"services": shorter, "as_of": "2027-01-31"}))
    definition = json.loads((GOLDEN / "model-lifecycle.json").read_text())
    with pytest.raises(BadInput, match=r"\['secretsmanager'\] .* of 2027-01-31 \(.*own.yaml\)"):
        require_eligible(definition, settings.model_copy(update={"hipaa_eligible": str(own)}))


def test_a_list_that_is_not_there_is_refused(settings: SageMakerSettings) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.yaml: cannot be read"):
        eligible(settings.model_copy(update={"hipaa_eligible": "nowhere.yaml"}))


@pytest.mark.parametrize("isolated", [["gate"], ["gate", "validate"]])
def test_another_step_without_a_network_is_not_the_one_that_opens_the_test_split(
    settings: SageMakerSettings, isolated: list[str]
) -> None:
    pipeline = model_lifecycle(load(ROOT / "configs/phantom.yaml"))
    with pytest.raises(BadInput, match=r"^\['isolated'\] are missing"):
        require_safeguards(settings.model_copy(update={"isolated": isolated}), pipeline)
    require_safeguards(settings, pipeline)


@pytest.mark.parametrize(
    "change",
    [
        {"tracking_uri": f"https://{BOB}@mlflow.example"},
        {"endpoint_url": f"https://{BOB}@endpoint.example"},
        {"environment": {"AWS_SECRET_ACCESS_KEY": "word"}},
        {"environment": {"HTTPS_PROXY": f"http://{BOB}@proxy.example"}},
    ],
)
def test_no_secret_stands_in_the_definition(
    settings: SageMakerSettings, change: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(BadInput) as refused:
        compile_to(small_lifecycle(), settings.model_copy(update=change), tmp_path / "x.json")
    assert "word" not in str(refused.value).replace("password", "")
    assert not (tmp_path / "x.json").exists()


def test_a_secret_is_named_by_its_arn(settings: SageMakerSettings) -> None:
    for given in ("ab" * 32, "lightbox/pseudonym"):
        told = settings.model_dump() | {"secrets": {"pseudonym.key": given}}
        with pytest.raises(ValidationError):
            SageMakerSettings(**told)
