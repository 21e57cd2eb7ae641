"""The page of `lightbox deidentify`: what was done to each attribute, and what is left to think of.

It holds counts, keywords of the standard and the policy; no value, no file's name, no identifier.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from imaging.deidentification import deidentify, profile
from imaging.deidentification.policy import DeidentificationPolicy, not_safe_harbor
from imaging.deidentification.risk import fragment, retained, risk_summary
from imaging.reasons import REASONS
from imaging.snapshots.cleaning import Cleaned
from pipelines.reporting.report import STYLE

PAGE, FACTS = "deidentification.html", "deidentification.json"
TEMPLATE = Path(__file__).with_name(PAGE)
KINDS = ("removed", "emptied", "replaced", "kept", "added")


def rules_of(policy: DeidentificationPolicy) -> dict[str, Any]:
    """What a policy asks for, in the words of the standard, and what it rules out."""
    return {
        "tool": deidentify.TOOL,
        "edition": profile.EDITION,
        "policy": policy.model_dump(mode="json"),
        "policy_digest": profile.policy_digest(policy),
        "codes": profile.codes(policy),
        "not_safe_harbor": list(not_safe_harbor(policy)),
    }


def facts_of(cleaned: Cleaned, policy: DeidentificationPolicy, key: str) -> dict[str, Any]:
    """All that the page and a machine are told: counts, keywords of the standard, the policy.

    Args:
        cleaned: What became of the files.
        policy: That it was done by.
        key: The key's fingerprint.
    """
    counts = ("found", "written", "pictures", "masked", "patients", "studies", "series")
    names = (*counts, "sums_sha256", "held", "done", "checks")
    return {
        **rules_of(policy),
        "key_fingerprint": key,
        **{name: getattr(cleaned, name) for name in names},
        "risk": fragment(risk_summary(cleaned.rows, retained(policy))),
    }


def not_looked_at(facts: Mapping[str, Any]) -> str:
    """What nobody and nothing has looked at, as a sentence; empty if there is none."""
    if not facts["pictures"] or facts["policy"]["text_in_pixels"]["ocr"]:
        return ""
    return (
        f"{facts['pictures']} pictures and volumes without a header were written anew without any "
        "metadata, but text in their pixels was not looked for: look at them, or set "
        "text_in_pixels.ocr."
    )


def page(facts: Mapping[str, Any]) -> str:
    """One HTML page that loads nothing from elsewhere.

    Args:
        facts: As `lightbox deidentify --json` prints them.
    """
    from jinja2 import Environment, StrictUndefined

    engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return engine.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        facts=facts,
        policy=yaml.safe_dump(facts["policy"], sort_keys=False, allow_unicode=True),
        risk=facts["risk"],
        reasons=REASONS,
        kinds=KINDS,
        not_looked_at=not_looked_at(facts),
        style=STYLE.read_text(encoding="utf-8"),
    )
