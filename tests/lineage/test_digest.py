import os
from pathlib import Path

import pytest

from lineage.digest import RECORD, digest, keyed_digest, tree_digest


def test_digests_are_pinned_so_that_a_change_is_a_decision() -> None:
    assert digest("config", {"a": 1})[:12] == "06765ba56f71"


def test_equal_parts_of_another_kind_are_another_digest() -> None:
    assert digest("config", "x") != digest("step", "x")


def test_nan_has_no_digest() -> None:
    with pytest.raises(ValueError):
        digest("config", float("nan"))


def test_a_tree_is_named_by_paths_and_bytes_but_not_by_its_record(tmp_path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    before = tree_digest(tmp_path)
    (tmp_path / RECORD).write_text("{}")
    assert tree_digest(tmp_path) == before
    (tmp_path / "a" / RECORD).write_text("{}")  # only the tree's own record is left out
    assert tree_digest(tmp_path) != before


def test_a_changed_file_changes_the_digest_of_a_file_input(tmp_path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("a")
    before = tree_digest(table)
    table.write_text("b")
    assert tree_digest(table) != before


def test_renaming_a_file_changes_the_tree(tmp_path) -> None:
    (tmp_path / "x").write_text("1")
    before = tree_digest(tmp_path)
    (tmp_path / "x").rename(tmp_path / "y")
    assert tree_digest(tmp_path) != before


def test_a_missing_input_is_an_error_and_not_an_empty_one(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        tree_digest(tmp_path / "gone")


def test_a_keyed_digest_needs_the_key() -> None:
    assert keyed_digest(b"a", "patient", "1") != keyed_digest(b"b", "patient", "1")
    assert keyed_digest(b"a", "patient", "1") != keyed_digest(b"a", "study", "1")


def test_a_name_that_is_not_utf_8_has_digests(tmp_path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / name).write_text("x")
    assert tree_digest(tmp_path) != tree_digest(tmp_path / name)
    assert keyed_digest(b"a", "path", name) != keyed_digest(b"a", "path", "caf\xe9")


def test_a_tree_of_plain_files_keeps_its_name(tmp_path) -> None:
    """Objects of every store bear it."""
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "x").write_text("1")
    (tmp_path / "y").symlink_to("below/x")
    assert tree_digest(tmp_path)[:12] == "f6ab419cee99"


def never(name: str) -> str:
    raise AssertionError(f"{name} was opened")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("gone"),
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("/"),
        lambda path: path.symlink_to("/dev/null"),
        lambda path: os.mkfifo(path),
    ],
    ids=["broken link", "circle", "folder", "device", "pipe"],
)
def test_what_is_no_file_counts_without_being_opened(tmp_path: Path, make) -> None:
    """Ingestion sees it, so the step's key must."""
    empty = tree_digest(tmp_path)
    make(tmp_path / "odd")
    odd = tree_digest(tmp_path, never)
    assert odd != empty
    (tmp_path / "odd").rename(tmp_path / "other")
    assert tree_digest(tmp_path, never) not in (odd, empty)
    (tmp_path / "other").unlink()
    (tmp_path / "odd").write_text("")
    assert tree_digest(tmp_path) != odd


def test_a_file_that_may_not_be_read_counts_by_its_name(tmp_path: Path) -> None:
    """Ingestion sets it aside: it must not cost the others."""
    (tmp_path / "a").write_text("1")

    def closed(path: str) -> str:
        raise PermissionError(path)

    unreadable = tree_digest(tmp_path, closed)
    assert unreadable != tree_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert tree_digest(tmp_path, closed) != unreadable


def test_a_file_larger_than_any_that_is_read_counts_by_its_size(tmp_path: Path) -> None:
    def digest_of(size: int, last: bytes) -> str:
        with (tmp_path / "sparse").open("wb") as file:
            file.seek(size - 1)
            file.write(last)
        return tree_digest(tmp_path)

    large = digest_of(2**40, b"a")  # to read all of it would take minutes
    assert large == digest_of(2**40, b"b") != digest_of(2**40 + 1, b"a")
    assert digest_of(1, b"a") != digest_of(1, b"b")


def test_folders_may_lie_within_each_other_a_thousand_times(nested: Path, tmp_path: Path) -> None:
    empty = tree_digest(tmp_path)
    (nested / "file").write_text("one")
    one = tree_digest(tmp_path)
    (nested / "file").write_text("two")
    assert len({empty, one, tree_digest(tmp_path)}) == 3
