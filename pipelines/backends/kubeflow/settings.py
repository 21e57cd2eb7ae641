"""Where a pipeline runs on Kubeflow, as opposed to what it computes."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

SECRET_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?(/[-._a-zA-Z0-9]+)?")
OURS = (
    "LIGHTBOX_HOME",
    "LIGHTBOX_CODE_IDENTITY",
    "LIGHTBOX_ENDPOINT_URL",
    "MLFLOW_TRACKING_URI",
)


class Toleration(BaseModel):
    """Lets pods onto nodes that a taint keeps others away from; see Kubernetes' own pages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"


def _free(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if name in OURS:
            raise ValueError(f"{name} is set by the pipeline itself; remove it")
        if name.startswith("LIGHTBOX_SECRET_"):
            raise ValueError(f"{name} would stand in the package for all to read; use secrets:")
    return variables


def _names(secrets: dict[str, str]) -> dict[str, str]:
    for name, place in secrets.items():
        if not SECRET_NAME.fullmatch(place) or re.fullmatch(r"[0-9a-fA-F]{64}", place):
            raise ValueError(f"{name} names no Kubernetes Secret (SECRET or SECRET/KEY)")
    return secrets


class KubeflowSettings(BaseModel):
    """From configs/environments/kubeflow.yaml.

    Args:
        image: Holds this project; pinned by digest.
        tracking_uri: The MLflow server, for the steps that train, register or change a release.
        workspace_claim: A volume shared by the steps that leave something for later runs: the audit
            log, split assignments, openings of the test split, how each run ended.
        endpoint_url: The service that models are released to; it outlives the jobs.
        bucket: Where `lightbox submit` brings what pods are to read: s3://NAME or minio://NAME.
        run_as_user: The user id of every container, not root; it must own the workspace volume.
        sources: URIs of sources; one that is missing here must be given at launch.
        secrets: For each workspace secret, the Kubernetes Secret that holds it under that key, or
            SECRET/KEY where the key has another name.
        environment: Variables that every step sees besides those of the pipeline; no secrets.
        image_pull_secrets: Kubernetes Secrets with which the image is fetched.
        node_selector: Labels of the nodes on which steps run.
        tolerations: Taints of nodes that steps may run on all the same.
        gpu_resource: What Kubernetes calls one GPU.
        gpu_node_selector: Labels that a step with GPUs asks for besides.
        gpu_tolerations: Taints that a step with GPUs tolerates besides.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    tracking_uri: str
    workspace_claim: str
    endpoint_url: str = ""
    bucket: Annotated[str, Field(pattern=r"^$|^(s3|minio)://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] = (
        ""
    )
    run_as_user: Annotated[int, Field(gt=0)] = 10001
    sources: dict[str, str] = {}
    secrets: Annotated[dict[str, str], AfterValidator(_names)] = {}
    environment: Annotated[dict[str, str], AfterValidator(_free)] = {}
    image_pull_secrets: list[str] = []
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    gpu_resource: str = "nvidia.com/gpu"
    gpu_node_selector: dict[str, str] = {}
    gpu_tolerations: list[Toleration] = []
