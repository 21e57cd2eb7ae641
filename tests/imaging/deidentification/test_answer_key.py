"""What has to go goes and what has to stay stays, by the key that `benchmarks` measures with."""

import json
import shutil
from pathlib import Path
from typing import Any

import pydicom
import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("reading", "writing"):  # the cleaning sets them for its process
        mode = f"{name}_validation_mode"
        monkeypatch.setattr(pydicom.config.settings, mode, pydicom.config.IGNORE)
    import answer_key

    return answer_key


def test_all_answers_are_right(key: Any, tmp_path: Path) -> None:
    from deidentifiers import lightbox

    sources, written = tmp_path / "sources", tmp_path / "written"
    sources.mkdir()
    written.mkdir()
    answers = key.make(sources, seed=2, patients=len(key.MODALITIES))
    clean = lightbox(json.dumps(key.POLICY))
    for path in sources.iterdir():
        clean(path, written / path.name)
    score = key.score(answers, sources, written)
    assert all(of > 0 for _, of in score.values())
    assert {action: (right, of) for action, (right, of) in score.items() if right < of} == {}


def test_a_copy_keeps_all_and_hides_nothing(key: Any, tmp_path: Path) -> None:
    answers = key.make(tmp_path, seed=2, patients=len(key.MODALITIES))
    score = key.score(answers, tmp_path, tmp_path)
    kept = {action for action, (right, of) in score.items() if right == of}
    assert kept == {
        "tag_retained", "text_notnull", "text_retained", "uid_consistent", "pixels_retained",
    }  # fmt: skip
    gone = {action for action, (right, _) in score.items() if right == 0}
    assert gone == {
        "text_removed", "date_shifted", "uid_changed", "patid_consistent", "pixels_hidden",
    }  # fmt: skip


def test_a_file_that_is_not_written_has_no_right_answer(key: Any, tmp_path: Path) -> None:
    sources, written = tmp_path / "sources", tmp_path / "written"
    sources.mkdir()
    written.mkdir()
    answers = key.make(sources, patients=1)
    names = sorted(path.name for path in sources.iterdir())
    for name in names[1:]:
        shutil.copy(sources / name, written / name)
    score = key.score(answers, sources, written)
    assert score["tag_retained"][0] * 4 == score["tag_retained"][1] * 3
