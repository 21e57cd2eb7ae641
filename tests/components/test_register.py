import json
from pathlib import Path

import pytest
from evidence import judge, parts, prepare_registry

from components.register import register, still_registered
from components.runtime import execute
from lineage.digest import tree_digest
from lineage.workspace import Workspace
from registry.config import RegistrationConfig
from registry.mlflow_registry import set_tags, versions

CONFIG = RegistrationConfig(name="chest")


@pytest.fixture
def made(home: Workspace, tmp_path: Path) -> dict[str, Path]:
    prepare_registry(home)
    return parts(tmp_path / "parts", outcome="fail")


def test_it_writes_which_version_the_model_became(
    home: Workspace, made: dict[str, Path], tmp_path: Path
) -> None:
    values, _ = execute(register, CONFIG, made, {"version": tmp_path / "version"})
    assert values["model_version"] == "chest:1"
    told = json.loads((tmp_path / "version" / "version.json").read_text())
    assert told["model_digest"] == tree_digest(made["model"])
    assert told["verdict_digest"] == tree_digest(made["verdict"])
    assert (told["name"], told["version"], told["verdict"]) == ("chest", "1", "fail")


def test_its_receipt_holds_until_the_registry_says_otherwise(
    home: Workspace, made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    execute(register, CONFIG, made, {"version": first})
    assert still_registered(version=first)
    judge(made["verdict"], "pass")
    execute(register, CONFIG, made, {"version": second})
    assert still_registered(version=second)
    assert not still_registered(version=first)  # its verdict is no longer the one registered
    assert len(versions("chest")) == 1
    set_tags("chest", "1", {"model_digest": "0" * 64})
    assert not still_registered(version=second)
    monkeypatch.setenv("LIGHTBOX_HOME", str(tmp_path / "another"))
    assert not still_registered(version=second)


def test_its_contract() -> None:
    assert (register.effect, register.registers, register.values) == (
        True,
        "model",
        {"model_version": str, "model_digest": str},
    )
