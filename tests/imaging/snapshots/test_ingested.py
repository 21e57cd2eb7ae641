"""What was found out once is not found out again; and what is not so any more is."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imaging.config import IngestionConfig
from imaging.labelling.labels import Label
from imaging.manifest import read_manifest
from imaging.snapshots import decisions, examine, examined, ingested, snapshot
from imaging.snapshots.snapshot import take_snapshot
from lineage.digest import tree_digest

KEY = b"k" * 32
CONFIG = IngestionConfig.model_validate(
    {"labels": {"key": "file", "key_column": "f", "column": "c", "classes": ["no", "yes"]}}
)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that workers were given; they work in this process, so that rules can be broken."""
    given: list[str] = []

    def here(_: str, setup: Any, items: list[str], **__: Any) -> Iterator[Any]:
        given.extend(items)
        return enumerate(map(examine.examiner(setup), items))

    monkeypatch.setattr(examined, "each_isolated", here)
    monkeypatch.setattr(ingested, "AT_REST_NS", 0)  # the tests do not wait
    return given


@pytest.fixture
def scans(tmp_path: Path, dicom_bytes: Callable[..., bytes]) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.dcm").write_bytes(scan(dicom_bytes, i))
    (folder / "note").write_text("dear diary")
    return folder


def scan(dicom_bytes: Callable[..., bytes], number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 4096, (8, 6), np.uint16)
    uid = f"1.2.826.0.1.3680043.9.8.{number}"
    return dicom_bytes(pixels, SOPInstanceUID=uid, PatientID=f"MRN-{1000 + number}")


def take(scans: Path, out: Path, cache: Path | None, config: IngestionConfig = CONFIG) -> Path:
    out.mkdir()
    labels = {p.relative_to(scans).as_posix(): Label(1) for p in scans.rglob("*")}
    take_snapshot(config, scans, labels, out, KEY, cache=cache)
    return out


def test_of_a_grown_folder_only_what_is_new_is_opened(
    opened: list[str], scans: Path, tmp_path: Path, dicom_bytes: Callable[..., bytes]
) -> None:
    take(scans, tmp_path / "a", tmp_path / "cache")
    assert len(opened) == 5
    opened.clear()
    (scans / "new.dcm").write_bytes(scan(dicom_bytes, 9))
    take(scans, tmp_path / "b", tmp_path / "cache")
    assert opened == ["new.dcm"]
    # And it is the same snapshot that one without a memory makes.
    assert tree_digest(tmp_path / "b") == tree_digest(take(scans, tmp_path / "c", None))
    assert len(read_manifest(tmp_path / "b")) == 5


def test_what_two_snapshots_share_lies_on_the_disk_once(
    opened: list[str], scans: Path, tmp_path: Path
) -> None:
    first, second = (take(scans, tmp_path / name, tmp_path / "cache") for name in "ab")
    for path in read_manifest(first)["path"]:
        assert (first / path).samefile(second / path)


def test_the_same_bytes_by_another_name_are_not_cleaned_again(
    opened: list[str], scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = take(scans, tmp_path / "a", tmp_path / "cache")
    cleaned: list[int] = []
    clean = examine._examine_dicom
    monkeypatch.setattr(examine, "_examine_dicom", lambda *a: (cleaned.append(1), clean(*a)))
    for path in list(scans.glob("*.dcm")):
        (scans / f"copy of {path.name}").write_bytes(path.read_bytes())
        path.unlink()
    second = take(scans, tmp_path / "b", tmp_path / "cache")
    assert not cleaned
    same = ["instance_uid", "sha256", "pixel_sha256"]
    assert read_manifest(first)[same].equals(read_manifest(second)[same])


def test_a_file_that_was_changed_is_examined_anew(
    opened: list[str], scans: Path, tmp_path: Path, dicom_bytes: Callable[..., bytes]
) -> None:
    take(scans, tmp_path / "a", tmp_path / "cache")
    opened.clear()
    was = (scans / "2.dcm").stat()
    (scans / "2.dcm").write_bytes(scan(dicom_bytes, 7))  # of the same size
    os.utime(scans / "2.dcm", ns=(was.st_atime_ns, was.st_mtime_ns))  # and as old
    second = take(scans, tmp_path / "b", tmp_path / "cache")
    assert opened == ["2.dcm"]
    assert tree_digest(second) == tree_digest(take(scans, tmp_path / "c", None))


def test_a_file_that_was_just_written_is_not_known_by_its_look(
    opened: list[str], scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingested, "AT_REST_NS", 3600 * 10**9)
    take(scans, tmp_path / "a", tmp_path / "cache")
    take(scans, tmp_path / "b", tmp_path / "cache")
    assert len(opened) == 10


@pytest.mark.parametrize("harm", ["change", "remove"])
def test_a_cleaned_file_that_is_not_as_it_was_written_is_never_used(
    opened: list[str], scans: Path, tmp_path: Path, harm: str
) -> None:
    first = take(scans, tmp_path / "a", tmp_path / "cache")
    right = tree_digest(first)
    (victim, *_) = (tmp_path / "cache").glob("*/cleaned/*/*")
    if harm == "change":
        data = bytearray(victim.read_bytes())
        data[-1] ^= 1
        victim.write_bytes(data)  # in the first snapshot, too: it is the same file
    else:
        victim.unlink()
    opened.clear()
    assert tree_digest(take(scans, tmp_path / "b", tmp_path / "cache")) == right
    assert len(opened) == 1


def test_another_policy_or_key_shares_nothing(
    opened: list[str], scans: Path, tmp_path: Path
) -> None:
    take(scans, tmp_path / "a", tmp_path / "cache")
    removed = CONFIG.model_copy(
        update={"deidentification": CONFIG.deidentification.model_copy(update={"dates": "removed"})}
    )
    opened.clear()
    take(scans, tmp_path / "b", tmp_path / "cache", removed)
    assert len(opened) == 5
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_nothing_in_it_says_who_anybody_is(opened: list[str], scans: Path, tmp_path: Path) -> None:
    take(scans, tmp_path / "a", tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in [folder, *folder.rglob("*")]:
        data = path.read_bytes() if path.is_file() else b""
        for secret in (b"Quernstein", b"MRN-100", b"3680043.9.8", b"20190305", b"scans"):
            assert secret not in data + path.name.encode()


def test_a_broken_memory_is_begun_anew(opened: list[str], scans: Path, tmp_path: Path) -> None:
    first = take(scans, tmp_path / "a", tmp_path / "cache")
    (database,) = (tmp_path / "cache").glob("*/facts.sqlite")
    database.write_bytes(b"not a database, whatever it is called" * 100)
    assert tree_digest(take(scans, tmp_path / "b", tmp_path / "cache")) == tree_digest(first)


def test_a_draft_goes_once_nobody_is_at_work(tmp_path: Path) -> None:
    store = ingested.Ingested(tmp_path)
    draft = tmp_path / "drafts" / "of one"
    draft.write_text("of a worker of ours")
    other = ingested.Ingested(tmp_path)  # of another container that has the folder mounted
    other.close()
    assert draft.exists()
    store.close()  # as a kill does
    ingested.Ingested(tmp_path).close()
    assert not draft.exists()


def test_chance_is_given_another_chance(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingested, "AT_REST_NS", 0)
    monkeypatch.setattr(
        examined,
        "each_isolated",
        lambda _, __, items, **___: enumerate({"reason": "decoder_aborted"} for _ in items),
    )
    take(scans, tmp_path / "a", tmp_path / "cache")
    monkeypatch.undo()
    assert len(read_manifest(take(scans, tmp_path / "b", tmp_path / "cache"))) == 4


def test_another_process_may_write_at_any_time(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another_writes() -> None:
        (path,) = (tmp_path / "cache").glob("*/facts.sqlite")
        with closing(sqlite3.connect(path, timeout=0)) as database:
            database.execute("BEGIN IMMEDIATE")

    def here(_: str, setup: Any, items: list[str], **__: Any) -> Iterator[Any]:
        for place, item in enumerate(items):
            yield place, examine.examiner(setup)(item)
            another_writes()

    def decide(*args: Any) -> None:  # what lasts minutes for 100,000 images comes behind this
        another_writes()
        decisions.decide(*args)

    monkeypatch.setattr(examined, "each_isolated", here)
    monkeypatch.setattr(snapshot, "decide", decide)
    assert len(read_manifest(take(scans, tmp_path / "a", tmp_path / "cache"))) == 4


@pytest.mark.parametrize(("error", "left"), [(ValueError, 0), (KeyboardInterrupt, 1)])
def test_without_a_cache_only_an_interrupted_one_leaves_something(
    tmp_path: Path, error: type[BaseException], left: int
) -> None:
    with ingested.ingested(None, "f" * 64, tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())
    with pytest.raises(error), ingested.ingested(None, "f" * 64, tmp_path):
        raise error
    assert len(list(tmp_path.iterdir())) == left


TAKE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_ingested import CONFIG, KEY, take
take(*map(Path, sys.argv[1:4]))
"""


def test_a_kill_loses_what_was_in_flight_and_nothing_else(
    scans: Path, tmp_path: Path, dicom_bytes: Callable[..., bytes]
) -> None:
    for i in range(10, 310):
        (scans / f"{i}.dcm").write_bytes(scan(dicom_bytes, i))
    cache = tmp_path / "cache"
    words = [str(scans), str(tmp_path / "a"), str(cache), str(Path(__file__).parent)]
    with subprocess.Popen([sys.executable, "-c", TAKE, *words], start_new_session=True) as process:
        deadline = time.monotonic() + 120
        while rows(cache) < 50 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    done = rows(cache)
    assert 50 <= done < 305
    cleaned = {p: p.stat().st_mtime_ns for p in cache.glob("*/cleaned/*/*")}
    second = take(scans, tmp_path / "b", cache)
    again = [p for p, written in cleaned.items() if p.stat().st_mtime_ns != written]
    assert len(again) <= len(cleaned) - (done - 1)  # one row is the note's
    assert tree_digest(second) == tree_digest(take(scans, tmp_path / "c", None))


def rows(cache: Path) -> int:
    """How much is known for good."""
    for path in cache.glob("*/facts.sqlite"):
        try:
            database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
            return int(database.execute("SELECT count(*) FROM facts").fetchone()[0])
        except sqlite3.OperationalError:
            return 0
    return 0
