"""Where a pipeline runs on SageMaker, as opposed to what it computes."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

ROLE = r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$"
SECRET_ARN = r"^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:.+$"  # noqa: S105  what one looks like


class Instance(BaseModel):
    """One instance type and what it offers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    cpu: int
    memory_gib: int
    gpus: int = 0
    # It has disks of its own (ml.g5, ml.p4d, …): encrypted by its hardware, they take no KMS key.
    local_disks: bool = False


class SageMakerSettings(BaseModel):
    """From configs/environments/sagemaker.yaml.

    Args:
        image: Holds this project; pinned by digest.
        serving_image: What the mirrored model package is served by; pinned by digest.
        role: ARN of the role that the jobs take on.
        pipeline_role: ARN of the role that starts the jobs; `role` if left out.
        scheduler_role: ARN of the role that starts pipelines at night; `pipeline_role` if left out.
        bucket: Holds configs, outputs of runs, models, checkpoints and the shared workspace.
        kms_key: Encrypts the jobs' volumes and outputs; a key's id or ARN, for volumes take no
            alias.
        encrypt_between_instances: What the instances of one job tell each other.
        tracking_uri: MLflow server's URL, or the ARN of one that SageMaker manages.
        endpoint_url: The service that models are released to; it outlives the jobs.
        instances: What steps may run on, cheapest first.
        training_instances: How many instances a step that trains gets; they share each batch.
        spot: Train on spot capacity: cheaper, may be interrupted, goes on from its checkpoints.
            Such a model is never taken from SageMaker's cache.
        spot_wait_minutes: How long a training job may wait for spot capacity, all in all.
        isolated: Components without any network besides those that train, which never have one.
        sources: S3 URIs of sources; one that is missing here must be given at launch.
        secrets: For each workspace secret, the ARN of the AWS secret that holds it.
        environment: Further variables for every job, such as proxies.
        tags: Stand on the pipeline and its jobs; a model package bears those of its group.
        cache_for: How long a pure step's outputs may be reused, an ISO 8601 duration.
        start_attempts: How often SageMaker tries to start a job while there is no capacity.
        hipaa_eligible: File that lists the AWS services which may see health information.
        waivers: For each safeguard that is missing on purpose, the reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    serving_image: str
    role: str = Field(pattern=ROLE)
    pipeline_role: str = Field("", pattern=f"^$|{ROLE}")
    scheduler_role: str = Field("", pattern=f"^$|{ROLE}")
    region: str
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    kms_key: str = ""
    subnets: list[str] = []
    security_groups: list[str] = []
    encrypt_between_instances: bool = True
    tracking_uri: str
    endpoint_url: str = ""
    model_package_group: str
    instances: list[Instance]
    training_instances: int = Field(1, ge=1)
    spot: bool = False
    spot_wait_minutes: int = Field(1440, ge=0)
    volume_gib: int = 100
    isolated: list[str] = ["evaluate"]
    sources: dict[str, str] = {}
    secrets: dict[str, Annotated[str, Field(pattern=SECRET_ARN)]] = {}
    environment: dict[str, str] = {}
    tags: dict[str, str] = {}
    cache_for: str = "P30D"
    start_attempts: int = Field(5, ge=1, le=20)
    hipaa_eligible: str = "configs/lists/hipaa_eligible.yaml"
    waivers: dict[str, str] = {}
