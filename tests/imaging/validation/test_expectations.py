import json
import re

import numpy as np
import pytest
import yaml
from manifest_rows import manifest_row

from imaging.config import Expectation, Range, ValidationConfig
from imaging.manifest import read_manifest, write_manifest
from imaging.validation.expectations import check, check_settings, failures, flawless, write_report
from imaging.validation.rules import SEVERITY
from lineage.code import ROOT
from lineage.digest import tree_digest
from lineage.errors import BadInput

CONFIG = ValidationConfig(minimum_images=10, modalities=("DX",))
N = 40


def row(i):
    rng = np.random.default_rng(i)
    low, middle, high = sorted(rng.uniform(0.1, 0.9, 3))
    return manifest_row(
        i + 1,
        patient_id=f"p{i // 2}",
        label=i % 2,
        sex="FM"[i % 2],
        age_years=20.0 + i,
        modality="DX",
        pixel_spacing_mm=0.2,
        intensity_p01=low,
        intensity_p50=middle,
        intensity_p99=high,
    )


def outcomes(directory, changes=(), config=CONFIG, counts=None, previous=None):
    """Check N good rows, some of them changed: (row number, column, value)."""
    rows = [row(i) for i in range(N)]
    for i, column, value in changes:
        rows[i][column] = value
    write_manifest(rows, directory)
    manifest = read_manifest(directory)
    counts = counts or {"found": N, "read": N, "set_aside": 0}
    return manifest, check(manifest, counts, config, directory / "data_docs", previous)


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
    found = check(manifest, counts, config, tmp_path / "data_docs", previous)
    broken = {(o["rule"], o["column"]): o for o in found if o["outcome"] == "failed"}
    assert broken.keys() == {
        ("label_conflicts", "label_conflicts"),
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


def wanted(**changes):
    adults = {"expectation": "expect_column_values_to_be_between", "column": "age_years"}
    demand = adults | {"min_value": 30, "why": "adults"} | changes
    return CONFIG.model_copy(update={"expectations": (Expectation(**demand),)})


def of_sexes(what, **arguments):
    demand = Expectation(expectation=f"expect_column_values_to_{what}", column="sex", **arguments)
    return CONFIG.model_copy(update={"expectations": (demand,)})


def test_own_expectations_are_asked_with_their_severity(tmp_path):
    config = wanted()
    two = (
        *config.expectations,
        Expectation(**config.expectations[0].model_dump() | {"min_value": 0}),
    )
    manifest, found = outcomes(tmp_path, config=config.model_copy(update={"expectations": two}))
    own = [o for o in found if o["rule"] == "own"]
    assert [o["outcome"] for o in own] == ["failed", "passed"]
    assert own[0]["unexpected"] == 10
    assert "age_years (adults): 10 unexpected, min_value=30" in failures(found)[0]
    assert len(flawless(manifest, found)) == N - 10
    assert failures(outcomes(tmp_path, config=wanted(severity="warn"))[1]) == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            wanted(expectation="expect_column_value_to_be_between"),
            r"expectations.0.expectation: .*did you mean 'expect_column_values_to_be_between'",
        ),
        (
            wanted(column="age"),
            "expectations.0.column: .*no column 'age'; did you mean 'age_years'",
        ),
        (wanted(minvalue=3), "expectations.0.minvalue: .*did you mean 'min_value'"),
        (wanted(min_value="many"), "expectations.0.min_value: expected a number or a date$"),
        (wanted(mostly="all"), "expectations.0.mostly: expected a number$"),
        (wanted(mostly=1.5), "expectations.0.mostly: must be less than or equal to 1.0$"),
        (wanted(min_value=None), "expectations.0: min_value and max_value cannot both be None$"),
        (wanted(column=5), "expectations.0.column: the manifest has no column 5"),
        (of_sexes("match_regex", regex="(["), "expectations.0.regex: no regular expression"),
        (of_sexes("match_regex", regex=["a"]), "expectations.0.regex: expected text$"),
        (of_sexes("be_in_set"), "expectations.0.value_set is missing; add it$"),
        (wanted(expectation="expect_column_values_to_be_unique"), "expectations.0.min_value"),
        (
            wanted(expectation="expect_query_results_to_match_comparison"),
            "expectations.0.expectation: .* table",
        ),
        (
            CONFIG.model_copy(update={"severity": {"blank_image": "warn"}}),
            "severity.blank_image: .*did you mean 'blank_images'",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_way_out(config, words):
    with pytest.raises(BadInput, match=f"validation.{words}"):
        check_settings(config)
    check_settings(wanted())


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


def test_the_report_loads_nothing_and_is_the_same_each_time(tmp_path):
    reports = []
    for name in ("one", "two"):
        report = tmp_path / name
        report.mkdir()
        _, found = outcomes(report, [(13, "intensity_std", 0.0)])
        write_report(found, N, report)
        reports.append(report)
    assert tree_digest(reports[0]) == tree_digest(reports[1])

    pages = list(reports[0].rglob("*.html"))
    assert len(pages) == 8  # ours, their index, and two for each table that has rows
    fetched = re.compile(
        r"<(?:script|link|img|iframe|form)\b[^>]*(?:src|href|action)=[\"']?https?:"
    )
    for page in pages:
        assert not fetched.search(page.read_text()), page
        for link in re.findall(r"href=[\"']?([^\"'> #?]+)", page.read_text()):
            assert (page.parent / link).is_file(), (page, link)
    ours = (reports[0] / "validation.html").read_text()
    assert "Validation failed" in ours
    assert "<code>2.25.14</code>" in ours
    facts = json.loads((reports[0] / "validation.json").read_text())
    assert facts["passed"] is False
    assert facts["images"] == N


def test_no_value_of_the_table_is_run_by_a_browser(tmp_path):
    markup = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    report = tmp_path / "report"
    report.mkdir()
    _, found = outcomes(report, [(3, "sex", markup), (4, "instance_uid", markup)])
    write_report(found, N, report)
    theirs = list((report / "data_docs").rglob("validations/**/*.html"))
    assert len(theirs) == 3
    for page in theirs:
        text = page.read_text()
        assert "<script" not in text
        policy = text.index("Content-Security-Policy\" content=\"default-src 'none'; style-src")
        assert policy < text.find("onerror") or "onerror" not in text
    ours = (report / "validation.html").read_text()
    assert "&lt;script&gt;alert(1)" in ours
    assert "<script" not in ours


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
