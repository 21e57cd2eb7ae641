"""Against moto's S3, spoken to by real HTTP."""

import fcntl
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest

from imaging.incoming import mirror as mirroring
from imaging.incoming.mirror import fetched, look, mirror, state_beside
from imaging.incoming.remote import open_origin
from imaging.incoming.s3 import ODD, S3
from lineage.errors import BadInput, StepFailed

ADDRESS = "s3://scans/chest"


@pytest.fixture
def bucket(aws: str):
    found = boto3.resource("s3").Bucket("scans")
    found.create()
    return found


def put(bucket, **keys: bytes) -> None:
    for key, body in keys.items():
        bucket.put_object(Key=key, Body=body)


def fetch(folder: Path, address: str = ADDRESS):
    return mirror(open_origin(address), address, folder, state_beside(folder, "fetched"))


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_lies_below_the_prefix_comes_and_no_more(bucket, tmp_path) -> None:
    put(bucket, **{"chest/a.dcm": b"1", "chest/b/B/c.dcm": b"22", "chest2/d.dcm": b"no", "e": b""})
    change = fetch(tmp_path / "scans")
    assert tree(tmp_path / "scans") == {"a.dcm": b"1", "b/B/c.dcm": b"22"}
    assert (len(change.new), change.new_bytes, change.kept) == (2, 3, 0)
    file, *folders = (tmp_path / "scans" / name for name in ("b/B/c.dcm", ".", "b", "b/B"))
    assert file.stat().st_mode & 0o777 == 0o600
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}


def test_again_only_what_changed_comes_and_what_is_gone_goes(bucket, tmp_path) -> None:
    put(bucket, **{f"chest/{n}/x": b"old" for n in range(5)})
    fetch(tmp_path / "scans")
    looks = {path: path.stat() for path in (tmp_path / "scans").rglob("x")}
    put(bucket, **{"chest/1/x": b"new", "chest/9/x": b"more"})  # 1: another content, equally long
    bucket.Object("chest/2/x").delete()
    seen = look(open_origin(ADDRESS), ADDRESS, tmp_path / "scans", tmp_path / ".scans.fetched")
    assert len(tree(tmp_path / "scans")) == 5
    change = fetch(tmp_path / "scans")
    assert ([r.name for r in change.new], change.kept, change.gone) == (["1/x", "9/x"], 3, ("2/x",))
    assert (seen.new, seen.gone) == (change.new, change.gone)
    assert tree(tmp_path / "scans") == {
        **{"0/x": b"old", "1/x": b"new", "3/x": b"old", "4/x": b"old", "9/x": b"more"}
    }
    assert not (tmp_path / "scans" / "2").exists()
    kept = [path for path in looks if path.parent.name in "034"]
    assert all(path.stat().st_mtime_ns == looks[path].st_mtime_ns for path in kept)
    assert fetch(tmp_path / "scans").new == ()


def test_a_file_that_was_removed_or_cut_here_comes_again(bucket, tmp_path) -> None:
    put(bucket, **{"chest/a": b"first", "chest/b": b"second"})
    fetch(tmp_path / "scans")
    (tmp_path / "scans" / "a").unlink()
    (tmp_path / "scans" / "b").write_bytes(b"sec")
    fetch(tmp_path / "scans")
    assert tree(tmp_path / "scans") == {"a": b"first", "b": b"second"}


def test_more_than_a_page_of_keys(bucket, tmp_path, monkeypatch) -> None:
    put(bucket, **{f"chest/{n:04}": b"%d" % n for n in range(30)})
    origin = S3(ADDRESS)
    client = origin._client
    paginator = client.get_paginator

    class Small:
        def paginate(self, **given):
            return paginator("list_objects_v2").paginate(**given, PaginationConfig={"PageSize": 7})

    monkeypatch.setattr(client, "get_paginator", lambda name: Small())
    assert len(origin.listing().remotes) == 30


ODD_KEYS = {
    "chest/../../escaped": b"a",
    "chest/..": b"b",
    "chest/./c": b"c",
    "chest//d": b"d",
    "chest/e/": b"e",
    "chest/f": b"f",
    "chest/f/g": b"g",
    "chest/Müller ^ 名前 ?#": b"h",
    "chest/" + "n" * 300: b"i",
    f"chest/{ODD}/j": b"j",
    "chest//": b"k",
    "chest//etc/passwd": b"l",
}


def test_odd_keys_lose_nothing_and_stay_in_the_folder(bucket, tmp_path) -> None:
    put(bucket, **ODD_KEYS, **{"chest/": b"", "chest/folder/": b""})  # how consoles show folders
    inside = tmp_path / "a" / "b" / "scans"
    fetch(inside)
    assert sorted(tree(inside).values()) == sorted(ODD_KEYS.values())
    outside = {path for path in tmp_path.rglob("*") if path.is_file()} - set(inside.rglob("*"))
    assert {path.name for path in outside} == {"index.jsonl", "lock"}
    assert tree(inside)["Müller ^ 名前 ?#"] == b"h"
    assert fetch(inside).new == ()


def test_one_object_is_an_address_too(bucket, tmp_path) -> None:
    put(bucket, **{"chest/labels.csv": b"a,b", "chest/labels.csv.old": b"no"})
    address = f"{ADDRESS}/labels.csv"
    fetch(tmp_path / "labels", address)
    place = fetched(tmp_path / "labels", tmp_path / ".labels.fetched")
    assert place == tmp_path / "labels" / "labels.csv"
    assert place.read_bytes() == b"a,b"


def test_a_folder_belongs_to_one_address(bucket, tmp_path) -> None:
    put(bucket, **{"chest/a": b"1", "abdomen/a": b"2"})
    fetch(tmp_path / "scans")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a").write_bytes(b"mine")
    for folder, address in (
        (tmp_path / "scans", "s3://scans/abdomen"),
        (tmp_path / "own", ADDRESS),
    ):
        with pytest.raises(BadInput, match="holds what did not come from this address"):
            fetch(folder, address)
    assert tree(tmp_path / "own") == {"a": b"mine"}


def test_nothing_there_and_nobody_who_may_read(bucket, tmp_path, monkeypatch) -> None:
    with pytest.raises(BadInput, match=r"nothing lies at s3://scans/chest; a prefix ends at a"):
        fetch(tmp_path / "scans")
    with pytest.raises(BadInput, match="NoSuchBucket"):
        fetch(tmp_path / "scans", "s3://others/chest")
    with pytest.raises(BadInput, match="no bucket is named"):
        fetch(tmp_path / "scans", "s3:///chest")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    boto3.DEFAULT_SESSION = None
    with pytest.raises(BadInput, match="AWS_PROFILE"):
        fetch(tmp_path / "scans")
    assert list(tmp_path.iterdir()) == []


def test_all_that_vanishes_at_once_is_no_order_to_remove_it(bucket, tmp_path) -> None:
    put(bucket, **{"chest/a": b"1"})
    fetch(tmp_path / "scans")
    bucket.Object("chest/a").delete()
    with pytest.raises(BadInput, match="nothing lies at"):
        fetch(tmp_path / "scans")
    assert tree(tmp_path / "scans") == {"a": b"1"}


def test_a_listing_that_breaks_off_removes_nothing(bucket, tmp_path, monkeypatch) -> None:
    put(bucket, **{"chest/a": b"1", "chest/b": b"2"})
    fetch(tmp_path / "scans")
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(mirroring, "TRIES", 2)
    with pytest.raises(StepFailed, match="EndpointConnectionError, 2 times in a row"):
        fetch(tmp_path / "scans")
    assert tree(tmp_path / "scans") == {"a": b"1", "b": b"2"}


def test_a_listing_that_misses_something_once_removes_nothing(bucket, tmp_path) -> None:
    put(bucket, **{"chest/a": b"1", "chest/b": b"2"})
    fetch(tmp_path / "scans")

    class Flickering(S3):
        asked = 0

        def listing(self):
            found = super().listing()
            self.asked += 1
            return found if self.asked > 1 else type(found)(found.remotes[:1])

    change = mirror(Flickering(ADDRESS), ADDRESS, tmp_path / "scans", tmp_path / ".scans.fetched")
    assert change.gone == ()
    assert tree(tmp_path / "scans") == {"a": b"1", "b": b"2"}


def test_an_object_that_changes_after_it_was_listed_is_not_taken_for_the_old_one(
    bucket, tmp_path
) -> None:
    put(bucket, **{"chest/a": b"1", "chest/b": b"2"})

    class Changing(S3):
        def fetch(self, remote, part):
            put(bucket, **{"chest/b": b"3"})
            super().fetch(remote, part)

    with pytest.raises(StepFailed, match=r"1 of 2 files did not come .*changed after"):
        mirror(Changing(ADDRESS), ADDRESS, tmp_path / "scans", tmp_path / ".scans.fetched")
    assert tree(tmp_path / "scans") == {"a": b"1"}
    fetch(tmp_path / "scans")
    assert tree(tmp_path / "scans") == {"a": b"1", "b": b"3"}


def test_more_than_the_disk_has_room_for_is_refused_beforehand(
    bucket, tmp_path, monkeypatch
) -> None:
    put(bucket, **{"chest/a": b"1" * 100})
    usage = type("Usage", (), {"free": 99})
    monkeypatch.setattr(mirroring.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(BadInput, match="100 B are to be fetched"):
        fetch(tmp_path / "scans")


FETCH = """
import sys, time
from pathlib import Path
from imaging.incoming.mirror import mirror, state_beside
from imaging.incoming.s3 import S3

class Slow(S3):
    threads = 4

    def fetch(self, remote, part):
        super().fetch(remote, part)
        time.sleep(0.02)

folder = Path(sys.argv[1])
mirror(Slow(sys.argv[2]), sys.argv[2], folder, state_beside(folder, "fetched"))
"""


def test_a_kill_at_any_time_leaves_whole_files_and_the_next_call_goes_on(bucket, tmp_path) -> None:
    bodies = {f"{n:03}": bytes([n]) * 50_000 for n in range(120)}
    put(bucket, **{f"chest/{name}": body for name, body in bodies.items()})
    folder, came = tmp_path / "scans", []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", FETCH, str(folder), ADDRESS])
        wanted = len(came) + 10
        while process.poll() is None and len(tree(folder)) < wanted:
            time.sleep(0.01)
        process.kill()
        process.wait()
        here = tree(folder)
        assert all(bodies[name] == body for name, body in here.items())
        assert here.keys() >= set(came)
        came = sorted(here)
    before = {name: (folder / name).stat().st_ino for name in came}
    change = fetch(folder)
    assert 10 <= change.kept <= len(came)
    assert change.kept >= len(came) - 3  # those whose line in the index was being written
    assert tree(folder) == bodies
    assert sum((folder / n).stat().st_ino == inode for n, inode in before.items()) >= change.kept


def test_what_a_kill_left_half_fetched_goes_even_if_nothing_is_new(bucket, tmp_path) -> None:
    put(bucket, **{"chest/a": b"1"})
    fetch(tmp_path / "scans")
    left = tmp_path / ".scans.fetched" / "3.part"  # of a file that is gone at its source meanwhile
    left.write_bytes(b"half a patient")
    fetch(tmp_path / "scans")
    assert not left.exists()


def test_one_process_fetches_at_a_time(bucket, tmp_path) -> None:
    put(bucket, **{"chest/a": b"1"})
    state = tmp_path / ".scans.fetched"
    state.mkdir()
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = subprocess.Popen([sys.executable, "-c", FETCH, str(tmp_path / "scans"), ADDRESS])
        while not (tmp_path / "scans").exists():  # it has listed, and made its folders
            time.sleep(0.01)
        time.sleep(1)
        assert other.poll() is None
        assert list((tmp_path / "scans").iterdir()) == []
    assert other.wait(60) == 0
    assert tree(tmp_path / "scans") == {"a": b"1"}
