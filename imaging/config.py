"""Settings of what comes in, what is demanded of it, how it is split and preprocessed."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from imaging.deidentification.policy import DeidentificationPolicy


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
    split_column: str | None = None  # a split that the data came with; checked, never used
    known_since_column: str | None = None  # since when the label is known, as an ISO 8601 date


class IngestionConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: Labels
    deidentification: DeidentificationPolicy = DeidentificationPolicy()
    # A model is given one grey frame; what is kept otherwise is for other uses of the snapshot.
    colour: Literal["set_aside", "grey", "keep"] = "set_aside"  # grey: ITU-R BT.601 luma
    frames: Literal["set_aside", "keep"] = "set_aside"  # of multi-frame objects and volumes
    # Snapshots of one name are versions of one data set; left out, it is the model's.
    history: str = Field(default="images", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    file_timeout_s: float = Field(default=20.0, gt=0)
    file_memory_gib: float = Field(default=2.0, gt=0)


class Range(BaseModel):
    """Both ends included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} lies above high {self.high}")
        return self


class ValidationConfig(BaseModel):
    """What a data set must look like before anything is learned from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minimum_images: int = Field(default=50, ge=1)
    minimum_class_share: float = Field(default=0.02, ge=0, le=0.5)
    maximum_set_aside_share: float = Field(default=0.05, ge=0, le=1)  # of the files found
    # Images that break a rule may be left out up to this share of all; beyond it, none pass.
    tolerated_share: float = Field(default=0.0, ge=0, lt=1)

    modalities: tuple[str, ...] = ()  # as in DICOM (0008,0060); empty: any
    sexes: tuple[str, ...] = ("F", "M", "O")
    age_years: Range = Range(low=0, high=120)
    rows: Range = Range(low=16, high=16384)
    columns: Range = Range(low=16, high=16384)
    bits_stored: Range = Range(low=1, high=16)
    pixel_spacing_mm: Range = Range(low=0.01, high=10)
    minimum_intensity_std: float = Field(default=0.0, ge=0)  # must lie above: blank images


class Fractions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    train: float = Field(default=0.7, gt=0, lt=1)
    validation: float = Field(default=0.15, gt=0, lt=1)
    test: float = Field(default=0.15, gt=0, lt=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train, validation and test must sum to 1, not {total:g}")
        return self


class SplittingConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    fractions: Fractions = Fractions()
    strata: tuple[str, ...] = ("label", "scanner", "sex")  # reported, see imaging/splits.py
    minimum_patients: int = Field(default=5, ge=2)  # per split
    # Tasks that name the same ledger agree on who is tested: keep it shared where patients are.
    ledger: str = Field(default="patients", pattern=r"^[a-z0-9-]+$")


class Transform(BaseModel):
    """One array transform, named as in `monai.transforms`, and its constructor's arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    args: dict[str, Any] = Field(default_factory=dict)
