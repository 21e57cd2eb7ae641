"""Who opened the sealed test split, and how often: a set that is looked at again and again is
no longer a test. The ledger only grows: one file for each opening, so that jobs which share no disk
can add to it side by side."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from lineage.files import write_json
from lineage.workspace import workspace

_FOLDER = "test_openings"
_FORMER = "test_openings.jsonl"  # one line each, until there was more than one machine


def record_opening(test_set_digest: str, model_digest: str, champion_digest: str | None) -> None:
    """Write down one opening. Called before a label is compared with a score, so that a run which
    breaks off afterwards counts as well."""
    now = datetime.now(UTC)
    write_json(
        workspace().ledgers / _FOLDER / f"{now:%Y%m%dT%H%M%S%f}-{uuid4().hex[:8]}.json",
        {
            "at": now.isoformat(timespec="seconds"),
            "model_digest": model_digest,
            "champion_digest": champion_digest,
            "test_set_digest": test_set_digest,
        },
    )


def openings(test_set_digest: str) -> list[dict[str, Any]]:
    """Every opening of one test set in this workspace, oldest first; their number is the count."""
    former, folder = workspace().ledgers / _FORMER, workspace().ledgers / _FOLDER
    texts = former.read_text().splitlines() if former.exists() else []
    texts += [path.read_text() for path in sorted(folder.glob("*.json"))]
    entries: list[dict[str, Any]] = [json.loads(text) for text in texts]
    return [entry for entry in entries if entry["test_set_digest"] == test_set_digest]
