"""The record that every output carries: anything found in a bucket explains itself."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lineage.digest import RECORD, tree_digest
from lineage.files import write_json


def leave_record(output: Path, **facts: Any) -> str:
    """Write `.lineage.json` into an output directory and return the directory's digest.

    Facts are JSON values: step, code, config, environment, inputs (name to digest).
    """
    content = tree_digest(output)
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    # The files that it describes are not waited for either: a crash of the machine takes both.
    facts |= {"content": content, "made_at": made_at}
    write_json(output / RECORD, facts, durable=False)
    return content


def read_record(output: Path) -> dict[str, Any]:
    """What made this directory; empty for one that no step made."""
    path = output / RECORD
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return record
