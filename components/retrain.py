"""Ask for a new model when drift, labels and the time since the last request call for one."""

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from components.contract import Input, Output, component
from lineage.files import write_json
from lineage.workspace import workspace
from monitoring.config import FACTS, RetrainingConfig
from monitoring.retraining import (
    REQUEST,
    REQUESTED,
    cause_of,
    decide,
    last_asked,
    newly_labelled,
    read_requests,
)


class Retraining(NamedTuple):
    requested: bool
    reason: str


def still_requested(request: Path) -> bool:
    """Only a request stands; who waits for labels or time must look again."""
    facts = json.loads((request / REQUEST).read_text())
    standing = workspace().requests / f"{facts['name']}.json"
    return facts["status"] == REQUESTED and standing.exists()


@component(
    secrets=("pseudonym.key",),
    state=("requests/*.json", "secrets/crosswalk.sqlite"),
    receipt=still_requested,
    identities=True,
)
def retrain(
    config: RetrainingConfig, report: Input, snapshot: Input, labels: Input, request: Output
) -> Retraining:
    """File a request that the launcher acts on; the same cause is one request, however often.

    Reads: report/drift.json, snapshot/manifest.parquet; labels, the table as it is now.
    Writes: request/request.json. Effect: the same content as <workspace>/requests/<name>.json if
        a new model is asked for or only labels are lacking; whoever acts reads its `status`.
    """
    from imaging.deidentification.pseudonyms import open_names
    from imaging.manifest import read_manifest
    from imaging.snapshots.snapshot import crosswalk_path

    here = workspace()
    drift = json.loads((report / FACTS).read_text())
    drift_report, name = cause_of(report, config)
    earlier = read_requests(here.requests)
    content = earlier.get(name, {})
    if content.get("status") != REQUESTED:
        now = datetime.now(UTC)
        key = here.secret("pseudonym.key")
        with closing(open_names(config.deidentification, key, crosswalk_path())) as names:
            new, unit = newly_labelled(read_manifest(snapshot), labels, config, names)
        decision = decide(drift["verdict"], new, unit, last_asked(earlier.values()), now, config)
        content = {
            "name": name,
            "status": decision.status,
            "reason": decision.reason,
            "cause": {"drift_report": drift_report, "model_digest": drift["model_digest"]},
            "newly_labelled": new,
            "unit": unit,
            "at": now.isoformat(timespec="seconds"),
        }
        if decision.status in (REQUESTED, "waiting: labels needed"):
            write_json(here.requests / f"{name}.json", content)
    write_json(request / REQUEST, content)
    return Retraining(requested=content["status"] == REQUESTED, reason=content["reason"])
