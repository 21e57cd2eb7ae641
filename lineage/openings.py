"""Who opened the sealed test split, when and why: a set that is looked at again and again is no
longer a test. The ledger only grows: one file for each opening, so that jobs which share no disk
can add to it side by side."""

import getpass
import json
import os
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from lineage.files import write_json
from lineage.workspace import workspace

FOLDER = "test_openings"
_FORMER = "test_openings.jsonl"  # one line each, until there was more than one machine
_JOBS_STATE = "LIGHTBOX_STATE"  # set where an engine runs a step, under a login that is nobody's


def record_opening(
    test_set_digest: str, model_digest: str, champion_digest: str | None, reason: str
) -> None:
    """Write down one opening. Called before a label is compared with a score, so that a run which
    breaks off afterwards counts as well."""
    now = datetime.now(UTC)
    write_json(
        workspace().ledgers / FOLDER / f"{now:%Y%m%dT%H%M%S%f}-{uuid4().hex[:8]}.json",
        {
            "at": now.isoformat(timespec="seconds"),
            "actor": _actor(),
            "reason": reason,
            "model_digest": model_digest,
            "champion_digest": champion_digest,
            "test_set_digest": test_set_digest,
        },
    )


def openings(test_set_digest: str) -> list[dict[str, Any]]:
    """Every opening of one test set in this workspace, oldest first; their number is the count.

    Of those from before they were asked for, nobody knows who and why: these are None.
    """
    former, folder = workspace().ledgers / _FORMER, workspace().ledgers / FOLDER
    texts = former.read_text().splitlines() if former.exists() else []
    texts += [path.read_text() for path in sorted(folder.glob("*.json"))]
    entries: list[dict[str, Any]] = [
        {"actor": None, "reason": None} | json.loads(text) for text in texts
    ]
    return [entry for entry in entries if entry["test_set_digest"] == test_set_digest]


def _actor() -> str:
    """The person at this machine; in an engine's job, the step."""
    if not os.environ.get(_JOBS_STATE):
        try:
            return f"person:{getpass.getuser()}"
        except (KeyError, OSError):  # a user without a name, as containers have
            pass
    return "step:evaluate"
