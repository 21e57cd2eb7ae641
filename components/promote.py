"""Ask whether a passed model may serve: a policy decides, or a person did, or it waits."""

import json
from pathlib import Path
from typing import NamedTuple

from components.contract import Input, Output, component
from lineage.digest import tree_digest
from lineage.files import write_json
from registry.config import PromotionConfig
from registry.mlflow_registry import decision_in_force


class Promoted(NamedTuple):
    approved: bool
    reason: str


def still_approved(approval: Path) -> bool:
    """What was decided is still what was decided last; nothing, as long as nobody decides."""
    made = json.loads((approval / "approval.json").read_text())
    bound = (made[key] for key in ("name", "version", "model_digest", "verdict_digest"))
    now = decision_in_force(*bound)
    told = (now.approved, now.actor, now.at) if now else (False, None, None)
    return told == (made["approved"], made["actor"], made["at"])


@component(receipt=still_approved, state=("audit.db",))
def promote(config: PromotionConfig, version: Input, verdict: Input, approval: Output) -> Promoted:
    """Write down whether, by whom and why the version may serve.

    Reads:
        version/version.json: Which model.
        verdict: What the decision is bound to; it must be the registered one.

    Writes:
        approval/approval.json: approved, actor, reason, at, name, version, and both digests;
            actor and at are null while it waits.
    """
    from registry.approval import settle

    made = json.loads((version / "version.json").read_text())
    verdict_digest = tree_digest(verdict)
    decided = settle(config, made["name"], made["version"], verdict_digest)
    facts = {
        "approved": decided.approved,
        "actor": decided.actor or None,
        "reason": decided.reason,
        "at": decided.at or None,
        "name": made["name"],
        "version": made["version"],
        "model_digest": made["model_digest"],
        "verdict_digest": verdict_digest,
    }
    write_json(approval / "approval.json", facts)
    return Promoted(decided.approved, decided.reason)
