"""Settings of the first three steps: what comes in, what is demanded of it, how it is split."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Labels(BaseModel):
    """How the labels table is read; its columns may hold identities, so it stays in memory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Literal["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "file"]
    key_column: str = Field(min_length=1)
    column: str = Field(min_length=1)
    classes: tuple[str, str]  # negative, positive
    # For images without a header; a DICOM file's own header wins where both speak.
    patient_column: str | None = None
    sex_column: str | None = None
    age_column: str | None = None
    scanner_column: str | None = None
    site_column: str | None = None


class IngestionConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: Labels
    file_timeout_s: float = Field(default=20.0, gt=0)
    file_memory_gib: float = Field(default=2.0, gt=0)


class ValidationConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SplittingConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
