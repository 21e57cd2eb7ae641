import multiprocessing
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from lineage.digest import tree_digest
from lineage.errors import BadInput
from lineage.workspace import Workspace
from registry import approval, audit_log
from registry import mlflow_registry as registry

PASS = {"verdict": "pass", "reason": "AUROC is 0.910"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return folder(tmp_path / "model", "weights")


def folder(path: Path, text: str) -> Path:
    path.mkdir(parents=True)
    (path / "file.json").write_text(text)
    return path


@pytest.fixture
def verdict(tmp_path: Path) -> Path:
    return folder(tmp_path / "verdict", "{}")


def test_a_registered_model_comes_back_as_it_went_in(
    registry_home: Workspace, model: Path, verdict: Path, tmp_path: Path
) -> None:
    made = registry.register_model("chest", model, PASS, {"verdict": verdict})
    assert (made.version, made.verdict, made.reason) == ("1", "pass", "AUROC is 0.910")
    assert made.digest == tree_digest(model)
    assert registry.get_version("chest", "1") == registry.find_by_digest("chest", made.digest)
    assert tree_digest(registry.download(made, to=tmp_path / "a" / "copy")) == made.digest
    assert tree_digest(registry.download(made, "verdict")) == tree_digest(verdict)
    assert [entry.action for entry in audit_log.entries("chest:1")] == ["registered"]


def test_the_same_model_twice_is_one_version(
    registry_home: Workspace, model: Path, verdict: Path
) -> None:
    first = registry.register_model("chest", model, PASS, {"verdict": verdict})
    assert registry.register_model("chest", model, PASS, {"verdict": verdict}) == first
    assert len(audit_log.entries()) == 1


def test_the_same_model_from_two_processes_is_one_version(home: Workspace, model: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, spawn) as pool:
        waiting = [pool.submit(registry.register_model, "chest", model, PASS, {}) for _ in range(2)]
        assert [each.result().version for each in waiting] == ["1", "1"]
    assert len(registry.versions("chest")) == 1
    assert len(audit_log.entries()) == 1


def test_a_registration_killed_before_its_log_row_gets_it_later(
    registry_home: Workspace, model: Path
) -> None:
    registry.register_model("chest", model, PASS, {})
    registry_home.audit_log.unlink()
    registry.register_model("chest", model, PASS, {})
    assert [entry.action for entry in audit_log.entries()] == ["registered"]


def test_a_new_assessment_keeps_the_version_and_the_older_verdict(
    registry_home: Workspace, model: Path, verdict: Path, tmp_path: Path
) -> None:
    first = registry.register_model(
        "chest", model, PASS | {"verdict": "fail"}, {"verdict": verdict}
    )
    stricter = folder(tmp_path / "again", '{"passed": true}')
    second = registry.register_model("chest", model, PASS, {"verdict": stricter})
    assert (first.version, first.verdict) == ("1", "fail")
    assert (second.version, second.verdict) == ("1", "pass")
    assert tree_digest(registry.download(second, "verdict")) == tree_digest(stricter)
    told = audit_log.entries("chest:1")
    assert [entry.action for entry in told] == ["registered", "assessed"]
    assert (told[1].old["verdict"], told[1].new["verdict"]) == ("fail", "pass")
    client = registry._client()
    kept = client.download_artifacts(first.run_id, "assessment-1/verdict", str(tmp_path))
    assert tree_digest(Path(kept)) == tree_digest(verdict)


def test_without_a_verdict_a_version_is_not_passed(registry_home: Workspace, model: Path) -> None:
    assert registry.register_model("chest", model, {}, {}).verdict == "inconclusive"


def test_versions_are_listed_by_name_and_number(registry_home: Workspace, tmp_path: Path) -> None:
    assert registry.versions() == []
    for number in range(11):
        registry.register_model("chest", folder(tmp_path / str(number), f"{number}"), PASS, {})
    registry.register_model("brain", tmp_path / "3", PASS, {})
    assert [v.version for v in registry.versions("chest")] == [str(n) for n in range(1, 12)]
    assert [v.name for v in registry.versions()] == ["brain"] + ["chest"] * 11


def test_an_unknown_version_is_named_beside_the_known(
    registry_home: Workspace, model: Path
) -> None:
    registry.register_model("chest", model, PASS, {})
    with pytest.raises(BadInput, match=r"no chest:7; it has \['chest:1'\]"):
        registry.get_version("chest", "7")


def test_settings_and_numbers_are_shown_in_mlflow(registry_home: Workspace, model: Path) -> None:
    params = {f"train.setting_{n}": n for n in range(130)}
    metrics = {"auroc": 0.91, "age_band/<40/auroc_low": 0.8, "training/loss": [0.7, 0.4]}
    made = registry.register_model("chest", model, PASS, {}, params=params, metrics=metrics)
    client = registry._client()
    run = client.get_run(made.run_id)
    assert len(run.data.params) == 130
    assert run.data.metrics["auroc"] == 0.91
    assert run.data.metrics["age_band/under 40/auroc_low"] == 0.8
    assert [m.value for m in client.get_metric_history(made.run_id, "training/loss")] == [0.7, 0.4]
    assert (run.info.status, run.data.tags["verdict"]) == ("FINISHED", "pass")


def test_any_name_of_a_setting_or_a_group_is_shown(registry_home: Workspace, model: Path) -> None:
    coded = "ingest.labels.fhir.values.http://snomed.info/sct|233604007"
    params = {coded: "present", coded.replace("|", "+"): "absent", "a/../b": 1, "x" * 300: 2}
    metrics = {f"site/{name}/auroc": 0.5 for name in ("A//B", ".", "St. Mary's/", "1 & 1")}
    made = registry.register_model("chest", model, PASS, {}, params=params, metrics=metrics)
    shown = registry._client().get_run(made.run_id).data
    assert shown.params["ingest.labels.fhir.values.http:/snomed.info/sct_233604007"] == "present"
    assert (len(shown.params), len(shown.metrics)) == (4, 4)


def test_the_champion_moves_once_and_the_log_says_from_where(
    registry_home: Workspace, tmp_path: Path, verdict: Path
) -> None:
    assert registry.champion("chest") is None
    for number in ("1", "2"):
        files = folder(tmp_path / number, number)
        registry.register_model("chest", files, PASS, {"verdict": verdict})
        approval.approve("chest", number, actor="ada", reason="good")
    registry.move_champion("chest", "1", actor="step:deploy_canary", reason="released")
    for _ in range(2):
        moved = registry.move_champion("chest", "2", actor="step:deploy_canary", reason="released")
    assert registry.champion("chest") == moved
    assert (moved.version, moved.aliases) == ("2", ("champion",))
    moves = [entry for entry in audit_log.entries() if entry.action == "champion"]
    assert [(e.subject, e.old and e.old["version"]) for e in moves] == [
        ("chest:1", None),
        ("chest:2", "1"),
    ]


@pytest.mark.parametrize("decide", [None, approval.refuse], ids=["waiting", "refused"])
def test_what_nobody_approved_never_becomes_champion(
    registry_home: Workspace, model: Path, verdict: Path, decide
) -> None:
    registry.register_model("chest", model, PASS, {"verdict": verdict})
    if decide:
        decide("chest", "1", actor="ada", reason="doubts")
    with pytest.raises(BadInput, match="not approved"):
        registry.move_champion("chest", "1", actor="eve", reason="because")
    assert registry.champion("chest") is None


def test_an_approval_ends_with_a_new_verdict(
    registry_home: Workspace, model: Path, verdict: Path, tmp_path: Path
) -> None:
    registry.register_model("chest", model, PASS, {"verdict": verdict})
    approval.approve("chest", "1", actor="ada", reason="good")
    registry.register_model("chest", model, PASS, {"verdict": folder(tmp_path / "new", "[]")})
    with pytest.raises(BadInput, match="not approved"):
        registry.move_champion("chest", "1", actor="eve", reason="because")


def test_tags_edited_in_mlflow_are_noticed(
    registry_home: Workspace, model: Path, verdict: Path
) -> None:
    made = registry.register_model("chest", model, PASS | {"verdict": "fail"}, {"verdict": verdict})
    registry.set_tags("chest", "1", {"verdict": "pass"})
    forged = registry.get_version("chest", "1")
    assert registry.agrees(made)
    assert not registry.agrees(forged)
    for use in (
        lambda: approval.approve("chest", "1", actor="ada", reason="good"),
        lambda: registry.move_champion("chest", "1", actor="eve", reason="because"),
        lambda: registry.download(forged),
    ):
        with pytest.raises(BadInput, match="somebody changed them"):
            use()


def test_files_edited_in_the_store_are_not_handed_out(
    registry_home: Workspace, model: Path, tmp_path: Path
) -> None:
    made = registry.register_model("chest", model, PASS, {})
    (stored,) = registry_home.mlflow_artifacts.rglob("file.json")
    stored.write_text("other weights")
    with pytest.raises(BadInput, match="does not match its digest"):
        registry.download(made, to=tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob(".copy*"))


def test_a_download_never_overwrites(registry_home: Workspace, model: Path, tmp_path: Path) -> None:
    made = registry.register_model("chest", model, PASS, {})
    copy = registry.download(made, to=tmp_path / "copy")
    assert registry.download(made, to=copy) == copy
    (copy / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="something else"):
        registry.download(made, to=copy)
    assert (copy / "mine.txt").exists()


def test_an_artifact_that_was_not_logged_is_named(registry_home: Workspace, model: Path) -> None:
    made = registry.register_model("chest", model, PASS, {})
    with pytest.raises(BadInput, match="no artifact 'reference'"):
        registry.download(made, "reference")


def test_receipts_are_read_without_mlflow(
    registry_home: Workspace, model: Path, verdict: Path
) -> None:
    made = registry.register_model("chest", model, PASS, {"verdict": verdict})
    assert registry.quick_champion("chest") is None
    approval.approve("chest", "1", actor="ada", reason="good")
    registry.move_champion("chest", "1", actor="step:deploy_canary", reason="released")
    code = (
        "import sys; from registry.mlflow_registry import champion, quick_champion, quick_tags\n"
        "print(quick_champion('chest'), quick_tags('chest', '1')['model_digest'],"
        " quick_tags('chest', '2'), quick_champion('brain'), 'mlflow' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert told == [made.digest, made.digest, "{}", "None", "False"]


def test_receipts_ask_mlflow_where_its_tables_are_unknown(
    registry_home: Workspace, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = registry.register_model("chest", model, PASS, {})
    monkeypatch.setattr(registry, "_quick", lambda *_: None)
    assert registry.quick_tags("chest", "1") == made.tags
    assert registry.quick_tags("chest", "2") == {}
    assert registry.quick_champion("chest") is None


def test_asking_an_empty_workspace_makes_nothing(home: Workspace) -> None:
    assert registry.champion("chest") is None
    assert registry.quick_champion("chest") is None
    assert registry.find_by_digest("chest", "0" * 64) is None
    assert not home.home.exists()


@pytest.fixture
def two(registry_home: Workspace, tmp_path: Path, verdict: Path) -> None:
    """Version 1 is champion; version 2 was refused by its gate."""
    registry.register_model("chest", folder(tmp_path / "1", "1"), PASS, {"verdict": verdict})
    approval.approve("chest", "1", actor="ada", reason="good")
    registry.move_champion("chest", "1", actor="step:deploy_canary", reason="released")
    refused = {"verdict": "fail", "reason": "AUROC is 0.4"}
    registry.register_model("chest", folder(tmp_path / "2", "2"), refused, {"verdict": verdict})


def test_a_champion_whose_alias_was_deleted_is_still_champion(two: None) -> None:
    """Or the next model would be compared with none, and pass."""
    registry._client().delete_registered_model_alias("chest", "champion")
    champion = registry.champion("chest")
    assert champion is not None
    assert champion.version == "1"
    assert registry.quick_champion("chest") == champion.digest
    again = registry.move_champion("chest", "1", actor="step:deploy_canary", reason="released")
    assert again.aliases == ("champion",)
    assert len([e for e in audit_log.entries() if e.action == "champion"]) == 1


def test_an_alias_that_somebody_moved_is_not_believed(two: None) -> None:
    """Or a refused model would be what the next is compared with, and what a rollback restores."""
    registry._client().set_registered_model_alias("chest", "champion", "2")
    for ask in (registry.champion, registry.quick_champion):
        with pytest.raises(BadInput, match="somebody moved the alias; move it back to version 1"):
            ask("chest")


def test_nothing_is_decided_by_a_log_that_was_changed(two: None, home: Workspace) -> None:
    """A refusal turned into a pass, in the log and in MLflow, must not be approved."""
    with closing(sqlite3.connect(home.audit_log)) as db:
        db.execute("DROP TRIGGER no_UPDATE")
        db.execute("UPDATE entries SET new = replace(new, '\"fail\"', '\"pass\"') WHERE seq = 4")
        db.commit()
    registry.set_tags("chest", "2", {"verdict": "pass"})
    assert registry.agrees(registry.get_version("chest", "2"))
    with pytest.raises(BadInput, match="audit log was changed: row 4"):
        approval.approve("chest", "2", actor="ada", reason="good")
    with pytest.raises(BadInput, match="audit log was changed"):
        registry.champion("chest")
    registry.download(registry.get_version("chest", "2"))  # a reviewer may still look


def test_a_damaged_database_is_bad_input_wherever_it_is_asked(two: None, home: Workspace) -> None:
    path = home.home / "mlflow.db"
    path.write_bytes(os.urandom(path.stat().st_size))
    for ask in (
        lambda: registry.versions(),
        lambda: registry.champion("chest"),
        lambda: registry.quick_champion("chest"),
        lambda: registry.quick_tags("chest", "1"),
    ):
        with pytest.raises(BadInput, match="restore it from a backup"):
            ask()
