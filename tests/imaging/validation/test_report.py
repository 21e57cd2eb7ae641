import json
import re

from checked_rows import N, outcomes

from imaging.validation.report import write_report
from lineage.digest import tree_digest


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
        assert "2000-01-01" not in page.read_text()  # when nothing was run
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
