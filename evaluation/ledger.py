"""Who opened the sealed test split, and how often: a set that is looked at again and again is
no longer a test. The ledger only grows."""

import json
from datetime import UTC, datetime
from typing import Any

from lineage.workspace import workspace

_NAME = "test_openings.jsonl"


def record_opening(test_set_digest: str, model_digest: str, champion_digest: str | None) -> None:
    """Write down one opening. Called before a label is compared with a score, so that a run which
    breaks off afterwards counts as well."""
    path = workspace().ledgers / _NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(
        {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "model_digest": model_digest,
            "champion_digest": champion_digest,
            "test_set_digest": test_set_digest,
        }
    )
    with path.open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())  # one write in append mode: runs side by side do not mix


def openings(test_set_digest: str) -> list[dict[str, Any]]:
    """Every opening of one test set in this workspace, oldest first; their number is the count."""
    path = workspace().ledgers / _NAME
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        entry for line in lines if (entry := json.loads(line))["test_set_digest"] == test_set_digest
    ]
