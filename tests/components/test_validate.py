import json

import pandas as pd
import pytest
from manifest_rows import manifest_row

from components.validate import check_settings, validate
from imaging.config import Shortcuts, ValidationConfig
from imaging.manifest import write_manifest
from lineage.digest import tree_digest
from lineage.errors import BadInput, StepFailed

CONFIG = ValidationConfig(minimum_images=4)


def snapshot(directory, blank=(), n=8, **changes):
    rows = [
        manifest_row(
            i, intensity_std=0.0 if i in blank else 0.3, **{k: of(i) for k, of in changes.items()}
        )
        for i in range(1, n + 1)
    ]
    directory.mkdir(exist_ok=True)
    write_manifest(rows, directory)
    (directory / "counts.json").write_text(json.dumps({"found": n, "read": n, "set_aside": 0}))
    return directory


def folders(tmp_path):
    paths = {name: tmp_path / name for name in ("accepted", "report", "previous")}
    for path in paths.values():
        path.mkdir()
    return paths


def test_a_good_snapshot_is_accepted(tmp_path):
    out = folders(tmp_path)
    said = validate(CONFIG, snapshot=snapshot(tmp_path / "snapshot"), **out)
    assert said.warnings == "none"
    accepted = pd.read_parquet(out["accepted"] / "accepted.parquet")
    assert accepted["instance_uid"].tolist() == [f"2.25.{i}" for i in range(1, 9)]
    assert list(accepted.columns) == ["instance_uid"]
    assert json.loads((out["report"] / "validation.json").read_text())["passed"] is True


def test_a_refusal_names_the_image_and_leaves_a_whole_report(tmp_path):
    out = folders(tmp_path)
    with pytest.raises(StepFailed) as refusal:
        validate(CONFIG, snapshot=snapshot(tmp_path / "snapshot", blank={3, 5}), **out)
    sentence = str(refusal.value)
    assert "expect_column_values_to_be_between on intensity_std" in sentence
    assert "2 unexpected" in sentence
    assert "2.25.3, 2.25.5" in sentence
    assert "2.25.5" in (out["report"] / "validation.html").read_text()
    assert (out["report"] / "data_docs" / "index.html").is_file()
    assert not list(out["accepted"].iterdir())


def telling(i):
    return f"maker of {i % 2}"  # as the label is


def test_a_strong_shortcut_is_warned_of_by_name(tmp_path):
    out = folders(tmp_path)
    given = snapshot(tmp_path / "snapshot", n=120, manufacturer=telling, site=lambda i: f"{i % 3}")
    said = validate(CONFIG, snapshot=given, **out)
    assert said.warnings.startswith("2: ")
    assert "manufacturer: alone tells the classes apart" in said.warnings
    facts = json.loads((out["report"] / "validation.json").read_text())
    strong = {s["field"]: s["strong"] for s in facts["shortcuts"]}
    assert strong == {"manufacturer": True, "all of these together": True, "site": False}
    assert facts["passed"] is True
    assert len(facts["warnings"]) == 2
    page = (out["report"] / "validation.html").read_text()
    assert "<span class=warning>strong</span>" in page
    assert "Validation passed, with 2 warnings" in page
    assert len(pd.read_parquet(out["accepted"] / "accepted.parquet")) == 120


def test_policy_says_stop_or_that_a_field_may_predict(tmp_path):
    given = snapshot(tmp_path / "snapshot", n=120, manufacturer=telling)
    stopping = CONFIG.model_copy(update={"shortcuts": Shortcuts(action="stop")})
    out = folders(tmp_path)
    with pytest.raises(StepFailed, match=r"manufacturer: alone .*validation.shortcuts.exempt"):
        validate(stopping, snapshot=given, **out)
    assert json.loads((out["report"] / "validation.json").read_text())["passed"] is False
    (tmp_path / "again").mkdir()
    exempt = Shortcuts(action="stop", exempt=("manufacturer",))
    said = validate(
        CONFIG.model_copy(update={"shortcuts": exempt}),
        snapshot=given,
        **folders(tmp_path / "again"),
    )
    assert said.warnings == "none"


def test_new_patients_are_compared_with_the_champions(tmp_path):
    out = folders(tmp_path)
    snapshot(out["previous"], n=60, scanner=lambda i: "A")
    grown = snapshot(tmp_path / "snapshot", n=120, scanner=lambda i: "A" if i <= 60 else "B")
    said = validate(CONFIG, snapshot=grown, **out)
    assert "1 unexpected, value_set=[False], first scanner" in said.warnings
    changes = json.loads((out["report"] / "validation.json").read_text())["changes"]
    assert changes[0]["column"] == "scanner"
    assert (changes[0]["patients_before"], changes[0]["patients_now"]) == (60, 60)
    assert "Since the champion" in (out["report"] / "validation.html").read_text()


def test_settings_are_checked_before_anything_runs():
    check_settings(CONFIG)
    assert validate.check is check_settings
    for shortcuts in (Shortcuts(fields=("scaner",)), Shortcuts(exempt=("scaner",))):
        with pytest.raises(BadInput, match="no field 'scaner' to look at; did you mean 'scanner'"):
            check_settings(CONFIG.model_copy(update={"shortcuts": shortcuts}))


def test_the_champion_s_own_data_are_no_earlier_ones(tmp_path):
    """After a promotion an engine may run this step again: it must come to the same."""
    here = snapshot(tmp_path / "snapshot")
    reports = []
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        out = folders(tmp_path / name)
        if name == "again":
            out["previous"] = here
        validate(CONFIG, snapshot=here, **out)
        reports.append(tree_digest(out["report"]))
    assert reports[0] == reports[1]
