"""Where a pipeline runs on Kubeflow, as opposed to what it computes."""

from pydantic import BaseModel, ConfigDict


class KubeflowSettings(BaseModel):
    """From configs/environments/kubeflow.yaml.

    Args:
        image: Holds this project; pinned by digest.
        tracking_uri: The MLflow server that every step can reach.
        workspace_claim: A volume shared by all steps, for what outlives a run: the audit log,
            split assignments, openings of the test split.
        sources: URIs of sources; one that is missing here must be given at launch.
        secrets: For each workspace secret, the Kubernetes Secret that holds it under that key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    tracking_uri: str
    workspace_claim: str
    sources: dict[str, str] = {}
    secrets: dict[str, str] = {}
    gpu_resource: str = "nvidia.com/gpu"
    gpu_node_selector: dict[str, str] = {}
