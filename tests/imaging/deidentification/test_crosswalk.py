import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging.deidentification.crosswalk import Crosswalk
from lineage.errors import BadInput

KEY = b"k" * 32
# Draws names for the same 40 patients and UIDs as all others, and prints them.
DRAW = """
import sys
from pathlib import Path
from imaging.deidentification.crosswalk import Crosswalk
names = Crosswalk(Path(sys.argv[1]), b"k" * 32)
for i in range(40):
    print(names.patient(f"MRN-{i}"), names.shift(f"MRN-{i}").days, names.uid(f"1.2.{i}"))
"""
# Says a name once it has it, and goes on until it is killed.
GO_ON = """
import sys
from itertools import count
from pathlib import Path
from imaging.deidentification.crosswalk import Crosswalk
names = Crosswalk(Path(sys.argv[1]), b"k" * 32)
for i in count():
    print(i, names.patient(f"MRN-{i}"), names.uid(f"1.2.{i}"), flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "crosswalk.sqlite"


@pytest.fixture(params=["of one machine", "that several may have mounted"])
def anywhere(path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """On a file system that is, or is not, known to be of one machine; ramfs stands for NFS."""
    if request.param == "of one machine":
        yield path
        return
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    path.parent.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "ramfs", "none", path.parent], check=True)
    path.parent.chmod(0o700)
    try:
        yield path
        (journal,) = {file for file in path.parent.iterdir() if file != path}
        assert journal.name == "crosswalk.sqlite-journal"  # no log, whose index is in memory
    finally:
        subprocess.run(["umount", "--lazy", path.parent], check=True)


@settings(deadline=None, max_examples=15)
@given(st.sets(st.text(min_size=1).map(lambda t: t.strip(" \0")).filter(bool), min_size=2))
def test_names_are_one_to_one_and_the_same_again(identifiers: set[str]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "crosswalk.sqlite"
        first, later = Crosswalk(path, KEY), Crosswalk(path, KEY)
        drawn = {i: (first.patient(i), first.uid(i), first.shift(i)) for i in identifiers}
        codes, uids, shifts = zip(*drawn.values(), strict=True)
        assert len(set(codes)) == len(set(uids)) == len(identifiers)
        assert all(u.startswith("2.25.") and len(u) <= 64 for u in uids)
        assert all(36525 <= s.days < 36525 + 3653 for s in shifts)
        assert drawn == {
            i: (later.patient(i), later.uid(f"{i} "), later.shift(f" {i}")) for i in identifiers
        }
        assert [later.who(code) for code in codes] == list(identifiers)
        assert [later.who(uid) for uid in uids] == list(identifiers)


def test_names_are_drawn_not_derived(tmp_path: Path) -> None:
    one, two = (Crosswalk(tmp_path / name, KEY) for name in ("one", "two"))
    assert one.patient("MRN") != two.patient("MRN")
    assert one.uid("1.2.3") != two.uid("1.2.3")
    shifts = {(one.shift(str(i)), two.shift(str(i))) for i in range(5)}
    assert any(a != b for a, b in shifts)


def test_standard_uids_stay(path: Path) -> None:
    assert Crosswalk(path, KEY).uid("1.2.840.10008.1.2.1\0") == "1.2.840.10008.1.2.1"


def test_an_unknown_name_stands_for_nobody(path: Path) -> None:
    assert Crosswalk(path, KEY).who("0123456789abcdef") is None


def test_processes_that_ask_at_once_agree(anywhere: Path) -> None:
    command = [sys.executable, "-c", DRAW, str(anywhere)]
    askers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [asker.communicate()[0] for asker in askers]
    assert [asker.returncode for asker in askers] == [0] * 4
    assert len(set(answers)) == 1 and len(answers[0].splitlines()) == 40


def test_the_first_to_write_draws_for_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes between our look and our own writing."""
    slow, quick = Crosswalk(path, KEY), Crosswalk(path, KEY)
    seal, others = slow._sealed, []

    def meanwhile(*row: Any) -> bytes:
        others.append(quick.patient("MRN"))
        return seal(*row)

    monkeypatch.setattr(slow, "_sealed", meanwhile)
    assert [slow.patient("MRN")] == others == [Crosswalk(path, KEY).patient("MRN")]
    assert slow.shift("MRN") == quick.shift("MRN")


def test_what_was_said_before_a_kill_still_holds(anywhere: Path) -> None:
    command = [sys.executable, "-c", GO_ON, str(anywhere)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().split() for _ in range(50)]
        os.kill(process.pid, signal.SIGKILL)
    names = Crosswalk(anywhere, KEY)
    for number, code, uid in said:
        assert (names.patient(f"MRN-{number}"), names.uid(f"1.2.{number}")) == (code, uid)
        assert names.who(code) == f"MRN-{number}"


def test_the_file_tells_nothing_and_only_its_owner_may_look(path: Path) -> None:
    names = Crosswalk(path, KEY)
    code = names.patient("Quernstein-7651234")
    shift = str(names.shift("Quernstein-7651234").days).encode()
    files = list(path.parent.iterdir())
    assert len(files) == 3  # SQLite's side files lie beside it
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        data = file.read_bytes().lower()
        assert b"quernstein" not in data and b"7651234" not in data and shift not in data
    assert any(code.encode() in file.read_bytes() for file in files)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_closed_by_all_it_is_one_file(path: Path) -> None:
    one, two = Crosswalk(path, KEY), Crosswalk(path, KEY)
    code = one.patient("MRN")
    one.close()
    two.close()
    assert list(path.parent.iterdir()) == [path]
    assert Crosswalk(path, KEY).who(code) == "MRN"


def test_each_file_bears_a_name_of_its_own(path: Path) -> None:
    first = Crosswalk(path, KEY)
    assert first.name == Crosswalk(path, KEY).name
    first.close()
    path.rename(path.with_name("away"))
    assert first.name and Crosswalk(path, KEY).name != first.name


def test_another_key_is_refused_before_it_draws_other_names(path: Path) -> None:
    Crosswalk(path, KEY).patient("MRN")
    with pytest.raises(BadInput, match="another pseudonym key"):
        Crosswalk(path, b"x" * 32)


def test_a_file_that_others_can_read_is_refused(path: Path) -> None:
    Crosswalk(path, KEY)
    path.chmod(0o640)
    with pytest.raises(BadInput, match="others can read it"):
        Crosswalk(path, KEY)


def test_a_file_of_something_else_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_bytes(b"no database " * 100)
    with pytest.raises(BadInput, match="no crosswalk"):
        Crosswalk(path, KEY)


def test_exchanged_names_are_found_out(path: Path) -> None:
    """Whoever can write the file cannot make one patient into another."""
    names = Crosswalk(path, KEY)
    one, two = names.patient("MRN-1"), names.patient("MRN-2")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE names SET pseudonym = 'x' WHERE pseudonym = ?", (one,))
        database.execute("UPDATE names SET pseudonym = ? WHERE pseudonym = ?", (one, two))
        database.execute("UPDATE names SET pseudonym = ? WHERE pseudonym = 'x'", (two,))
    database.close()
    with pytest.raises(BadInput, match="changed by something else"):
        names.who(one)
    with pytest.raises(BadInput, match="changed by something else"):
        Crosswalk(path, KEY).patient("MRN-1")
