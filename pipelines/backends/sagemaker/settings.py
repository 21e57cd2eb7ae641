"""Where a pipeline runs on SageMaker, as opposed to what it computes."""

from pydantic import BaseModel, ConfigDict


class Instance(BaseModel):
    """One instance type and what it offers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    cpu: int
    memory_gib: int
    gpus: int = 0


class SageMakerSettings(BaseModel):
    """From configs/environments/sagemaker.yaml.

    Args:
        image: Holds this project; pinned by digest.
        serving_image: What the mirrored model package is served by; pinned by digest.
        role: ARN of the role that the jobs take on.
        bucket: Holds configs, outputs of runs, and models.
        kms_key: Encrypts the jobs' volumes and outputs.
        tracking_uri: MLflow server's URL, or the ARN of one that SageMaker manages.
        instances: What steps may run on, cheapest first.
        isolated: Components without any network besides those that train.
        sources: S3 URIs of sources; one that is missing here must be given at launch.
        secrets: For each workspace secret, the ARN of the AWS secret that holds it.
        cache_for: How long a pure step's outputs may be reused, an ISO 8601 duration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    serving_image: str
    role: str
    region: str
    bucket: str
    kms_key: str
    subnets: list[str]
    security_groups: list[str]
    tracking_uri: str
    model_package_group: str
    instances: list[Instance]
    volume_gib: int = 100
    isolated: list[str] = ["evaluate"]
    sources: dict[str, str] = {}
    secrets: dict[str, str] = {}
    cache_for: str = "P30D"
