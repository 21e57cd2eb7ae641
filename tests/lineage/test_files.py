import os
from pathlib import Path

import pytest

from lineage.files import write_json


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
