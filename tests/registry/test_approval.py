from pathlib import Path

import pytest

from lineage.digest import tree_digest
from lineage.errors import BadInput
from lineage.workspace import Workspace
from registry import audit_log
from registry.approval import approve, refuse, settle
from registry.config import Policy, PromotionConfig
from registry.decisions import decision
from registry.mlflow_registry import (
    Version,
    get_version,
    move_champion,
    register_model,
    require_approved,
)

MANUAL = PromotionConfig()
DEMO = PromotionConfig(approver="policy", policy=Policy(name="demo", min_patients=50))


def registered(folder: Path, outcome: str = "pass", patients: int = 120) -> Version:
    for part in ("model", "verdict"):
        (folder / part).mkdir(parents=True)
        (folder / part / "file.json").write_text(outcome)
    tags = {"verdict": outcome, "reason": "so it is", "test_patients": str(patients)}
    return register_model("chest", folder / "model", tags, {"verdict": folder / "verdict"})


def read(version: Version):
    verdict_digest = version.tags["verdict_digest"]
    return decision(version.name, version.version, version.digest, verdict_digest)


def settled(config: PromotionConfig, version: Version):
    return settle(config, version.name, version.version, version.tags["verdict_digest"])


def test_a_person_approves_and_the_log_says_who_when_and_why(
    registry_home: Workspace, tmp_path: Path
) -> None:
    version = registered(tmp_path)
    assert read(version) is None
    made = approve("chest", "1", actor="ada", reason="read the dossier")
    assert read(version) == made == settled(MANUAL, version)
    assert (made.approved, made.actor, made.reason) == (True, "ada", "read the dossier")
    entry = audit_log.entries("chest:1")[-1]
    assert entry.new == {
        "model_digest": version.digest,
        "verdict_digest": tree_digest(tmp_path / "verdict"),
    }
    assert get_version("chest", "1").tags["approval_actor"] == "ada"


def test_approving_twice_is_one_row(registry_home: Workspace, tmp_path: Path) -> None:
    registered(tmp_path)
    first = approve("chest", "1", actor="ada", reason="good")
    assert approve("chest", "1", actor="ada", reason="good") == first
    assert len(audit_log.entries()) == 2


def test_the_last_word_counts(registry_home: Workspace, tmp_path: Path) -> None:
    version = registered(tmp_path)
    approve("chest", "1", actor="ada", reason="good")
    refuse("chest", "1", actor="bob", reason="doubts")
    assert not read(version).approved
    assert settled(MANUAL, version).reason == "doubts"
    assert audit_log.entries()[-1].old == {"approved": True, "actor": "ada"}


@pytest.mark.parametrize("outcome", ["fail", "inconclusive"])
def test_what_the_gate_did_not_pass_can_never_be_approved(
    registry_home: Workspace, tmp_path: Path, outcome: str
) -> None:
    version = registered(tmp_path, outcome)
    with pytest.raises(BadInput, match=f"its verdict is {outcome}"):
        approve("chest", "1", actor="ada", reason="I like it")
    for config in (MANUAL, DEMO):
        assert not settled(config, version).approved


def test_an_approval_names_the_verdict_that_was_read(
    registry_home: Workspace, tmp_path: Path
) -> None:
    registered(tmp_path)
    with pytest.raises(BadInput, match="another verdict"):
        approve("chest", "1", actor="ada", reason="good", verdict_digest="0" * 64)
    with pytest.raises(BadInput, match="another verdict"):
        settle(MANUAL, "chest", "1", "0" * 64)


def test_an_approval_of_one_model_is_none_of_another(
    registry_home: Workspace, tmp_path: Path
) -> None:
    version = registered(tmp_path)
    approve("chest", "1", actor="ada", reason="good")
    verdict_digest = version.tags["verdict_digest"]
    assert decision("chest", "1", "0" * 64, verdict_digest) is None
    assert decision("chest", "1", version.digest, "0" * 64) is None
    assert decision("chest", "2", version.digest, verdict_digest) is None


def test_manual_promotion_says_how_to_approve(registry_home: Workspace, tmp_path: Path) -> None:
    waiting = settled(MANUAL, registered(tmp_path))
    assert not waiting.approved
    assert waiting.reason == "no person has decided yet: lightbox approve chest:1 --reason …"
    assert len(audit_log.entries()) == 1


def test_a_policy_approves_in_its_own_name(registry_home: Workspace, tmp_path: Path) -> None:
    version = registered(tmp_path)
    made = settled(DEMO, version)
    assert (made.approved, made.actor) == (True, "policy:demo")
    assert settled(DEMO, version) == made
    assert len(audit_log.entries()) == 2
    # What a rule approved, a pipeline that wants a person does not take.
    assert settled(MANUAL, version).reason.startswith("no person has decided yet")


def test_a_policy_refuses_what_was_tested_on_too_few(
    registry_home: Workspace, tmp_path: Path
) -> None:
    made = settled(DEMO, registered(tmp_path, patients=49))
    assert (made.approved, made.reason) == (False, "tested on 49 patients, wants 50")
    assert audit_log.entries()[-1].action == "refused"


def test_a_persons_word_outranks_a_policy(registry_home: Workspace, tmp_path: Path) -> None:
    version = registered(tmp_path)
    refuse("chest", "1", actor="ada", reason="recalled scanner")
    assert settled(DEMO, version).reason == "recalled scanner"
    assert len(audit_log.entries()) == 2


def test_a_person_cannot_sign_as_a_policy(registry_home: Workspace, tmp_path: Path) -> None:
    registered(tmp_path)
    for decide in (approve, refuse):
        with pytest.raises(BadInput, match="names no person"):
            decide("chest", "1", actor="policy:demo", reason="good")


def judged_again(folder: Path) -> Version:
    """The same model under a new verdict, as each run that compares it with itself brings one."""
    (folder / "verdict" / "file.json").write_text("pass, once more")
    tags = {"verdict": "pass", "reason": "again", "test_patients": "120"}
    return register_model("chest", folder / "model", tags, {"verdict": folder / "verdict"})


def test_the_model_in_service_needs_no_second_approval(
    registry_home: Workspace, tmp_path: Path
) -> None:
    registered(tmp_path)
    let_in = approve("chest", "1", actor="ada", reason="read the dossier")
    assert not settled(MANUAL, judged_again(tmp_path)).approved  # not in service yet
    approve("chest", "1", actor="ada", reason="read it again")
    move_champion("chest", "1", actor="step:deploy_canary", reason="released")
    (tmp_path / "verdict" / "more.json").write_text("{}")
    again = judged_again(tmp_path)
    assert settled(MANUAL, again).approved
    assert require_approved(again) == again
    assert move_champion("chest", "1", actor="step:deploy_canary", reason="released")
    refuse("chest", "1", actor="ada", reason="a fault was found")
    assert not settled(MANUAL, again).approved
    with pytest.raises(BadInput, match="is not approved"):
        require_approved(again)
    assert let_in.approved
