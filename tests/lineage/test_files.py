import os
from pathlib import Path

import pytest

from lineage.files import read_json, write_json


def test_a_file_is_replaced_whole_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "new" / "facts.json"
    write_json(path, {"b": 1, "a": [2]})
    write_json(path, {"b": 2})
    assert path.read_text() == '{\n  "b": 2\n}\n'
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_json(path, {"score": 1.0})
    with pytest.raises(ValueError):
        write_json(path, {"score": float("nan")})
    assert path.read_text() == '{\n  "score": 1.0\n}\n'


def test_a_kill_before_the_last_moment_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "facts.json"
    write_json(path, {"score": 1})

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"score": 2})
    assert path.read_text() == '{\n  "score": 1\n}\n'


@pytest.mark.parametrize(
    "text",
    [
        "1",
        '"x"',
        "[]",
        "null",
        '{"a":',
        '{"a": ' + "[" * 100_000,
        '{"a": ' + "9" * 5000 + "}",
        "\0",
    ],
    ids=["number", "text", "list", "null", "torn", "deep", "long", "rubbish"],
)
def test_what_is_no_whole_record_counts_as_absent(tmp_path: Path, text: str) -> None:
    path = tmp_path / "facts.json"
    path.write_text(text)
    assert read_json(path) is None
    path.write_bytes(b"\xff")
    assert read_json(path) is None
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}


def test_a_folder_is_no_record_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.mkdir()
    assert read_json(path) is None
    with pytest.raises(OSError, match="directory"):
        write_json(path, {})
    assert list(tmp_path.iterdir()) == [path]


def test_other_kinds_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    write_json(tmp_path / "history.json", [1])
    assert read_json(tmp_path / "history.json", object) == [1]
