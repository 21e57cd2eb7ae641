import json
from datetime import date

import pandas as pd
import pytest
from manifest_rows import manifest_row

from components.split import split
from imaging.config import Fractions, SplittingConfig
from imaging.manifest import write_manifest
from imaging.splits import read_splits
from lineage.digest import tree_digest
from lineage.errors import BadInput, StepFailed

CONFIG = SplittingConfig(minimum_patients=5)


def given(directory, patients, label=None):
    snapshot, accepted = directory / "snapshot", directory / "accepted"
    for path in (snapshot, accepted):
        path.mkdir(parents=True)
    rows = [
        manifest_row(
            i,
            patient_id=f"p{i // 2}",
            label=i % 2 if label is None else label,
            sex="F" if i % 3 else None,
        )
        for i in range(2 * patients)
    ]
    write_manifest(rows, snapshot)
    uids = pd.DataFrame({"instance_uid": [row["instance_uid"] for row in rows]})
    uids.iloc[:-1].to_parquet(accepted / "accepted.parquet")  # all but one
    return {"snapshot": snapshot, "accepted": accepted}


def run(tmp_path, name, config=CONFIG, **data):
    splits = tmp_path / name
    splits.mkdir()
    split(config, **given(tmp_path / f"{name}-in", **data), splits=splits)
    return splits


def sides(splits):
    rows = read_splits(splits)
    return dict(zip(rows["patient_id"], rows["split"], strict=True))


@pytest.fixture
def home(home):
    (home.home / "secrets").mkdir(parents=True)
    (home.home / "secrets" / "split.key").write_text("11" * 32)  # so that chance is pinned
    return home


def test_patients_are_parted_counted_and_remembered(home, tmp_path):
    splits = run(tmp_path, "splits", patients=100)
    rows = read_splits(splits)
    assert len(rows) == 199
    assert rows.groupby("patient_id")["split"].nunique().eq(1).all()
    counts = json.loads((splits / "splits.json").read_text())
    assert sum(side["patients"] for side in counts["sides"].values()) == 100
    ledger = (home.ledgers / "splits-patients.jsonl").read_text().splitlines()
    assert {r["patient_id"]: r["split"] for r in map(json.loads, ledger)} == sides(splits)


def test_again_is_the_same_and_growth_moves_nobody(home, tmp_path):
    first, again = run(tmp_path, "first", patients=80), run(tmp_path, "again", patients=80)
    assert tree_digest(first) == tree_digest(again)
    grown = sides(run(tmp_path, "grown", patients=160))
    assert {p: grown[p] for p in sides(first)} == sides(first)


def test_other_fractions_leave_the_tested_where_they_are(home, tmp_path):
    first = sides(run(tmp_path, "first", patients=80))
    few_tested = Fractions(train=0.9, validation=0.05, test=0.05)
    later = run(tmp_path, "later", CONFIG.model_copy(update={"fractions": few_tested}), patients=80)
    assert sides(later) == first
    assert json.loads((later / "splits.json").read_text())["patients_kept_by_ledger"] > 0


def test_a_refused_split_commits_nobody(home, tmp_path):
    greedy = Fractions(train=0.98, validation=0.01, test=0.01)
    with pytest.raises(StepFailed, match="at least 5 patients"):
        run(tmp_path, "few", CONFIG.model_copy(update={"fractions": greedy}), patients=80)
    assert json.loads((tmp_path / "few" / "splits.json").read_text())["sides"]["train"]
    assert (home.ledgers / "splits-patients.jsonl").read_text() == ""
    with pytest.raises(StepFailed, match=r"test has .* 0 of them positive"):
        run(tmp_path, "one-class", patients=80, label=0)
    other = run(tmp_path, "usable", patients=80)
    assert json.loads((other / "splits.json").read_text())["patients_kept_by_ledger"] == 0


def test_time_needs_dates_that_were_not_moved(home, tmp_path):
    config = SplittingConfig(by="time", test_from=date(2022, 1, 1))
    data = given(tmp_path / "in", patients=100)
    proof = data["snapshot"] / "deidentification.json"
    proof.write_text(json.dumps({"options": {"113107": "modified"}}))
    (tmp_path / "splits").mkdir()
    with pytest.raises(BadInput, match="dates were moved"):
        split(config, **data, splits=tmp_path / "splits")
    assert not (tmp_path / "splits" / "splits.json").exists()
