"""What was decided on a model, read from the audit log; `registry/approval.py` takes decisions."""

from dataclasses import dataclass

from registry import audit_log

POLICY = "policy:"  # an actor of this kind is a rule, not a person


@dataclass(frozen=True)
class Decision:
    """What was decided last on a model under a verdict; `at` is UTC, ISO 8601."""

    approved: bool
    actor: str
    reason: str
    at: str

    @property
    def by_person(self) -> bool:
        """False for a decision that a policy took."""
        return not self.actor.startswith(POLICY)


def decision(
    name: str, version: str, model_digest: str, verdict_digest: str | None = None
) -> Decision | None:
    """Read the last decision on exactly this model under exactly this verdict; None if none.

    Without a verdict, the last one under any: how a model that is in service came there.
    """
    found = [
        Decision(entry.action == "approved", entry.actor, entry.reason, entry.at)
        for entry in audit_log.entries(f"{name}:{version}")
        if entry.action in ("approved", "refused")
        and entry.new
        and entry.new["model_digest"] == model_digest
        and verdict_digest in (None, entry.new["verdict_digest"])
    ]
    return found[-1] if found else None
