"""The whole workflow's settings: one YAML file, one typed object."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from evaluation.config import EvaluationConfig, GatingConfig
from imaging.config import IngestionConfig, SplittingConfig, ValidationConfig
from monitoring.config import MonitoringConfig, RetrainingConfig
from pipelines.settings import read_settings
from registry.config import MODEL_NAME, PromotionConfig, RegistrationConfig
from serving.config import DeploymentConfig
from training.config import TrainingConfig


class Sources(BaseModel):
    """Where data comes from; relative paths count from the folder in which the command runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scans: str
    labels: str
    traffic: str = ""  # empty: what the model's own endpoint captured


class LifecycleConfig(BaseModel):
    """One section per step; each step receives its own section only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: Sources
    ingestion: IngestionConfig
    validation: ValidationConfig = ValidationConfig()
    splitting: SplittingConfig = SplittingConfig()
    training: TrainingConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    gating: GatingConfig = GatingConfig()
    registration: RegistrationConfig
    promotion: PromotionConfig = PromotionConfig()
    deployment: DeploymentConfig = DeploymentConfig()
    monitoring: MonitoringConfig = MonitoringConfig()
    retraining: RetrainingConfig

    def __repr__(self) -> str:
        """All of it as YAML, defaults too: what a prompt or a notebook shows."""
        values = self.model_dump(mode="json")
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None)

    @model_validator(mode="before")
    @classmethod
    def _same_labels(cls, values: Any) -> Any:
        """The labels are described once: new ones come in the same table, classes in that order.

        So is how patients get their names: whoever counts new ones must name them alike.
        """
        match values:
            case {"ingestion": {"labels": {"classes": classes, **rest}, **others}}:
                told: dict[str, Any] = {"labels": {"classes": classes, **rest}}
                if "deidentification" in others:
                    told["deidentification"] = others["deidentification"]
                values = {**values, "retraining": told | (values.get("retraining") or {})}
                if isinstance(values.get("training"), dict):
                    values["training"] = {"classes": classes} | values["training"]
        return values

    @model_validator(mode="before")
    @classmethod
    def _one_history(cls, values: Any) -> Any:
        """What a model learns from has a history of its own, under the model's name."""
        match values:
            case {"ingestion": dict() as ingestion, "registration": {"name": str() as name}}:
                if re.fullmatch(MODEL_NAME, name):  # else registration says what is wrong with it
                    values = {**values, "ingestion": {"history": name} | ingestion}
        return values

    @model_validator(mode="after")
    def _same_classes(self) -> Self:
        """Else every label would be served as its opposite."""
        if self.training.classes != self.ingestion.labels.classes:
            raise ValueError("training.classes is not ingestion.labels.classes; leave it out")
        return self


def load(path: Path, overrides: Sequence[str] = ()) -> LifecycleConfig:
    """Read `configs/<task>.yaml`; see `pipelines.settings.read_settings`."""
    return read_settings(path, LifecycleConfig, overrides)
