"""Settings of the watch: what counts as drift, and when to ask for a new model."""

from pydantic import BaseModel, ConfigDict, Field

from imaging.config import Labels
from imaging.deidentification.policy import DeidentificationPolicy

FACTS = "drift.json"  # what the drift report says, for programs


class MonitoringConfig(BaseModel):
    """The defaults' error rates are measured by benchmarks/drift_alarms.py."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tags: tuple[str, ...] = ("live",)  # replayed requests say nothing of what is sent today
    window: int = Field(default=1000, ge=1)  # the latest so many requests
    minimum_requests: int = Field(default=50, ge=2)  # fewer: no verdict

    false_discovery_rate: float = Field(default=0.01, gt=0, lt=1)
    # Below these a difference is too small to matter, however sure it is.
    minimum_shift: float = Field(default=0.1, ge=0)  # numbers, in reference standard deviations
    minimum_divergence: float = Field(default=0.1, ge=0, le=1)  # categories, Jensen-Shannon
    # One: a new kind of noise, or other scores, may show in a single column. At two, false alarms
    # fall from 1 % to a third of that, but such changes are hardly ever seen.
    minimum_drifted_columns: int = Field(default=1, ge=1)


class RetrainingConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: Labels  # how the labels table is read; `ingestion.labels`, unless named here
    # How patients got their names; `ingestion.deidentification`, unless said here.
    deidentification: DeidentificationPolicy = DeidentificationPolicy()
    minimum_new_patients: int = Field(default=20, ge=1)  # images, if the table names no patients
    cooldown_hours: float = Field(default=168, ge=0)  # between two requests
