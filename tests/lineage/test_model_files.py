import os
import pickle
from pathlib import Path

import pytest

from lineage.errors import BadInput
from lineage.model_files import KINDS, refuse_executable

GOOD = {
    "model.json": b"{}",
    "history.json": b"[]",
    "model.onnx": b"\x08\x0a",
    "predictions.parquet": b"PAR1",
    "model.safetensors": b"\x02\0\0\0\0\0\0\0{}",
    ".lineage.json": b"{}",
}


def test_files_that_only_hold_data_pass(tmp_path: Path) -> None:
    for name, content in GOOD.items():
        (tmp_path / name).write_bytes(content)
    refuse_executable(tmp_path)


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "net.pth", "x.joblib", "deep/code.py"])
def test_another_kind_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(BadInput, match=rf"holds {name}; only .*, never pickles"):
        refuse_executable(tmp_path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("suffix", sorted(KINDS))
def test_a_pickle_by_another_name_is_refused(tmp_path: Path, suffix: str, protocol: int) -> None:
    (tmp_path / f"model{suffix}").write_bytes(pickle.dumps({"weights": [1, 2]}, protocol))
    with pytest.raises(BadInput, match="might be a pickle"):
        refuse_executable(tmp_path)


def test_a_link_is_refused_wherever_it_leads(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").symlink_to(tmp_path / "real.json")
    with pytest.raises(BadInput, match="is a link"):
        refuse_executable(tmp_path / "model")


def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.json")
    with pytest.raises(BadInput, match="no regular file"):
        refuse_executable(tmp_path)
