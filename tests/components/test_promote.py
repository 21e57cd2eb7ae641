import json
from pathlib import Path
from typing import Any

import pytest
from evidence import judge, parts, prepare_registry

from components.promote import promote, still_approved
from components.register import register
from components.runtime import execute
from lineage.errors import BadInput
from lineage.workspace import Workspace
from registry.approval import approve, refuse
from registry.config import Policy, PromotionConfig, RegistrationConfig

MANUAL = PromotionConfig()
DEMO = PromotionConfig(approver="policy", policy=Policy(name="demo"))


@pytest.fixture
def inputs(home: Workspace, tmp_path: Path) -> dict[str, Path]:
    prepare_registry(home)
    made = parts(tmp_path / "parts")
    execute(register, RegistrationConfig(name="chest"), made, {"version": tmp_path / "version"})
    return {"version": tmp_path / "version", "verdict": made["verdict"]}


def promoted(
    config: PromotionConfig, inputs: dict[str, Path], to: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    values, _ = execute(promote, config, inputs, {"approval": to})
    return values, json.loads((to / "approval.json").read_text())


def test_it_waits_until_a_person_approved(inputs: dict[str, Path], tmp_path: Path) -> None:
    values, told = promoted(MANUAL, inputs, tmp_path / "waiting")
    assert values["approved"] is False
    assert values["reason"] == "no person has decided yet: lightbox approve chest:1 --reason …"
    assert (told["actor"], told["at"]) == (None, None)
    assert still_approved(approval=tmp_path / "waiting")  # nothing to do until someone decides

    approve("chest", "1", actor="ada", reason="read the dossier")
    assert not still_approved(approval=tmp_path / "waiting")
    values, told = promoted(MANUAL, inputs, tmp_path / "approved")
    assert values == {"approved": True, "reason": "read the dossier"}
    version = json.loads((inputs["version"] / "version.json").read_text())
    assert (told["name"], told["version"], told["actor"]) == ("chest", "1", "ada")
    assert told["model_digest"] == version["model_digest"]
    assert still_approved(approval=tmp_path / "approved")

    refuse("chest", "1", actor="bob", reason="recalled")
    assert not still_approved(approval=tmp_path / "approved")
    assert promoted(MANUAL, inputs, tmp_path / "refused")[0] == {
        "approved": False,
        "reason": "recalled",
    }


def test_a_policy_approves_and_is_shown_as_one(inputs: dict[str, Path], tmp_path: Path) -> None:
    values, told = promoted(DEMO, inputs, tmp_path / "approval")
    assert values["approved"] is True
    assert told["actor"] == "policy:demo"


def test_a_verdict_that_is_not_the_registered_one_is_refused(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    judge(inputs["verdict"], "inconclusive")
    for config in (MANUAL, DEMO):
        with pytest.raises(BadInput, match="another verdict"):
            promoted(config, inputs, tmp_path / "approval")


def test_its_contract() -> None:
    assert promote.effect
    assert promote.values == {"approved": bool, "reason": str}
