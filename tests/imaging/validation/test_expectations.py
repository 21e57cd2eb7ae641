import re

import pytest
import yaml
from checked_rows import CONFIG, N, outcomes, row

from imaging.config import Range, ValidationConfig
from imaging.manifest import read_manifest, write_manifest
from imaging.validation.expectations import check, failures, flawless
from imaging.validation.own_expectations import check_settings
from imaging.validation.report import write_report
from imaging.validation.rules import SEVERITY
from lineage.code import ROOT
from lineage.errors import BadInput


def failed(found):
    return {(o["expectation"], o["column"]) for o in found if o["outcome"] == "failed"}


def test_good_rows_pass_and_are_all_accepted(tmp_path):
    manifest, found = outcomes(tmp_path)
    assert failed(found) == set()
    assert failures(found) == []
    assert flawless(manifest, found)["instance_uid"].tolist() == manifest["instance_uid"].tolist()


# One run finds every kind of breach: each line is (row, column, value) -> what must fail on it.
BREACHES = {
    (1, "instance_uid", "2.25.1"): ("expect_column_values_to_be_unique", "instance_uid"),
    (2, "instance_uid", "../etc"): ("expect_column_values_to_match_regex", "instance_uid"),
    (3, "patient_id", ""): ("expect_column_value_lengths_to_be_between", "patient_id"),
    (4, "label", 2): ("expect_column_values_to_be_in_set", "label"),
    (5, "sex", "X"): ("expect_column_values_to_be_in_set", "sex"),
    (6, "age_years", 190.0): ("expect_column_values_to_be_between", "age_years"),
    (7, "rows", 1): ("expect_column_values_to_be_between", "rows"),
    (8, "columns", 99999): ("expect_column_values_to_be_between", "columns"),
    (9, "bits_stored", 32): ("expect_column_values_to_be_between", "bits_stored"),
    (10, "pixel_spacing_mm", 0.0): ("expect_column_values_to_be_between", "pixel_spacing_mm"),
    (11, "noise_sigma", float("nan")): ("expect_column_values_to_not_be_null", "noise_sigma"),
    (12, "intensity_mean", 1.5): ("expect_column_values_to_be_between", "intensity_mean"),
    (13, "intensity_std", 0.0): ("expect_column_values_to_be_between", "intensity_std"),
    (14, "intensity_p01", 0.95): (
        "expect_column_pair_values_a_to_be_greater_than_b",
        "intensity_p50, intensity_p01",
    ),
    (15, "modality", "MR"): ("expect_column_values_to_be_in_set", "modality"),
    (16, "pixel_sha256", f"{18:064x}"): ("expect_column_values_to_be_unique", "pixel_sha256"),
}
# Warned of only: row -> (its changes, what must fail on it, which rows break it).
ODD = {
    20: ({"column_spacing_mm": 0.1}, "pixel_aspect"),
    21: ({"view_position": "PA", "patient_orientation": "R\\F"}, "orientation_fits_view"),
    22: ({"body_part": "CHEST", "laterality": "L"}, "laterality_fits_body_part"),
    24: ({"series_uid": "s", "laterality": "R"}, "one_laterality_per_series"),
    25: ({"series_uid": "s", "laterality": "L"}, "one_laterality_per_series"),
    26: ({"study_uid": "t", "label": 0}, "one_label_per_study"),
    27: ({"study_uid": "t", "label": 1}, "one_label_per_study"),
    28: ({"perceptual_hash": "0" * 64}, "near_duplicates_within_patients"),
    29: ({"perceptual_hash": "0" * 63 + "1"}, "near_duplicates_within_patients"),
    30: ({"perceptual_hash": "f" * 64}, "near_duplicates_across_patients"),
    32: ({"perceptual_hash": "f" * 63 + "e"}, "near_duplicates_across_patients"),
    34: ({"source_split": "train"}, "one_source_split_per_patient"),
    35: ({"source_split": "test"}, "one_source_split_per_patient"),
}


def test_every_breach_is_found_and_names_its_image(tmp_path):
    _, found = outcomes(tmp_path, BREACHES)
    assert failed(found) == set(BREACHES.values())
    for (i, column, _), (expectation, where) in BREACHES.items():
        named = [o for o in found if not o["passed"] and o["expectation"] == expectation]
        uids = {uid for o in named if o["column"] == where for uid in o["instance_uids"]}
        uid = {1: "2.25.1", 2: "../etc"}.get(i, f"2.25.{i + 1}")
        also = {"2.25.18"} if column == "pixel_sha256" else set()
        assert uids == {uid} | also, (column, uids)
    blank = next(s for s in failures(found) if "blank" in s)
    assert "expect_column_values_to_be_between on intensity_std" in blank
    assert "1 unexpected" in blank
    assert "first 2.25.14" in blank


def test_what_is_odd_is_warned_of_and_stays_in(tmp_path):
    changes = [(i, column, value) for i, (row, _) in ODD.items() for column, value in row.items()]
    manifest, found = outcomes(tmp_path, changes)
    broken = {o["rule"]: o["instance_uids"] for o in found if o["outcome"] == "failed"}
    expected = {}
    for i, (_, rule) in ODD.items():
        expected.setdefault(rule, []).append(f"2.25.{i + 1}")
    assert broken == expected
    assert failures(found) == []
    assert len(failures(found, "warn")) == len(expected)
    assert len(flawless(manifest, found)) == N


def test_what_is_not_there_is_neither_passed_nor_failed(tmp_path):
    _, found = outcomes(tmp_path, [(i, "modality", None) for i in range(N)])
    unasked = {o["rule"] for o in found if o["outcome"] == "nothing to check"}
    assert unasked == {
        "patients_alike",  # an older snapshot did not count these two
        "patients_of_several_issuers",
        "modality",
        "pixel_aspect",
        "orientation_fits_view",
        "laterality_fits_body_part",
        "one_laterality_per_series",
        "one_label_per_study",
        "near_duplicates_across_patients",
        "near_duplicates_within_patients",
        "one_source_split_per_patient",
        "labels_as_before",
        "balance_by_group",
        "distributions_as_before",
    }
    assert {o["passed"] for o in found if o["rule"] in unasked} == {None}
    report = tmp_path / "report"
    report.mkdir()
    write_report(found, N, report)
    assert "<span class=nothing>nothing to check</span>" in (report / "validation.html").read_text()


def test_groups_modalities_labels_and_distributions_are_compared(tmp_path):
    config = ValidationConfig(
        minimum_images=10,
        by_modality={
            "DX": {"rows": {"low": 100, "high": 5000}},
            "CT": {"rows": {"low": 1, "high": 2}},
        },
        severity={"balance_by_group": "stop"},
    )
    # 20 patients a site; the second one has no negatives.
    rows = [row(i) | {"site": "AB"[i // 40], "label": 1 if i >= 40 else i % 2} for i in range(80)]
    rows[1]["source_split"] = "train"  # one patient, one class: too few to say anything
    write_manifest(rows, tmp_path)
    manifest = read_manifest(tmp_path)
    previous = manifest.assign(
        patient_id="q" + manifest["patient_id"],
        label=[1 - label if i < 3 else label for i, label in enumerate(manifest["label"])],
        scanner=["old"] * 80,
    )
    counts = {"found": 82, "read": 80, "set_aside": 2, "reasons": {"label_conflict": 2}}
    counts |= {"patients_alike": 2, "patients_of_several_issuers": 1}
    found = check(manifest, counts, config, tmp_path / "data_docs", previous)
    broken = {(o["rule"], o["column"]): o for o in found if o["outcome"] == "failed"}
    assert broken.keys() == {
        ("label_conflicts", "label_conflicts"),
        ("patients_alike", "patients_alike"),
        ("patients_of_several_issuers", "patients_of_several_issuers"),
        ("by_modality", "rows of DX"),
        ("balance_by_group", "positive_share"),
        ("labels_as_before", "labels_as_before"),
        ("distributions_as_before", "drifted"),
    }
    assert broken["balance_by_group", "positive_share"]["where"] == ["site B"]
    assert broken["labels_as_before", "labels_as_before"]["unexpected"] == 3
    assert broken["distributions_as_before", "drifted"]["where"] == ["scanner"]
    assert [s.split(" on ")[1][:12] for s in failures(found)] == ["rows of DX (", "positive_sha"]
    of_ct = next(o for o in found if o["column"] == "rows of CT")
    assert of_ct["outcome"] == "nothing to check"


def test_a_manifest_of_other_columns_or_types_is_refused(tmp_path):
    rows = [row(i) for i in range(N)]
    write_manifest(rows, tmp_path)
    manifest = read_manifest(tmp_path).drop(columns="site")
    manifest["age_years"] = "old"
    manifest["extra"] = 1
    with pytest.raises(BadInput, match="expect_column_values_to_be_between cannot be put"):
        check(manifest, {"found": N, "read": N, "set_aside": 0}, CONFIG, tmp_path / "docs")
    manifest["age_years"] = 50.0
    found = check(manifest, {"found": N, "read": N, "set_aside": 0}, CONFIG, tmp_path / "data_docs")
    assert next(o for o in found if o["rule"] == "schema")["where"] == ["extra", "site"]


def test_the_table_itself_must_be_large_balanced_and_accounted_for(tmp_path):
    ones = [(i, "label", 1) for i in range(N)]
    config = CONFIG.model_copy(update={"minimum_images": N + 1})
    counts = {"found": N + 20, "read": N + 1, "set_aside": 10}
    _, found = outcomes(tmp_path, ones, config, counts)
    assert failed(found) == {
        ("expect_table_row_count_to_be_between", None),
        ("expect_column_mean_to_be_between", "label"),
        ("expect_column_pair_values_to_be_equal", "read_or_set_aside, found"),
        ("expect_column_pair_values_to_be_equal", "in_manifest, read"),
        ("expect_column_mean_to_be_between", "set_aside_share"),
    }
    assert any("observed 40" in sentence for sentence in failures(found))


def test_tolerated_images_are_left_out_of_what_is_accepted(tmp_path):
    config = CONFIG.model_copy(update={"tolerated_share": 0.05})
    manifest, found = outcomes(tmp_path, [(13, "intensity_std", 0.0)], config)
    assert failed(found) == set()
    left_out = set(manifest["instance_uid"]) - set(flawless(manifest, found)["instance_uid"])
    assert left_out == {"2.25.14"}


def test_images_without_header_fields_pass(tmp_path):
    header = ("sex", "age_years", "modality", "pixel_spacing_mm")
    _, found = outcomes(tmp_path, [(i, column, None) for i in range(N) for column in header])
    assert failed(found) == set()


def test_a_range_upside_down_is_refused():
    with pytest.raises(ValueError, match="low 5"):
        Range(low=5, high=1)


def test_every_rule_and_example_of_the_page_can_be_asked():
    page = (ROOT / "docs" / "validation.md").read_text()
    told = set(re.findall(r"`([a-z_]+)`", page.partition("| rule |")[2].partition("## Own")[0]))
    assert set(SEVERITY) <= told
    severities = re.findall(r"^\| (`.*?) \|.*\| (stop|warn) \|$", page, re.MULTILINE)
    assert {n: s for names, s in severities for n in re.findall("`([a-z_]+)`", names)} == SEVERITY
    for example in re.findall(r"```yaml\n(validation:.*?)```", page, re.DOTALL):
        check_settings(ValidationConfig(**yaml.safe_load(example)["validation"]))
