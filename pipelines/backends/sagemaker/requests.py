"""What the SageMaker API would say of a definition, as far as botocore's model of it tells.

A definition holds, for each step, the arguments of the API call that the step will make. SageMaker
finds a fault in there when the step starts, hours into a run; here it is found when compiling.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape

from lineage.errors import BadInput

OPERATIONS = {
    "Processing": "CreateProcessingJob",
    "Training": "CreateTrainingJob",
    "RegisterModel": "CreateModelPackage",
}
# The pipeline service adds these itself.
ADDED = {"ProcessingJobName", "TrainingJobName", "ClientRequestToken"}
# What stands for a value that is known only while the pipeline runs.
VARIABLES = {"Get", "Std:Join", "Std:JsonGet"}
MOST_STEPS = 50  # of one pipeline, those in branches too; AWS's quota, no part of the model

JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "structure": dict,
    "map": dict,
    "list": list,
    "string": str,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "boolean": bool,
}
# Python's patterns know no classes of Unicode: what comes near, within brackets.
UNICODE = {
    "L": r"\w",
    "M": r"\w",
    "N": r"\d",
    "Z": r"\s",
    "P": r"!-#%-*,-/:;?@\[-\]_{}\u2010-\u2027",
    "S": r"$+<->^`|~",
    "Alnum": "a-zA-Z0-9",
}


def check(definition: Mapping[str, Any], pipeline_request: Mapping[str, Any]) -> None:
    """Check every step of a definition, and the request that makes a pipeline of it.

    Raises:
        BadInput: With step, member and what is wrong, for everything that is wrong.
    """
    found = {fault: ["the pipeline"] for fault in _pipeline_faults(definition, pipeline_request)}
    steps = list(every_step(definition["Steps"]))
    if len(steps) > MOST_STEPS:
        found[f"{len(steps)} steps, where a pipeline holds {MOST_STEPS}"] = ["the pipeline"]
    for step in steps:
        for fault in step_faults(step):
            found.setdefault(fault, []).append(step["Name"])
    if found:
        told = (f"{fault} ({', '.join(names)})" for fault, names in found.items())
        raise BadInput("SageMaker would refuse this: " + "; ".join(told))


def every_step(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each step of a definition, those within branches too."""
    for step in steps:
        yield step
        if step["Type"] == "Condition":
            yield from every_step(step["Arguments"]["IfSteps"])
            yield from every_step(step["Arguments"]["ElseSteps"])


def step_faults(step: Mapping[str, Any]) -> Iterator[str]:
    """What the API would refuse about one step: its names, and the arguments of its call."""
    for key, shape in (
        ("Name", "StepName"),
        ("DisplayName", "StepDisplayName"),
        ("Description", "StepDescription"),
    ):
        if key in step:
            yield from faults(step[key], _model().shape_for(shape), key)
    if operation := OPERATIONS.get(step["Type"]):
        yield from faults(step["Arguments"], _input(operation))
    elif step["Type"] not in ("Condition", "Fail"):
        yield f"steps of the type {step['Type']} are not known here"


def faults(value: Any, shape: Shape, place: str = "") -> Iterator[str]:
    """What does not fit a shape: types, unknown and missing members, lengths, ranges, patterns."""
    if isinstance(value, dict) and len(value) == 1 and value.keys() <= VARIABLES:
        return
    if not _is(value, shape.type_name):
        yield f"{place} is {json.dumps(value)[:60]}, not of type {shape.type_name}"
        return
    match shape.type_name:
        case "structure":
            yield from _structure_faults(value, shape, place)
        case "map":
            yield from _size_faults(len(value), shape, place, "entries")
            for key, inner in value.items():
                yield from faults(key, shape.key, f"{place} key {key}")
                yield from faults(inner, shape.value, f"{place}.{key}")
        case "list":
            yield from _size_faults(len(value), shape, place, "items")
            for number, inner in enumerate(value):
                yield from faults(inner, shape.member, f"{place}[{number}]")
        case "string":
            yield from _size_faults(len(value), shape, place, "characters")
            if shape.enum and value not in shape.enum:
                yield f"{place} is {value[:60]!r}, which is none of those that SageMaker knows"
            if (pattern := shape.metadata.get("pattern")) and not _translated(pattern)(value):
                yield f"{place} is {value[:60]!r}, which does not fit {pattern}"
        case "integer" | "long" | "float" | "double":
            yield from _size_faults(value, shape, place, "")


def _is(value: Any, type_name: str) -> bool:
    kind = JSON_TYPES.get(type_name, ())  # of another type nothing in JSON is
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _structure_faults(value: dict[str, Any], shape: Shape, place: str) -> Iterator[str]:
    dot = f"{place}." if place else ""
    for name in shape.required_members:
        if name not in value and name not in ADDED:
            yield f"{dot}{name} is missing"
    for name, inner in value.items():
        if name in shape.members:
            yield from faults(inner, shape.members[name], f"{dot}{name}")
        else:
            yield f"{dot}{name} is not known; SageMaker takes {sorted(shape.members)}"


def _size_faults(size: float, shape: Shape, place: str, unit: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    told = f"{size} {unit}".strip()
    if least is not None and size < least:
        yield f"{place} has {told}, at least {least} are wanted"
    if most is not None and size > most:
        yield f"{place} has {told}, at most {most} are allowed"


def _pipeline_faults(
    definition: Mapping[str, Any], pipeline_request: Mapping[str, Any]
) -> Iterator[str]:
    request = {**pipeline_request, "PipelineDefinition": json.dumps(definition)}
    yield from faults(request, _input("CreatePipeline"))
    given = [
        {"Name": parameter["Name"], "Value": parameter.get("DefaultValue", "")}
        for parameter in definition["Parameters"]
    ]
    shape = _input("StartPipelineExecution").members["PipelineParameters"]
    yield from faults(given, shape, "Parameters")


@cache
def _model() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker")


def _input(operation: str) -> Shape:
    return _model().operation_model(operation).input_shape


@cache
def _translated(pattern: str) -> Any:
    """The API's patterns are Java's; a text must fit them from end to end."""
    pattern = re.sub(r"\\p\{(\w+)\}", lambda found: UNICODE[found[1]], pattern)
    pattern = pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
    return re.compile(re.sub(r"\$\{\d+,\d+\}$", "", pattern)).fullmatch
