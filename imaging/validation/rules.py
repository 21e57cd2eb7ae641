"""The built-in demands on a snapshot, each with a name, by which its severity can be changed.

A rule that Great Expectations cannot put as it stands is put to it as a column of true and false,
made here from the manifest; where there is nothing to go by, the column is empty there.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from imaging.config import Range, Ranges, Severity, ValidationConfig
from imaging.manifest import STATISTICS, schema
from imaging.validation.near_duplicates import near_others

if TYPE_CHECKING:
    import pandas as pd

# A UID as DICOM PS3.5 §9.1 writes them, or the content digest that names a PNG or JPEG.
UID = r"^(?=.{1,64}$)(?:[0-2](?:\.(?:0|[1-9][0-9]*))+|[0-9a-f]{32,64})$"
UNIT_STATISTICS = tuple(s for s in STATISTICS if s.startswith(("intensity_", "border_")))

SEVERITY: dict[str, Severity] = {
    "every_file_accounted_for": "stop",
    "every_file_read_has_a_row": "stop",
    "few_set_aside": "stop",
    "label_conflicts": "warn",
    "patients_alike": "warn",
    "patients_of_several_issuers": "warn",
    "schema": "stop",
    "enough_images": "stop",
    "class_balance": "stop",
    "unique_instances": "stop",
    "instance_uid": "stop",
    "patient_id": "stop",
    "label": "stop",
    "sex": "stop",
    "age_years": "stop",
    "rows": "stop",
    "columns": "stop",
    "bits_stored": "stop",
    "pixel_spacing_mm": "stop",
    "pixel_aspect": "warn",
    "by_modality": "stop",
    "statistics": "stop",
    "blank_images": "stop",
    "modality": "stop",
    "orientation_fits_view": "warn",
    "laterality_fits_body_part": "warn",
    "one_laterality_per_series": "warn",
    "one_label_per_study": "warn",
    "exact_duplicates": "stop",
    "near_duplicates_across_patients": "warn",
    "near_duplicates_within_patients": "warn",
    "one_source_split_per_patient": "warn",
    "balance_by_group": "warn",
    "labels_as_before": "warn",
    "distributions_as_before": "warn",
}
FRONTAL, LATERAL = ("AP", "PA"), ("LL", "RL", "LAT", "LATERAL")  # (0018,5101)
# Of DICOM PS3.16, Annex L; there is no left and right one.
UNPAIRED = (
    *("ABDOMEN", "CHEST", "CSPINE", "HEAD", "HEART", "LSPINE", "NECK", "PELVIS"),
    *("SKULL", "SPINE", "TSPINE", "THORAX"),
)
SMALLEST_GROUP = 20  # patients; fewer may well be of one class by chance


class Rules:
    """Expectations in the making, with the severity that the settings give them."""

    def __init__(self, config: ValidationConfig) -> None:
        import great_expectations.expectations as gxe

        self._gxe, self._config = gxe, config
        self.mostly = 1 - config.tolerated_share
        self.made: list[Any] = []

    def add(self, rule: str, kind: str, why: str, **arguments: Any) -> None:
        """Ask for one of Great Expectations' own, such as `ColumnValuesToBeUnique`."""
        severity = self._config.severity.get(rule, SEVERITY[rule])
        self.made.append(
            getattr(self._gxe, f"Expect{kind}")(
                **arguments, notes=why, meta={"rule": rule}, severity=in_their_words(severity)
            )
        )

    def within(self, rule: str, column: str, allowed: Range, why: str) -> None:
        """A range, both ends included; some rows may be left out."""
        self.add(
            rule,
            "ColumnValuesToBeBetween",
            why,
            column=column,
            min_value=allowed.low,
            max_value=allowed.high,
            mostly=self.mostly,
        )

    def true(self, rule: str, why: str) -> None:
        """A column of `derived`, named like its rule."""
        self.add(
            rule,
            "ColumnValuesToBeInSet",
            why,
            column=rule,
            value_set=[True],
            mostly=self.mostly,
        )


def in_their_words(severity: Severity) -> str:
    """Great Expectations' own names for it."""
    return {"stop": "critical", "warn": "warning"}[severity]


def of_rows(config: ValidationConfig) -> list[Any]:
    """What is asked of the manifest, with the columns of `derived`."""
    rules = Rules(config)
    unit = Range(low=0, high=1)
    rules.add(
        "enough_images",
        "TableRowCountToBeBetween",
        "enough images to learn from",
        min_value=config.minimum_images,
    )
    rules.add(
        "class_balance",
        "ColumnMeanToBeBetween",
        "the share of positives: both classes must be there",
        column="label",
        min_value=config.minimum_class_share,
        max_value=1 - config.minimum_class_share,
    )
    rules.add(
        "unique_instances", "ColumnValuesToBeUnique", "one row per image", column="instance_uid"
    )
    rules.add(
        "instance_uid",
        "ColumnValuesToMatchRegex",
        "a UID or a content digest",
        column="instance_uid",
        regex=UID,
    )
    whose = "images of one patient must be kept together"
    rules.add("patient_id", "ColumnValuesToNotBeNull", whose, column="patient_id")
    rules.add(
        "patient_id", "ColumnValueLengthsToBeBetween", whose, column="patient_id", min_value=1
    )
    rules.add("label", "ColumnValuesToBeInSet", "two classes", column="label", value_set=[0, 1])
    rules.add(
        "sex",
        "ColumnValuesToBeInSet",
        "DICOM (0010,0040)",
        column="sex",
        value_set=list(config.sexes),
        mostly=rules.mostly,
    )
    for column, why in (
        ("age_years", "a plausible age"),
        ("rows", "a plausible height in pixels"),
        ("columns", "a plausible width in pixels"),
        ("bits_stored", "a depth that can be read"),
        ("pixel_spacing_mm", "a plausible pixel size in mm"),
        ("pixel_aspect", "pixels about as high as they are wide"),
    ):
        rules.within(column, column, getattr(config, column), why)
    for modality, ranges in config.by_modality.items():
        for column, allowed in _set(ranges):
            name = f"{column} of {modality}"
            rules.within("by_modality", name, allowed, f"what {modality} images are like")
    for name in STATISTICS:
        # NaN is a number to Parquet but missing here, and a missing value is in every range.
        why = "a statistic that could not be computed"
        rules.add("statistics", "ColumnValuesToNotBeNull", why, column=name)
    for name in UNIT_STATISTICS:
        rules.within("statistics", name, unit, "statistics are scaled to 0..1")
    rules.add(
        "blank_images",
        "ColumnValuesToBeBetween",
        "a blank image has no spread",
        column="intensity_std",
        min_value=config.minimum_intensity_std,
        strict_min=True,
        mostly=rules.mostly,
    )
    for low, high in (("intensity_p01", "intensity_p50"), ("intensity_p50", "intensity_p99")):
        rules.add(
            "statistics",
            "ColumnPairValuesAToBeGreaterThanB",
            "percentiles rise",
            column_A=high,
            column_B=low,
            or_equal=True,
        )
    if config.modalities:
        rules.add(
            "modality",
            "ColumnValuesToBeInSet",
            "what the model is meant for; images without a header have none",
            column="modality",
            value_set=list(config.modalities),
            mostly=rules.mostly,
        )
    rules.add(
        "exact_duplicates", "ColumnValuesToBeUnique", "each picture once", column="pixel_sha256"
    )
    for rule, why in (
        ("orientation_fits_view", "frontal views lead left and down, lateral ones back or front"),
        ("laterality_fits_body_part", "breasts have a side; chest, head and the like have none"),
        ("one_laterality_per_series", "a series shows one side"),
        ("one_label_per_study", "one label for a patient's study"),
        ("near_duplicates_across_patients", "nearly the same picture under two patients"),
        ("near_duplicates_within_patients", "nearly the same picture twice of one patient"),
        ("one_source_split_per_patient", "the split that the data came with parts by patient"),
        ("labels_as_before", "an image keeps the label that the champion's data had"),
    ):
        rules.true(rule, why)
    return rules.made


def of_files(config: ValidationConfig) -> list[Any]:
    """What is asked of the files that were found."""
    rules = Rules(config)
    rules.add(
        "every_file_accounted_for",
        "ColumnPairValuesToBeEqual",
        "every file is accounted for",
        column_A="read_or_set_aside",
        column_B="found",
    )
    rules.add(
        "every_file_read_has_a_row",
        "ColumnPairValuesToBeEqual",
        "every file read has its row",
        column_A="in_manifest",
        column_B="read",
    )
    rules.add(
        "few_set_aside",
        "ColumnMeanToBeBetween",
        "files set aside are few; set_aside.parquet says why each was",
        column="set_aside_share",
        max_value=config.maximum_set_aside_share,
    )
    rules.add(
        "label_conflicts",
        "ColumnMaxToBeBetween",
        "files set aside because they have two labels",
        column="label_conflicts",
        max_value=0,
    )
    rules.add(
        "patients_alike",
        "ColumnMaxToBeBetween",
        "patients whose PatientIDs differ by leading zeros, case or spaces only: perhaps one "
        "person, who could be trained and tested on",
        column="patients_alike",
        max_value=0,
    )
    rules.add(
        "patients_of_several_issuers",
        "ColumnMaxToBeBetween",
        "patients whose PatientID comes from several issuers: perhaps several persons",
        column="patients_of_several_issuers",
        max_value=0,
    )
    return rules.made


def of_columns(config: ValidationConfig) -> list[Any]:
    """What is asked of the manifest's columns: of `columns`."""
    rules = Rules(config)
    rules.add(
        "schema",
        "ColumnPairValuesToBeEqual",
        "columns and their types",
        column_A="asked",
        column_B="found",
    )
    return rules.made


def of_groups(config: ValidationConfig) -> list[Any]:
    """What is asked of each site and of each split that the data came with: of `groups`."""
    rules = Rules(config)
    least = config.minimum_class_share
    rules.within(
        "balance_by_group",
        "positive_share",
        Range(low=least, high=1 - least),
        f"both classes at each site and in each source split of {SMALLEST_GROUP} patients or more",
    )
    return rules.made


def of_changes(config: ValidationConfig) -> list[Any]:
    """What is asked of new patients against those of the champion's snapshot."""
    rules = Rules(config)
    rules.add(
        "distributions_as_before",
        "ColumnValuesToBeInSet",
        "new patients are like those that the champion learned from",
        column="drifted",
        value_set=[False],
    )
    return rules.made


def files(counts: Mapping[str, Any], in_manifest: int) -> "pd.DataFrame":
    """What ingestion counted, in one row."""
    import pandas as pd

    return pd.DataFrame(
        {
            "found": [counts["found"]],
            "read_or_set_aside": [counts["read"] + counts["set_aside"]],
            "read": [counts["read"]],
            "in_manifest": [in_manifest],
            "set_aside_share": [counts["set_aside"] / max(counts["found"], 1)],
            "label_conflicts": [counts.get("reasons", {}).get("label_conflict", 0)],
            "patients_alike": [counts.get("patients_alike")],
            "patients_of_several_issuers": [counts.get("patients_of_several_issuers")],
        }
    )


def columns(manifest: "pd.DataFrame") -> "pd.DataFrame":
    """Each column's type as imaging/manifest.py has it, and as it was found."""
    import pandas as pd

    asked = {field.name: (_kind_asked(str(field.type)), field.nullable) for field in schema()}
    rows = []
    for name in dict.fromkeys([*asked, *manifest.columns]):
        kind, nullable = asked.get(name, ("absent", True))
        found = _kind_found(manifest[name]) if name in manifest else "absent"
        if found == "empty" and nullable:
            found = kind
        if kind == "whole number" and nullable and found == "number":
            found = kind  # pandas holds whole numbers with gaps as floats
        rows.append({"column": name, "asked": kind, "found": found})
    return pd.DataFrame(rows)


def groups(manifest: "pd.DataFrame") -> "pd.DataFrame":
    """Images, patients and the share of positives of each larger site and source split."""
    import pandas as pd

    rows = []
    for axis in [a for a in ("site", "source_split") if a in manifest]:
        for value, members in manifest.groupby(axis):
            patients = members["patient_id"].nunique()
            if patients >= SMALLEST_GROUP:
                rows.append(
                    {
                        "group": f"{axis} {value}",
                        "images": len(members),
                        "patients": patients,
                        "positive_share": float(members["label"].mean()),
                    }
                )
    return pd.DataFrame(rows, columns=["group", "images", "patients", "positive_share"])


def derived(
    manifest: "pd.DataFrame", config: ValidationConfig, previous: "pd.DataFrame | None"
) -> "pd.DataFrame":
    """The manifest with the columns that rules are put as; None where there is nothing to go by."""
    table = manifest.reindex(columns=[*dict.fromkeys([*schema().names, *manifest.columns])])
    new: dict[str, Any] = {"pixel_aspect": table["pixel_spacing_mm"] / table["column_spacing_mm"]}
    for modality, ranges in config.by_modality.items():
        for column, _ in _set(ranges):
            new[f"{column} of {modality}"] = table[column].where(table["modality"] == modality)
    new["orientation_fits_view"] = [
        _orientation_fits(view, way)
        for view, way in zip(table["view_position"], table["patient_orientation"], strict=True)
    ]
    new["laterality_fits_body_part"] = [
        _laterality_fits(*row)
        for row in table[["modality", "body_part", "laterality"]].itertuples(index=False)
    ]
    new["one_laterality_per_series"] = _one(table, ["series_uid"], "laterality")
    new["one_label_per_study"] = _one(table, ["patient_id", "study_uid"], "label")
    new["one_source_split_per_patient"] = _one(table, ["patient_id"], "source_split")
    new |= _near(table, config.near_duplicate_bits)
    new["labels_as_before"] = _labels_as_before(table, previous)
    return table.assign(**new)


def _set(ranges: Ranges) -> list[tuple[str, Range]]:
    return [(name, found) for name in Ranges.model_fields if (found := getattr(ranges, name))]


def _orientation_fits(view: Any, orientation: Any) -> bool | None:
    if not (isinstance(view, str) and isinstance(orientation, str)):
        return None
    row, _, column = orientation.partition("\\")
    if view.upper() in FRONTAL:
        return row.startswith("L") and column.startswith("F")
    if view.upper() in LATERAL:
        return row.startswith(("A", "P")) and column.startswith("F")
    return None


def _laterality_fits(modality: Any, body_part: Any, laterality: Any) -> bool | None:
    if modality == "MG":
        return laterality in ("L", "R", "B")
    if isinstance(body_part, str) and body_part.upper() in UNPAIRED:
        return laterality not in ("L", "R") if isinstance(laterality, str) else None
    return None


def _one(table: "pd.DataFrame", by: list[str], what: str) -> list[bool | None]:
    """Whether rows that agree in `by` agree in `what`; None where either is missing."""
    known = table[[*by, what]].notna().all(axis=1)
    differing = table[known].groupby(by)[what].transform("nunique").reindex(table.index)
    return [n == 1 if k else None for n, k in zip(differing, known, strict=True)]


def _near(table: "pd.DataFrame", bits: int) -> dict[str, Any]:
    """Whether no other patient, and no other image of the patient, has nearly the same picture."""
    hashes = table["perceptual_hash"].tolist()
    patients = table["patient_id"].fillna("").to_numpy(dtype=str)
    across = near_others(hashes, patients, bits)
    within = near_others(hashes, np.arange(len(table)), bits) & ~across
    known = [isinstance(h, str) for h in hashes]
    return {
        f"near_duplicates_{where}_patients": [
            not near if k else None for near, k in zip(found, known, strict=True)
        ]
        for where, found in (("across", across), ("within", within))
    }


def _labels_as_before(table: "pd.DataFrame", previous: "pd.DataFrame | None") -> list[bool | None]:
    if previous is None:
        return [None] * len(table)
    before = dict(zip(previous["instance_uid"], previous["label"], strict=True))
    return [
        bool(before[uid] == label) if uid in before else None
        for uid, label in zip(table["instance_uid"], table["label"], strict=True)
    ]


def _kind_asked(arrow: str) -> str:
    if arrow.startswith("int"):
        return "whole number"
    return {"string": "text", "float": "number", "date32[day]": "date"}[arrow]


def _kind_found(column: "pd.Series") -> str:
    import pandas as pd

    if column.isna().all():
        return "empty"
    if pd.api.types.is_integer_dtype(column):
        return "whole number"
    if pd.api.types.is_float_dtype(column):
        return "number"
    if pd.api.types.is_string_dtype(column):
        return "text"
    kind = pd.api.types.infer_dtype(column, skipna=True)
    return {"date": "date", "string": "text"}.get(kind, kind)
