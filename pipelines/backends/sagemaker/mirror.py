"""The mirror of a registered model: a package in SageMaker's own registry, waiting for approval.

MLflow is the registry of record. The package says which version there it mirrors, and where its
evidence lies, so that whoever opens it in SageMaker Studio sees metrics, gate and baselines.
"""

from typing import Any

from pipelines.backends.sagemaker.offline import offline
from pipelines.backends.sagemaker.settings import SageMakerSettings
from pipelines.graph import Step

with offline():
    from sagemaker.core.drift_check_baselines import DriftCheckBaselines
    from sagemaker.core.model_metrics import MetricsSource, ModelMetrics
    from sagemaker.core.workflow.functions import Join
    from sagemaker.core.workflow.pipeline_context import PipelineSession
    from sagemaker.mlops.workflow.model_step import ModelStep
    from sagemaker.serve.model_builder import ModelBuilder

DIGEST = "LIGHTBOX_MODEL_DIGEST"
# Evidence that a registering step may read, by the name of its input: the file, and its type.
EVIDENCE = {
    "metrics": ("metrics.json", "application/json"),
    "verdict": ("verdict.json", "application/json"),
    "reference": ("reference.parquet", "application/vnd.apache.parquet"),
}


def mirror(
    step: Step,
    name: str,
    uris: dict[str, Any],
    values: dict[str, Any],
    settings: SageMakerSettings,
    session: PipelineSession,
) -> ModelStep:
    """The step that packages what `step` has registered.

    Args:
        step: A step that registers one of its inputs.
        name: Of the new step.
        uris: Where each of its inputs and outputs lies.
        values: What it reports, each a text.
        settings: Image, group and role of the package.
        session: What the SDK makes steps with.
    """
    assert step.component.registers
    found = {
        key: MetricsSource(content_type, Join(on="/", values=[uris[key], file]))
        for key, (file, content_type) in EVIDENCE.items()
        if key in step.inputs
    }
    model = ModelBuilder(
        image_uri=settings.serving_image,
        s3_model_data_url=uris[step.component.registers],
        role_arn=settings.role,
        # The serving container opens nothing that has another digest; see serving/hosted.py.
        env_vars={DIGEST: values["model_digest"]} if "model_digest" in values else None,
        sagemaker_session=session,
    )
    # Studio draws the metrics, and beside them what the gate asked of them.
    metrics = ModelMetrics(
        model_statistics=found.get("metrics"), model_constraints=found.get("verdict")
    )
    baselines = DriftCheckBaselines(
        model_statistics=found.get("metrics"),
        model_constraints=found.get("verdict"),
        model_data_statistics=found.get("reference"),
    )
    # The folder of the evaluation, with curves and predictions; and what the registry wrote.
    links = {"evaluation": uris["metrics"]} if "metrics" in found else {}
    if step.component.outputs:
        links["dossier"] = uris[step.component.outputs[0]]
    package = model.register(
        model_package_group_name=settings.model_package_group,
        approval_status="PendingManualApproval",
        content_types=["application/dicom"],
        response_types=["application/json"],
        model_metrics=metrics,
        drift_check_baselines=baselines,
        customer_metadata_properties=values | links,
    )
    return ModelStep(
        name=name,
        step_args=package,
        display_name=f"{step.name}: model package",
        description="Mirrors the registered version, with its evidence; waits for approval",
    )
