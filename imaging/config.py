"""Settings of what comes in, what is demanded of it, how it is split and preprocessed."""

from datetime import date
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from imaging.deidentification.policy import DeidentificationPolicy
from imaging.labelling.fhir import KEYS as FHIR_KEYS
from imaging.labelling.fhir import FhirMapping


class Labels(BaseModel):
    """How labels are read; where they come from may hold identities, so that stays in memory.

    Attributes:
        key: What a row of the table names; `mask`: there is a mask per image, and an image is
            positive if its mask marks anything.
        key_column: Of the table, what names the image. FHIR needs none; masks take one where a
            table beside them says whose the images are.
        column: Of the table, the label. FHIR and masks need none.
        classes: Negative, positive.
        segments: What of a mask counts: numbers, or of DICOM segments also the label or the type
            as "scheme|code". In the snapshot's mask each has its place in this list as its
            value. Empty: everything, as it is numbered.
        fhir: How FHIR resources are read, where these are the labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Literal[
        "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "file", "mask"
    ]
    key_column: str = Field(default="", min_length=1)
    column: str = Field(default="", min_length=1)
    classes: tuple[str, str]
    # For images without a header; a DICOM file's own header wins where both speak.
    patient_column: str | None = None
    sex_column: str | None = None
    age_column: str | None = None
    scanner_column: str | None = None
    site_column: str | None = None
    split_column: str | None = None  # a split that the data came with; checked, never used
    known_since_column: str | None = None  # since when the label is known, as an ISO 8601 date
    segments: tuple[int | str, ...] = ()
    fhir: FhirMapping | None = None

    @property
    def columns(self) -> dict[str, str]:
        """The columns of the table that are read, by setting."""
        names = ("patient", "sex", "age", "scanner", "site", "split", "known_since")
        settings = ("key_column", "column", *(f"{name}_column" for name in names))
        return {name: value for name in settings if (value := getattr(self, name))}

    @model_validator(mode="after")
    def _fits_its_key(self) -> Self:
        if self.fhir:
            if self.columns or self.key not in FHIR_KEYS:
                raise ValueError(
                    f"fhir: the key is {' or '.join(FHIR_KEYS)}, and no column is named"
                )
            self.fhir.check(self.key, self.classes)
        elif self.key == "mask":
            if self.column:
                raise ValueError("column: with the key `mask`, masks say what is positive")
            if set(self.columns) - {"key_column"} and not self.key_column:
                raise ValueError("key_column is missing: it names the images, by file")
        elif not (self.key_column and self.column):
            missing = "column" if self.key_column else "key_column"
            raise ValueError(f"{missing} is missing: a column of the labels table")
        if self.segments and self.key != "mask":
            raise ValueError("segments: only masks have them")
        return self


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


class IngestionConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: Labels
    deidentification: DeidentificationPolicy = DeidentificationPolicy()
    # A model is given one grey frame; what is kept otherwise is for other uses of the snapshot.
    colour: Literal["set_aside", "grey", "keep"] = "set_aside"  # grey: ITU-R BT.601 luma
    frames: Literal["set_aside", "keep"] = "set_aside"  # of multi-frame objects and volumes
    # What of a NIfTI volume's values is shown as 0 to 1, such as -1024 to 3071 for CT. Without it,
    # integers have the range of their type, and floating-point volumes are set aside.
    volume_range: Range | None = None
    # Snapshots of one name are versions of one data set; left out, it is the model's.
    history: str = Field(default="images", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    file_timeout_s: float = Field(default=20.0, gt=0)
    file_memory_gib: float = Field(default=2.0, gt=0)


Severity = Literal["stop", "warn"]


class Expectation(BaseModel):
    """One of Great Expectations' own, by its type; all other names are its arguments."""

    model_config = ConfigDict(frozen=True, extra="allow")

    expectation: str = Field(pattern=r"^expect_[a-z_]+$")
    severity: Severity = "stop"
    why: str = ""


class Ranges(BaseModel):
    """What is plausible in one modality; what is left out is as elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: Range | None = None
    columns: Range | None = None
    bits_stored: Range | None = None
    pixel_spacing_mm: Range | None = None
    column_spacing_mm: Range | None = None
    slice_spacing_mm: Range | None = None
    age_years: Range | None = None


class Drift(BaseModel):
    """When a column is called changed since the champion's snapshot: by chance rarely, and visibly.

    Attributes:
        p_value: At most, after Benjamini and Hochberg over the columns.
        effect: At least: the largest distance between the two distribution functions, or half the
            sum of differences between shares.
        minimum_patients: In either snapshot; fewer say nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    p_value: float = Field(default=0.01, gt=0, lt=1)
    effect: float = Field(default=0.2, gt=0, lt=1)
    minimum_patients: int = Field(default=20, ge=2)


class Shortcuts(BaseModel):
    """What becomes of a field that tells the classes apart and should not.

    Attributes:
        action: Stop, warn, or do not look.
        lower_bound_above: A shortcut is strong if its AUROC's lower 95 % limit lies above this.
        fields: What should not predict the label; empty: `evaluation.shortcuts.FIELDS`.
        exempt: Known and accepted: shown, and never strong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["stop", "warn", "off"] = "warn"
    lower_bound_above: float = Field(default=0.7, ge=0.5, lt=1)
    fields: tuple[str, ...] = ()
    exempt: tuple[str, ...] = ()


class ValidationConfig(BaseModel):
    """What a data set must look like before anything is learned from it.

    Attributes:
        severity: By the name of a built-in rule, where it is not to be as `lightbox` has it.
        expectations: Demands of one's own, on the manifest's columns.
        near_duplicate_bits: Of 256, in which the hashes of two pictures taken for one may differ.
    """

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
    pixel_aspect: Range = Range(low=0.8, high=1.25)  # spacing between rows by that between columns
    minimum_intensity_std: float = Field(default=0.0, ge=0)  # must lie above: blank images
    by_modality: dict[str, Ranges] = Field(default_factory=dict)  # such as CR
    near_duplicate_bits: int = Field(default=30, ge=0, le=64)

    severity: dict[str, Severity] = Field(default_factory=dict)
    expectations: tuple[Expectation, ...] = ()
    drift: Drift = Drift()
    shortcuts: Shortcuts = Shortcuts()


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
    """Who trains, who tunes, who is examined; see imaging/splits.py.

    Attributes:
        by: `patient`: a keyed draw. `time`: who came first at `test_from` or later is examined.
            `site`: whoever was ever at a held-out site is. The others are drawn, as the fractions
            of train and validation are to each other.
        time_column: By which images are ordered.
        validation_from: Where time parts train from validation too, instead of a draw.
        near_duplicate_bits: Of 256, in which the hashes of two pictures taken for one may differ;
            on two sides, both are set aside.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fractions: Fractions = Fractions()
    by: Literal["patient", "time", "site"] = "patient"
    time_column: Literal["study_date", "label_known_since"] = "study_date"
    validation_from: date | None = None
    test_from: date | None = None
    held_out_sites: tuple[str, ...] = ()
    strata: tuple[str, ...] = ("label", "site", "sex")  # reported, see imaging/splits.py
    near_duplicate_bits: int = Field(default=30, ge=0, le=64)
    minimum_patients: int = Field(default=5, ge=2)  # per split
    # Tasks that name the same ledger agree on who is tested: keep it shared where patients are.
    ledger: str = Field(default="patients", pattern=r"^[a-z0-9-]+$")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        timed = self.test_from is not None or self.validation_from is not None
        if (self.by == "time") != timed or (timed and self.test_from is None):
            raise ValueError("by: time and test_from go together")
        if (self.by == "site") != bool(self.held_out_sites):
            raise ValueError("by: site and held_out_sites go together")
        if self.validation_from and self.test_from and self.validation_from >= self.test_from:
            raise ValueError("validation_from must lie before test_from")
        return self


class Transform(BaseModel):
    """One array transform, named as in `monai.transforms`, and its constructor's arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    args: dict[str, Any] = Field(default_factory=dict)
