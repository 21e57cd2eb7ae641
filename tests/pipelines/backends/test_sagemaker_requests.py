"""What the API would refuse: each kind of fault is put into a definition that is good."""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from botocore.model import Shape

from lineage.code import ROOT
from lineage.errors import BadInput
from pipelines.backends.sagemaker import requests
from pipelines.backends.sagemaker.requests import MOST_STEPS, OPERATIONS, check, every_step

GOOD = ROOT / "tests/pipelines/golden/sagemaker/model-lifecycle.json"
REQUEST = {
    "PipelineName": "model-lifecycle",
    "PipelineDescription": "What runs",
    "RoleArn": "arn:aws:iam::123456789012:role/lightbox",
    "Tags": [],
}


@pytest.fixture
def definition() -> dict[str, Any]:
    good: dict[str, Any] = json.loads(GOOD.read_text())
    return good


def step(definition: dict[str, Any], name: str) -> dict[str, Any]:
    return next(s for s in every_step(definition["Steps"]) if s["Name"] == name)


def put(value: Any, place: str, new: Any) -> None:
    """Set `a.0.b` in nested dicts and lists; None takes it out."""
    *outer, last = place.split(".")
    for key in outer:
        value = value[int(key)] if isinstance(value, list) else value[key]
    if new is None:
        del value[last]
    else:
        value[int(last) if isinstance(value, list) else last] = new


def test_what_the_lowering_makes_is_what_the_api_describes(definition: dict[str, Any]) -> None:
    check(definition, REQUEST)
    assert {s["Type"] for s in every_step(definition["Steps"])} == {
        *OPERATIONS,
        "Condition",
        "Fail",
    }


@pytest.mark.parametrize(
    ("name", "place", "new", "told"),
    [
        ("train", "Arguments.SpotPrice", 1, "SpotPrice is not known; SageMaker takes ['Al"),
        ("train", "Arguments.RoleArn", None, "RoleArn is missing (train)"),
        ("train", "Arguments.OutputDataConfig.S3OutputPath", None, "OutputDataConfig.S3OutputPath"),
        ("train", "Arguments.RoleArn", "lightbox", "RoleArn has 8 characters, at least 20"),
        ("train", "Arguments.RoleArn", "arn:aws:iam::12:role/lightbox", "does not fit arn:aws"),
        ("train", "Arguments.StoppingCondition.MaxRuntimeInSeconds", 0, "has 0, at least 1"),
        (
            "train",
            "Arguments.StoppingCondition.MaxRuntimeInSeconds",
            "1",
            'is "1", not of type integer',
        ),
        ("train", "Arguments.ResourceConfig.InstanceCount", True, "is true, not of type integer"),
        (
            "train",
            "Arguments.ResourceConfig.InstanceType",
            "ml.huge",
            "is 'ml.huge', which is none",
        ),
        ("train", "Arguments.EnableNetworkIsolation", "yes", 'is "yes", not of type boolean'),
        ("train", "Arguments.Environment.A-B", "1", "Environment key A-B is 'A-B'"),
        ("train", "Arguments.Environment.A", "x" * 513, "Environment.A has 513 characters"),
        ("train", "Arguments.VpcConfig.Subnets", [], "VpcConfig.Subnets has 0 items, at least 1"),
        ("train", "Arguments.Tags.0.Key", "a#b", "Tags[0].Key is 'a#b'"),
        ("gate", "Arguments.AppSpecification.ContainerArguments.1", "x" * 257, "at most 256"),
        ("gate", "Arguments.Environment.A", "x" * 257, "Environment.A has 257 characters"),
        ("gate", "Arguments.ProcessingInputs.0.S3Input.S3Uri", "lightbox/configs", "does not fit"),
        ("register-mirror", "Arguments.ModelApprovalStatus", "Perhaps", "ModelApprovalStatus"),
        ("register-mirror", "Arguments.CustomerMetadataProperties.a", "x" * 257, "at most 256"),
        ("register-mirror", "Arguments.CustomerMetadataProperties.a", "50 %", "is '50 %'"),
        ("refused", "Name", "not passed", "Name is 'not passed'"),
        ("gate", "DisplayName", "x" * 257, "DisplayName has 257 characters"),
        ("gate", "Type", "Lambda", "steps of the type Lambda are not known here"),
    ],
)
def test_a_fault_is_told_with_step_and_member(
    definition: dict[str, Any], name: str, place: str, new: Any, told: str
) -> None:
    put(step(definition, name), place, new)
    with pytest.raises(BadInput, match=re.escape(told)):
        check(definition, REQUEST)


def test_more_inputs_than_a_processing_job_takes_are_refused(definition: dict[str, Any]) -> None:
    inputs = step(definition, "gate")["Arguments"]["ProcessingInputs"]
    inputs += [deepcopy(inputs[0]) for _ in range(10)]
    with pytest.raises(BadInput, match=r"ProcessingInputs has 12 items, at most 10 .*\(gate\)"):
        check(definition, REQUEST)


def test_more_steps_than_a_pipeline_holds_are_refused(definition: dict[str, Any]) -> None:
    some = [deepcopy(definition["Steps"][0]) | {"Name": f"s{n}"} for n in range(MOST_STEPS)]
    with pytest.raises(BadInput, match=f"steps, where a pipeline holds {MOST_STEPS}"):
        check(definition | {"Steps": definition["Steps"] + some}, REQUEST)


def test_more_parameters_than_a_start_takes_are_refused(definition: dict[str, Any]) -> None:
    some = [{"Name": f"source{n}", "Type": "String"} for n in range(201)]
    with pytest.raises(BadInput, match="Parameters has 201 items, at most 200"):
        check(definition | {"Parameters": some}, REQUEST)


def test_the_name_of_the_pipeline_is_checked_as_well(definition: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="PipelineName is 'model lifecycle'"):
        check(definition, REQUEST | {"PipelineName": "model lifecycle"})


def test_every_fault_is_told_at_once_with_all_the_steps_that_share_it(
    definition: dict[str, Any],
) -> None:
    put(step(definition, "gate"), "Arguments.RoleArn", None)
    put(step(definition, "train"), "Arguments.RoleArn", None)
    put(step(definition, "gate"), "Name", "the gate")
    with pytest.raises(BadInput) as told:
        check(definition, REQUEST)
    assert "RoleArn is missing (train, the gate)" in str(told.value)
    assert "Name is 'the gate', which does not fit" in str(told.value)


def test_a_value_that_is_known_only_later_fits_everywhere(definition: dict[str, Any]) -> None:
    arguments = step(definition, "train")["Arguments"]
    arguments["ResourceConfig"]["InstanceCount"] = {"Get": "Parameters.instances"}
    check(definition, REQUEST)


def test_the_service_is_free_to_name_jobs(definition: dict[str, Any]) -> None:
    assert "TrainingJobName" not in step(definition, "train")["Arguments"]


def test_every_pattern_that_a_definition_may_meet_is_one_that_python_reads() -> None:
    patterns = {p for name in OPERATIONS.values() for p in reachable(requests._input(name))}
    assert len(patterns) > 30
    for pattern in patterns:
        requests._translated(pattern)


@pytest.mark.parametrize(
    ("shape", "good", "bad"),
    [
        ("CustomerMetadataValue", "Größe 5 naïve_.:/=+-@", "50 %"),
        ("EntityDescription", "a (b), c; 3 < 4 — naïve", "a\0b"),
        (
            "TrainingRepositoryCredentialsProviderArn",
            "arn:aws-cn:lambda:eu-west-1:123456789012:function:f",
            "arn:aws_cn:lambda:eu-west-1:123456789012:function:f",
        ),
    ],
)
def test_classes_of_unicode_are_read_as_what_they_mean(shape: str, good: str, bad: str) -> None:
    known = requests._model().shape_for(shape)
    assert list(requests.faults(good, known)) == []
    assert list(requests.faults(bad, known)) != []


def reachable(shape: Shape, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    if shape.name in seen:
        return
    seen |= {shape.name}
    if pattern := shape.metadata.get("pattern"):
        yield pattern
    inner: list[Shape] = []
    if shape.type_name == "structure":
        inner = list(shape.members.values())
    elif shape.type_name == "list":
        inner = [shape.member]
    elif shape.type_name == "map":
        inner = [shape.key, shape.value]
    for each in inner:
        yield from reachable(each, seen)
