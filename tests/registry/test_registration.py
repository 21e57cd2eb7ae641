import json
from pathlib import Path

import pytest
from evidence import judge, parts

from lineage.digest import file_digest, tree_digest
from lineage.errors import BadInput
from lineage.workspace import Workspace
from registry import registration
from registry.mlflow_registry import download, find_by_digest, versions


def test_a_model_is_registered_with_all_that_it_was_made_from(
    registry_home: Workspace, tmp_path: Path
) -> None:
    made = parts(tmp_path)
    version = registration.register("chest", **made)
    assert (version.verdict, version.digest) == ("pass", tree_digest(made["model"]))
    document = json.loads((download(version, "lineage") / "lineage.json").read_text())
    assert document["model"]["digest"] == version.digest
    assert document["model"]["files"]["model.onnx"] == file_digest(made["model"] / "model.onnx")
    assert document["data"]["snapshot_digest"] == tree_digest(made["snapshot"])
    assert document["data"]["manifest_digest"] == file_digest(made["snapshot"] / "manifest.parquet")
    assert document["data"]["counts"]["read"] == 60
    assert document["data"]["deidentification"]["profile_edition"] == "2026c"
    assert document["steps"]["train"]["config"]["epochs"] == 2
    assert document["steps"]["evaluate"]["made"].keys() == {"metrics", "reference"}
    assert document["environment"]["packages"]["mlflow"] == "3.17.2"
    assert document["verdict"]["rules"][0]["outcome"] == "pass"
    for what in ("metrics", "verdict", "reference"):
        assert tree_digest(download(version, what)) == tree_digest(made[what])


def test_a_refused_model_is_registered_too_and_says_so(
    registry_home: Workspace, tmp_path: Path
) -> None:
    version = registration.register("chest", **parts(tmp_path, outcome="fail"))
    assert version.verdict == "fail"
    assert version.reason.endswith("was asked: fail")


def test_the_same_evidence_made_again_is_the_same_version(
    registry_home: Workspace, tmp_path: Path
) -> None:
    first = registration.register("chest", **parts(tmp_path / "monday"))
    assert registration.register("chest", **parts(tmp_path / "tuesday")) == first
    other = registration.register("chest", **parts(tmp_path / "other", seed=2))
    assert [first.version, other.version] == ["1", "2"]


def test_a_model_judged_again_keeps_its_version(registry_home: Workspace, tmp_path: Path) -> None:
    made = parts(tmp_path, outcome="fail")
    registration.register("chest", **made)
    judge(made["verdict"], "pass")
    assert (registration.register("chest", **made)).verdict == "pass"
    assert len(versions("chest")) == 1


def test_a_model_with_a_file_that_could_run_code_is_not_registered(
    registry_home: Workspace, tmp_path: Path
) -> None:
    made = parts(tmp_path)
    (made["model"] / ".lineage.json").unlink()
    (made["model"] / "weights.bin").write_bytes(b"anything")
    with pytest.raises(BadInput, match=r"weights\.bin; .*never pickles"):
        registration.register("chest", **made)
    assert versions() == []


@pytest.mark.parametrize("part", ["model", "metrics", "verdict"])
def test_a_part_that_was_changed_after_it_was_made_is_refused(
    registry_home: Workspace, tmp_path: Path, part: str
) -> None:
    made = parts(tmp_path)
    (made[part] / "extra.json").write_text("{}")
    with pytest.raises(BadInput, match=f"{part} was changed after"):
        registration.register("chest", **made)


@pytest.mark.parametrize("part", ["metrics", "reference"])
def test_evidence_of_another_model_is_refused(
    registry_home: Workspace, tmp_path: Path, part: str
) -> None:
    made = parts(tmp_path / "one")
    made[part] = parts(tmp_path / "two", seed=2)[part]
    with pytest.raises(BadInput, match=f"{part} tells of another model"):
        registration.register("chest", **made)
    assert find_by_digest("chest", tree_digest(made["model"])) is None


def test_numbers_carry_their_interval_and_n(tmp_path: Path) -> None:
    told = json.loads((parts(tmp_path)["metrics"] / "metrics.json").read_text())
    found = dict(registration.numbers(told))
    assert [found[f"auroc{end}"] for end in ("", "_low", "_high", "_n")] == [0.91, 0.85, 0.95, 150]
    assert found["sex/F/sensitivity_low"] == 0.70
    assert found["auroc_difference_low"] == -0.01
    assert "age_band/<40/auroc" not in found  # it could not be computed: no number is shown
