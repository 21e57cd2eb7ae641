from pathlib import Path

import pandas as pd
import pytest
from manifest_rows import manifest_row

from imaging.manifest import MANIFEST, write_manifest
from imaging.snapshots import integrity
from lineage.digest import file_digest
from lineage.errors import BadInput
from lineage.files import write_json

OTHER = f"{MANIFEST}, or what lies beside it: not what {integrity.ROOT} names"


def snapshot(folder: Path, count: int = 3, **changes: object) -> Path:
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(count):
        image = folder / f"images/{i}.png"
        image.write_bytes(b"image %d" % i)
        rows.append(manifest_row(i, sha256=file_digest(image), **changes))
    write_manifest(rows, folder)
    integrity.write_root(folder)
    return folder


def test_a_whole_snapshot_has_no_fault(tmp_path: Path) -> None:
    assert integrity.faults(snapshot(tmp_path / "s")) == []


@pytest.mark.parametrize("change", [{"label": 1}, {"sex": "F"}, {"age_years": 41.5}])
def test_the_root_names_every_value_of_every_row(tmp_path: Path, change: dict[str, object]) -> None:
    root = integrity.read_root(snapshot(tmp_path / "one"))
    assert root != integrity.read_root(snapshot(tmp_path / "other", **change))
    assert root == integrity.read_root(snapshot(tmp_path / "again"))


def test_what_was_changed_is_named(tmp_path: Path) -> None:
    here = snapshot(tmp_path / "s")
    (here / "images/0.png").write_bytes(b"another")
    (here / "images/1.png").unlink()
    (here / "images/3.png").write_bytes(b"a stranger")
    assert integrity.faults(here) == [
        "images/0.png: changed", "images/1.png: missing", "images/3.png: not in the manifest",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [integrity.COUNTS, integrity.PROOF, integrity.SET_ASIDE])
def test_the_root_names_what_lies_beside_the_rows(tmp_path: Path, name: str) -> None:
    here = snapshot(tmp_path / "s")
    for proof in (integrity.COUNTS, integrity.PROOF):
        write_json(here / proof, {"of": proof})
    aside = pd.DataFrame({"path_digest": ["a"], "reason": ["colour"]})
    aside.to_parquet(here / integrity.SET_ASIDE)
    integrity.write_root(here)
    assert integrity.faults(here) == []
    if name == integrity.SET_ASIDE:
        (here / name).unlink()
    else:
        write_json(here / name, {"of": "another"})
    assert integrity.faults(here) == [OTHER]


def test_a_stranger_beside_the_images_is_noticed(tmp_path: Path) -> None:
    here = snapshot(tmp_path / "s")
    (here / "scan.dcm").write_bytes(b"a stranger")
    assert integrity.faults(here) == ["scan.dcm: not in the manifest"]


def test_another_manifest_is_noticed(tmp_path: Path) -> None:
    here, other = snapshot(tmp_path / "s"), snapshot(tmp_path / "o", label=1)
    (here / MANIFEST).write_bytes((other / MANIFEST).read_bytes())
    assert integrity.faults(here) == [OTHER]


def test_one_without_a_root_says_what_to_do(tmp_path: Path) -> None:
    here = snapshot(tmp_path / "s")
    (here / integrity.ROOT).unlink()
    with pytest.raises(BadInput, match="by running ingest"):
        integrity.faults(here)
