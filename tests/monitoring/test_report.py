import json
import re

import numpy as np
import pandas as pd
import pytest

from imaging.manifest import STATISTICS
from monitoring.alarms import judge
from monitoring.config import MonitoringConfig
from monitoring.drift import comparable, differences
from monitoring.report import write_facts, write_page

CONFIG = MonitoringConfig()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    rng = np.random.default_rng(0)
    old = pd.DataFrame({name: rng.normal(size=200) for name in STATISTICS})
    new = pd.DataFrame({name: rng.normal(size=80) for name in STATISTICS})
    new["sharpness"] += 2
    columns, one_sided = comparable(
        old.assign(manufacturer="A", score=np.nan, scanner="S").assign(
            score=[*rng.random(50), *[np.nan] * 150]
        ),
        new.assign(
            manufacturer=["A", "</script><script>alert(1)</script>"] * 40,
            score=rng.random(80),
            scanner=None,
        ),
    )
    found = differences(columns)
    verdict = judge(found, 80, CONFIG)
    report = tmp_path_factory.mktemp("report")
    write_facts(
        verdict,
        model_digest="m1",
        n_current=80,
        passed_over={"error": 3},
        not_compared=one_sided,
        config=CONFIG,
        report=report,
    )
    write_page(verdict, columns, CONFIG, report)
    return report, found


def test_the_numbers_are_on_disk(written):
    report, found = written
    facts = json.loads((report / "drift.json").read_text())
    assert facts["verdict"] == "drift"
    assert facts["sentence"].startswith("drift: 2 of 11 columns drifted over 80 requests")
    assert {name for name, c in facts["columns"].items() if c["drifted"]} == {
        "sharpness",
        "manufacturer",
    }
    assert facts["not_compared"] == ["scanner"]
    assert facts["columns"]["score"]["n_reference"] == 50
    assert set(facts["columns"]) == {d.column for d in found}
    for column in facts["columns"].values():
        assert column["adjusted_p_value"] >= column["p_value"]


def test_the_page_shows_evidentlys_own_report_of_the_same_tests(written):
    report, found = written
    page = (report / "drift.html").read_text()
    assert "<h1>Drift</h1><p>drift: 2 of 11 columns drifted" in page
    assert page.count("<!DOCTYPE html>") == 1
    for d in found:  # Evidently's widget of each column, its score rounded to three digits
        match = re.search(
            rf"Drift in column '{d.column}'\".{{0,120}}Drift score: ([0-9.e-]+)", page
        )
        assert match, d.column
        assert float(match[1]) == pytest.approx(d.p_value, abs=5.1e-4), d.column


def test_what_a_header_says_never_becomes_markup(written):
    page = (written[0] / "drift.html").read_text()
    assert "alert(1)" in page
    assert "<script>alert(1)" not in page


def test_the_page_loads_nothing_from_elsewhere(written):
    page = (written[0] / "drift.html").read_text()
    tags = r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//"
    assert not re.search(tags, page)
    assert not re.search(r"url\([\"']?(?:https?:)?//", page)
    assert '<head><meta http-equiv="Content-Security-Policy" content="default-src \'none\'' in page
    assert not re.search(r"@import\s*(?:url\()?[\"'](?:https?:)?//", page)


def test_without_a_verdict_the_page_says_why(tmp_path):
    verdict = judge([], 3, CONFIG)
    write_page(verdict, [], CONFIG, tmp_path)
    page = (tmp_path / "drift.html").read_text()
    assert "insufficient: 3 requests count, 50 are needed" in page
    assert len(page) < 1000
