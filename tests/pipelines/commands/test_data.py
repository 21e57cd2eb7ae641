"""Snapshots at the command line: which is meant, what differs, what is no longer whole."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from manifest_rows import manifest_row

from imaging.manifest import write_manifest
from imaging.snapshots import history, integrity
from lineage.digest import file_digest, tree_digest
from lineage.errors import BadInput
from lineage.workspace import Workspace
from pipelines.backends.store import Store
from pipelines.commands.data import data
from pipelines.runs import Run, RunFolder, StepState


def taken(home: Workspace, day: int, rows: list[dict[str, Any]]) -> str:
    """A snapshot in the store, and the record of the run that took it; its digest."""
    draft = home.home / "draft"
    (draft / "images").mkdir(parents=True)
    for row in rows:
        image = draft / row["path"]
        image.write_bytes(row["path"].encode())
        row["sha256"] = file_digest(image)
    write_manifest(rows, draft)
    counts = {"read": len(rows), "patients": len(rows), "set_aside": 1}
    (draft / "counts.json").write_text(json.dumps(counts))
    integrity.write_root(draft)
    content = tree_digest(draft)
    place = Store(home.store).path(content)
    place.parent.mkdir(parents=True, exist_ok=True)
    draft.rename(place)
    began = f"2026-01-{day:02}T10:00:00.000+00:00"
    step = StepState("ingest", "ran", outputs={"snapshot": content})
    run = Run(f"202601{day:02}-100000-abcd", "life", "a.yaml", "", 1, began, [step])
    run.outcome = "done"
    folder = RunFolder(home.runs / run.id)
    folder.begin(run)
    folder.end(run)
    return content


def told(*words: str) -> str:
    result = CliRunner().invoke(data, words, standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.output


@pytest.fixture
def two(home: Workspace) -> tuple[str, str]:
    first = [manifest_row(i, sex="F") for i in range(4)]
    second = [manifest_row(i, sex="F", label=1) for i in range(1, 5)]
    return taken(home, 1, first), taken(home, 2, second)


def test_they_are_listed_newest_first(two: tuple[str, str]) -> None:
    rows = json.loads(told("list", "--json"))
    assert [row["digest"] for row in rows] == [two[1], two[0]]
    assert rows[0]["runs"] == ["20260102-100000-abcd"]
    assert two[1][:12] in told("list").splitlines()[1]


def test_a_snapshot_is_found_by_any_of_its_names(two: tuple[str, str], home: Workspace) -> None:
    old = Store(home.store).path(two[0])
    root = integrity.read_root(old)
    assert root is not None
    for name in ("previous", two[0][:8], root[:8], "20260101", str(old)):
        assert json.loads(told("show", name, "--json"))["path"] == str(old)
    with pytest.raises(BadInput, match="2 snapshots begin with '2026'"):
        told("show", "2026")
    with pytest.raises(BadInput, match="no snapshot is called 'x'; `lightbox data list`"):
        told("show", "x")


def test_without_a_snapshot_nothing_is_latest(home: Workspace) -> None:
    assert told("list") == "no snapshots yet; `lightbox run CONFIG` takes one\n"
    for words in (("show",), ("verify",), ("diff", "previous"), ("show", "2026")):
        with pytest.raises(BadInput, match="no snapshots yet; `lightbox run CONFIG` takes one"):
            told(*words)


def test_what_changed_is_told(two: tuple[str, str]) -> None:
    lines = told("diff", "previous").splitlines()
    assert lines[1].split() == ["images", "4", "4", "1", "1"]
    assert "relabelled: 1 from negative to positive, 0 the other way" in lines
    assert any(line.split()[:2] == ["label", "0.50"] for line in lines)
    assert told("diff", "latest", "latest") == "nothing differs: the Merkle roots are equal\n"
    assert json.loads(told("diff", "previous", "--json"))["relabelled"] == [["2.25.2", 0, 1]]


def test_long_names_leave_room_for_what_they_are_of(home: Workspace) -> None:
    for day in (1, 2):
        names = [f"{maker} Imaging and Devices Clarus 3, Room {day}" for maker in "ABC"]
        taken(home, day, [manifest_row(i, scanner=name) for i, name in enumerate(names)])
    lines = told("diff", "previous").splitlines()
    assert any(line.split()[:2] == ["column", "distance"] for line in lines)
    assert any(line.split()[:2] == ["scanner", "1.00"] for line in lines)


def test_a_changed_file_is_a_fault(two: tuple[str, str], home: Workspace) -> None:
    assert told("verify").startswith("whole: root ")
    (Store(home.store).path(two[1]) / "images/1.png").write_bytes(b"another")
    result = CliRunner().invoke(data, ["verify"], standalone_mode=False)
    assert result.return_value == 1
    assert result.stdout.splitlines() == ["images/1.png: changed", "1 faults"]


def test_what_was_known_then(home: Workspace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no history yet"):
        told("as-of", "2026-01-01")
    folder, ledger = tmp_path / "s", home.ledgers / "history"
    folder.mkdir()
    for day, label in ((1, 0), (3, 1)):
        write_manifest([manifest_row(1, label=label)], folder)
        at = datetime(2026, 1, day, 12, tzinfo=UTC)
        history.remember(folder, ledger, "a.model", at)
    out = tmp_path / "then.parquet"
    assert "1 images of 1 patients, 0 positive" in told("as-of", "2026-01-01", "-o", str(out))
    assert pd.read_parquet(out)["label"].tolist() == [0]
    assert json.loads(told("as-of", "2026-01-03", "--json"))["positive"] == 1
    assert json.loads(told("as-of", "2026-01-03T13:00+02:00", "--json"))["positive"] == 0
    begins = r"nothing was known yet: the history of 'a.model' begins at 2026-01-01T12:00\+0000"
    with pytest.raises(BadInput, match=begins):
        told("as-of", "2025-12-31")
    with pytest.raises(BadInput, match="'soon' is no time"):
        told("as-of", "soon")
    with pytest.raises(BadInput, match="cannot be written"):
        told("as-of", "2026-01-01", "-o", str(tmp_path / "nowhere" / "x.parquet"))
