"""What must not be missing where health information is computed with, unless a person waived it.

A waiver names one setting and gives the reason. It stands as a tag on every job, and in the
pipeline's description, so that who reviews a definition sees what it does without.
"""

import difflib
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lineage.code import ROOT
from lineage.errors import BadInput
from pipelines.backends.sagemaker.settings import SageMakerSettings
from pipelines.graph import Pipeline
from pipelines.settings import read_settings

SAFEGUARDS = {
    "kms_key": "volumes and outputs would be encrypted with a key that is not yours",
    "subnets": "jobs would run outside your network",
    "security_groups": "nothing would limit whom jobs in your network talk to",
    "encrypt_between_instances": "the instances of one job would talk to each other in clear text",
    "isolated": "the step that opens the test split would have a network",
    "hipaa_eligible": "nothing would say which AWS services may see health information",
}

OPENINGS = "ledgers/test_openings/*"  # the state of a step that opens the test split

# Who calls and who may, not what is called with: no data passes through these.
WITHOUT_DATA = {"iam", "sts"}
MENTIONS = (
    r"arn:aws[a-z-]*:([a-z0-9-]+):",
    r"([a-z0-9-]+)(?:\.[a-z]{2}(?:-[a-z]+)+-\d)?(?:\.vpce)?\.amazonaws\.com",
)


class EligibleServices(BaseModel):
    """From configs/lists/hipaa_eligible.yaml.

    Args:
        as_of: Of which day the list is.
        source: Where AWS says it.
        services: Prefix of a service in ARNs, and what AWS calls it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date
    source: str
    services: dict[str, str]


def require_safeguards(settings: SageMakerSettings, pipeline: Pipeline) -> None:
    """Refuse settings that lack a safeguard, and a waiver that waives nothing.

    Raises:
        BadInput: With the names of all such settings.
    """
    missing = {name for name in SAFEGUARDS if not getattr(settings, name)}
    openers = {s.component.name for s in pipeline.steps() if OPENINGS in s.component.state}
    if openers - set(settings.isolated):
        missing.add("isolated")
    if stray := sorted(settings.waivers.keys() - missing):
        raise BadInput(f"waivers: {stray} are not missing, so there is nothing to waive; remove")
    if unwaived := sorted(missing - settings.waivers.keys()):
        reasons = "; ".join(f"without {name} {SAFEGUARDS[name]}" for name in unwaived)
        raise BadInput(f"{unwaived} are missing: {reasons}. Set them, or say why under waivers:")
    if silent := sorted(name for name, reason in settings.waivers.items() if not reason.strip()):
        raise BadInput(f"waivers: {silent} lack a reason")
    if re.match(r"alias/|arn:aws[a-z-]*:kms:[^:]*:[^:]*:alias/", settings.kms_key):
        raise BadInput("kms_key: the volumes of jobs take no alias; give the key's id or ARN")
    known = {step.component.name for step in pipeline.steps()}
    for name in sorted(set(settings.isolated) - known):
        if meant := difflib.get_close_matches(name, known, n=1):
            raise BadInput(f"isolated: no component is called {name!r}; did you mean {meant[0]!r}?")


def require_eligible(definition: dict[str, Any], settings: SageMakerSettings) -> None:
    """Refuse a definition that uses a service which is not on the list of eligible ones.

    Raises:
        BadInput: With the names of these services.
    """
    if not settings.hipaa_eligible:
        return
    listed = eligible(settings)
    if others := sorted(services(definition) - listed.services.keys()):
        raise BadInput(
            f"{others} are used, but not on the list of HIPAA-eligible services of {listed.as_of} "
            f"({settings.hipaa_eligible}); do without them, or compare it with {listed.source}"
        )


def eligible(settings: SageMakerSettings) -> EligibleServices:
    """The list that the settings name: beside where the command runs, or the project's own."""
    path = Path(settings.hipaa_eligible)
    return read_settings(path if path.exists() else ROOT / path, EligibleServices)


def services(definition: dict[str, Any]) -> set[str]:
    """The AWS services that a definition uses, by their prefix in ARNs."""
    found = {"sagemaker", "logs"}  # what jobs print goes to CloudWatch Logs
    for key, text in _texts(definition):
        found |= {"s3"} if text.startswith("s3://") else set()
        found |= {"kms"} if key.lower().endswith("kmskeyid") else set()
        found |= {"ec2"} if key in ("Subnets", "InstanceType") else set()  # VPC, machines, volumes
        found |= {name for pattern in MENTIONS for name in re.findall(pattern, text)}
    return found - WITHOUT_DATA


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Each text, and the nearest key that it stands under."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)
    elif isinstance(value, str):
        yield key, value
