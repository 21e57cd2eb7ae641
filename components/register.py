"""Put the model into the registry with its verdict and where it came from, refused ones too."""

import json
from pathlib import Path
from typing import NamedTuple

from components.contract import Input, Output, component
from lineage.files import write_json
from registry.config import RegistrationConfig
from registry.mlflow_registry import quick_tags


class Registered(NamedTuple):
    model_version: str  # NAME:VERSION
    model_digest: str


def still_registered(version: Path) -> bool:
    """The registry still holds this model, under this verdict."""
    made = json.loads((version / "version.json").read_text())
    tags = quick_tags(made["name"], made["version"])
    return all(tags.get(key) == made[key] for key in ("model_digest", "verdict_digest"))


@component(receipt=still_registered, registers="model", state=("audit.db",))
def register(
    config: RegistrationConfig,
    model: Input,
    metrics: Input,
    verdict: Input,
    reference: Input,
    snapshot: Input,
    splits: Input,
    validation: Input,
    version: Output,
) -> Registered:
    """Register the model, once per digest.

    Reads:
        model, metrics, verdict, reference, validation: Kept in the registry whole.
        snapshot, splits: Named by digest, with counts and the proof of de-identification.

    Writes:
        version/version.json: name, version, model_digest, verdict, verdict_digest, run_id.
    """
    from registry.registration import register as register_with_evidence

    made = register_with_evidence(
        config.name,
        model=model,
        metrics=metrics,
        verdict=verdict,
        reference=reference,
        snapshot=snapshot,
        splits=splits,
        validation=validation,
    )
    facts = {
        "name": made.name,
        "version": made.version,
        "model_digest": made.digest,
        "verdict": made.verdict,
        "verdict_digest": made.tags["verdict_digest"],
        "reason": made.reason,
        "run_id": made.run_id,
    }
    write_json(version / "version.json", facts)
    return Registered(f"{made.name}:{made.version}", made.digest)
