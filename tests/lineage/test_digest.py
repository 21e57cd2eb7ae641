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
