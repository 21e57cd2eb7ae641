from pathlib import Path
from typing import Any

from manifest_rows import manifest_row

from imaging.manifest import write_manifest
from imaging.snapshots import differences
from imaging.snapshots.integrity import write_root


def snapshot(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    write_manifest(rows, folder)
    write_root(folder)
    return folder


def test_rows_labels_and_columns(tmp_path: Path) -> None:
    before = [manifest_row(i, sex="F", age_years=40.0) for i in range(6)]
    after = [dict(row) for row in before[1:]] + [manifest_row(9), manifest_row(10, patient_id="p1")]
    after[0] |= {"label": 0, "sex": None, "source_order_decile": 5}  # image 1
    after[1] |= {"label": 1}  # image 2
    found = differences.compare(snapshot(tmp_path / "a", before), snapshot(tmp_path / "b", after))
    assert found.images == differences.Count(before=6, after=7, added=2, removed=1)
    assert found.patients == differences.Count(before=6, after=6, added=1, removed=1)
    assert (found.added, found.removed) == (("2.25.10", "2.25.9"), ("2.25.0",))
    assert found.relabelled == (("2.25.1", 1, 0), ("2.25.2", 0, 1))
    assert found.changed == {"label": 2, "sex": 1}


def test_equal_snapshots_have_equal_roots_and_no_differences(tmp_path: Path) -> None:
    rows = [manifest_row(i) for i in range(4)]
    found = differences.compare(snapshot(tmp_path / "a", rows), snapshot(tmp_path / "b", rows))
    assert found.roots[0] == found.roots[1] is not None
    assert not found.changed and not found.relabelled and not found.added and not found.removed
    assert {d.distance for d in found.distributions} == {0.0}  # columns without values, too


def test_distances_are_kolmogorovs_and_total_variation(tmp_path: Path) -> None:
    before = [manifest_row(i, site="A" if i < 3 else "B", age_years=float(i)) for i in range(4)]
    after = [manifest_row(i, site="B", age_years=float(i + 2)) for i in range(4)]
    found = differences.compare(snapshot(tmp_path / "a", before), snapshot(tmp_path / "b", after))
    told = {d.column: d for d in found.distributions}
    assert told["site"].distance == 0.75
    assert told["site"].before == {"n": 4, "missing": 0, "values": {"A": 3, "B": 1}}
    assert told["age_years"].distance == 0.5
    assert told["age_years"].after["median"] == 3.5
    assert told["sex"].distance == 0.0 and told["sex"].before["missing"] == 4
    assert found.distributions[0].column == "site"


def test_a_column_that_one_side_alone_has_comes_first(tmp_path: Path) -> None:
    before = [manifest_row(i, sex="F", age_years=float(i)) for i in range(4)]
    after = [manifest_row(i, age_years=float(i + 1)) for i in range(4)]
    found = differences.compare(snapshot(tmp_path / "a", before), snapshot(tmp_path / "b", after))
    assert [(d.column, d.distance) for d in found.distributions[:2]] == [
        ("sex", None),
        ("age_years", 0.25),
    ]
