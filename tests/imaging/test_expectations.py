import json
import re

import numpy as np
import pytest
from manifest_rows import manifest_row

from imaging.config import Range, ValidationConfig
from imaging.expectations import check, failures, flawless, write_report
from imaging.manifest import read_manifest, write_manifest
from lineage.digest import tree_digest

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


def outcomes(directory, changes=(), config=CONFIG, counts=None):
    """Check N good rows, some of them changed: (row number, column, value)."""
    rows = [row(i) for i in range(N)]
    for i, column, value in changes:
        rows[i][column] = value
    write_manifest(rows, directory)
    manifest = read_manifest(directory)
    counts = counts or {"found": N, "read": N, "set_aside": 0}
    return manifest, check(manifest, counts, config, directory / "data_docs")


def failed(found):
    return {(o["expectation"], o["column"]) for o in found if not o["passed"]}


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
}


def test_every_breach_is_found_and_names_its_image(tmp_path):
    _, found = outcomes(tmp_path, BREACHES)
    assert failed(found) == set(BREACHES.values())
    for (i, column, _), (expectation, where) in BREACHES.items():
        named = [o for o in found if not o["passed"] and o["expectation"] == expectation]
        uids = {uid for o in named if o["column"] == where for uid in o["instance_uids"]}
        uid = {1: "2.25.1", 2: "../etc"}.get(i, f"2.25.{i + 1}")
        assert uids == {uid}, (column, uids)
    blank = next(s for s in failures(found) if "blank" in s)
    assert "expect_column_values_to_be_between on intensity_std" in blank
    assert "1 unexpected" in blank
    assert "first 2.25.14" in blank


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
    assert len(pages) == 6  # ours, their index, and two for each suite
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
    assert len(theirs) == 2
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
