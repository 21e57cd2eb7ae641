import os
import time
from pathlib import Path

import pytest

from lineage import known
from lineage.digest import tree_digest
from lineage.known import Known


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder at rest: its files look as if nobody had touched them for a minute."""
    folder = tmp_path / "tree"
    (folder / "below").mkdir(parents=True)
    for name in ("a", "below/b", "below/c"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose bytes were read."""
    found: list[str] = []
    hashed = known.file_digest
    monkeypatch.setattr(known, "file_digest", lambda name: found.append(name) or hashed(name))
    return found


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute passes: only the clock of the reader moves, never what files look like."""
    moment = time.time_ns
    monkeypatch.setattr(known.time, "time_ns", lambda: moment() + 60_000_000_000)


def test_it_says_what_the_bytes_say(tree, tmp_path, later) -> None:
    memory = Known(tmp_path / "known")
    for _ in range(2):
        assert memory.tree_digest(tree) == tree_digest(tree)
        assert memory.tree_digest(tree / "a") == tree_digest(tree / "a")


def test_only_a_changed_file_is_read_again(tree, tmp_path, reads, later) -> None:
    memory = Known(tmp_path / "known")
    memory.tree_digest(tree)
    assert len(reads) == 3
    memory.tree_digest(tree)
    assert len(reads) == 3
    (tree / "below" / "b").write_text("B!")
    changed = memory.tree_digest(tree)
    assert reads[3:] == [str(tree / "below" / "b")]
    assert changed == tree_digest(tree)


def test_a_file_that_was_modified_just_now_is_read_again(tree, tmp_path, reads) -> None:
    """Two changes within one tick of the clock, to the same size, look alike."""
    memory = Known(tmp_path / "known")
    memory.tree_digest(tree)
    memory.tree_digest(tree)
    assert len(reads) == 6


def test_a_forged_modification_time_does_not_help(tree, tmp_path, later) -> None:
    memory = Known(tmp_path / "known")
    before, stat = memory.tree_digest(tree), (tree / "a").stat()
    (tree / "a").write_text("A")  # as long as before
    os.utime(tree / "a", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (tree / "a").stat().st_mtime_ns == stat.st_mtime_ns
    assert memory.tree_digest(tree) != before


def test_a_swapped_file_is_noticed(tree, tmp_path, later) -> None:
    memory = Known(tmp_path / "known")
    before = memory.tree_digest(tree)
    (tree / "below" / "b").rename(tree / "keep")
    (tree / "below" / "c").rename(tree / "below" / "b")
    (tree / "keep").rename(tree / "below" / "c")
    assert memory.tree_digest(tree) != before


def test_a_torn_memory_costs_time_only(tree, tmp_path, reads, later) -> None:
    memory = Known(tmp_path / "known")
    content = memory.tree_digest(tree)
    (file,) = (tmp_path / "known").iterdir()
    file.write_text(file.read_text()[:50])
    assert memory.tree_digest(tree) == content
    assert len(reads) == 6


def test_a_memory_that_cannot_be_kept_is_done_without(tree, tmp_path, later) -> None:
    (tmp_path / "known").write_text("a file where the folder should be")
    assert Known(tmp_path / "known").tree_digest(tree) == tree_digest(tree)


def test_names_of_files_are_not_kept(tree, tmp_path, later) -> None:
    (tree / "below" / "b").rename(tree / "below" / "Mueller^Hans")
    memory = Known(tmp_path / "known")
    memory.tree_digest(tree)
    memory.tree_digest(tree / "below" / "Mueller^Hans")
    kept = [path.read_text() for path in (tmp_path / "known").iterdir()]
    assert len(kept) == 2 and not any("Mueller" in text for text in kept)


@pytest.mark.parametrize("text", ["1", '"x"', "[" * 100_000])
def test_a_memory_that_is_none_costs_time_only(tree, tmp_path, reads, later, text) -> None:
    memory = Known(tmp_path / "known")
    content = memory.tree_digest(tree)
    (file,) = (tmp_path / "known").iterdir()
    file.write_text(text)
    assert memory.tree_digest(tree) == content
    assert len(reads) == 6


def test_a_folder_in_its_place_costs_time_only(tree, tmp_path, reads, later) -> None:
    memory = Known(tmp_path / "known")
    content = memory.tree_digest(tree)
    (file,) = (tmp_path / "known").iterdir()
    file.unlink()
    file.mkdir()
    assert memory.tree_digest(tree) == content
    assert len(reads) == 6
