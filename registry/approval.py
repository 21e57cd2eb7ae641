"""Who allowed a version to serve: a person, or a policy that names itself as one.

A decision is bound to the digests of the model and of the verdict that it was taken on, so a
changed model or a new verdict waits for a decision of its own (21 CFR 11.70: an approval cannot be
moved to another record). That the approver is not the author is not checked yet.
"""

from lineage.errors import BadInput
from registry import audit_log
from registry.config import Policy, PromotionConfig
from registry.decisions import POLICY, Decision, decision
from registry.mlflow_registry import Version, attested, decision_in_force, get_version, set_tags


def approve(
    name: str, version: str, *, actor: str, reason: str, verdict_digest: str | None = None
) -> Decision:
    """Let a person allow a version to serve.

    Args:
        name: The registered model.
        version: Its version number.
        actor: Who approves; never a `policy:` name.
        reason: Why, in words.
        verdict_digest: The verdict that was read; by default the version's current one.

    Raises:
        BadInput: The gate did not pass the version, it has another verdict by now, there is no such
            version, or no actor or reason is named.
    """
    return _decide(True, name, version, _person(actor), reason, verdict_digest)


def refuse(
    name: str, version: str, *, actor: str, reason: str, verdict_digest: str | None = None
) -> Decision:
    """Let a person refuse a version, whatever the gate said. Arguments and errors as `approve`."""
    return _decide(False, name, version, _person(actor), reason, verdict_digest)


def apply_policy(policy: Policy, name: str, version: str, verdict_digest: str) -> Decision:
    """Let a policy decide, unless a person did already: a person's word outranks a rule's.

    Raises:
        BadInput: As `approve`.
    """
    found = attested(get_version(name, version))
    _same_verdict(found, verdict_digest)
    known = decision(name, version, found.digest, verdict_digest)
    if known and known.by_person:
        return known
    patients = int(found.tags.get("test_patients", 0))
    if found.verdict != policy.require_outcome:
        approved, reason = False, f"the gate's outcome is {found.verdict}"
    elif patients < policy.min_patients:
        approved, reason = False, f"tested on {patients} patients, wants {policy.min_patients}"
    else:
        approved, reason = True, f"the gate passed it on {patients} test patients"
    return _decide(approved, name, version, POLICY + policy.name, reason, verdict_digest)


def settle(config: PromotionConfig, name: str, version: str, verdict_digest: str) -> Decision:
    """Find out whether a version may serve: by policy, or by what a person said already.

    Raises:
        BadInput: The verdict is not the one that the version is registered with.
    """
    if config.policy:
        return apply_policy(config.policy, name, version, verdict_digest)
    found = attested(get_version(name, version))
    _same_verdict(found, verdict_digest)
    if found.verdict != "pass":
        return Decision(False, "", f"the gate's outcome is {found.verdict}", "")
    known = decision_in_force(name, version, found.digest, verdict_digest)
    if known and known.by_person:
        return known
    way = f"lightbox approve {name}:{version} --reason …"
    return Decision(False, "", f"no person has decided yet: {way}", "")


def _person(actor: str) -> str:
    kind, colon, _ = actor.partition(":")
    if colon and kind != "person":
        raise BadInput(f"{actor!r} names no person: sign with the name of one")
    return actor


def _decide(
    approved: bool, name: str, version: str, actor: str, reason: str, verdict_digest: str | None
) -> Decision:
    found = attested(get_version(name, version))
    subject, current = f"{name}:{version}", found.tags.get("verdict_digest", "")
    if approved and found.verdict != "pass":
        raise BadInput(f"{subject} cannot be approved: its verdict is {found.verdict}")
    if verdict_digest is not None:
        _same_verdict(found, verdict_digest)
    known = decision(name, version, found.digest, current)
    if known and (known.approved, known.actor, known.reason) == (approved, actor, reason):
        return known
    entry = audit_log.append(
        actor=actor,
        action="approved" if approved else "refused",
        subject=subject,
        reason=reason,
        old={"approved": known.approved, "actor": known.actor} if known else None,
        new={"model_digest": found.digest, "verdict_digest": current},
    )
    # For MLflow's own pages; what counts is the entry above.
    set_tags(
        name,
        version,
        {
            "approval": entry.action,
            "approval_actor": actor,
            "approval_reason": reason,
            "approval_at": entry.at,
        },
    )
    return Decision(approved, actor, reason, entry.at)


def _same_verdict(found: Version, verdict_digest: str) -> None:
    if found.tags.get("verdict_digest") != verdict_digest:
        raise BadInput(
            f"{found.name}:{found.version} is registered with another verdict than this one: "
            "read that one, then decide"
        )
