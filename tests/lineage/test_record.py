from pathlib import Path

from lineage.digest import tree_digest
from lineage.record import leave_record, read_record


def test_a_record_tells_what_made_a_directory_and_does_not_change_its_name(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("hello")
    before = tree_digest(tmp_path)
    assert leave_record(tmp_path, step="read", inputs={"source": "0" * 64}) == before
    assert tree_digest(tmp_path) == before
    record = read_record(tmp_path)
    assert record["content"] == before
    assert (record["step"], record["inputs"]) == ("read", {"source": "0" * 64})
    assert record["made_at"].endswith("+00:00")


def test_what_no_step_made_has_no_record(tmp_path: Path) -> None:
    assert read_record(tmp_path) == {}
