"""What the endpoint remembers of a request: numbers about the image, never image or owner."""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imaging.manifest import HEADER_FIELDS, STATISTICS
from imaging.reading.acquisition import PLAIN
from serving.target import Tag

_NUMBERS = {"rows", "columns", "bits_stored", "pixel_spacing_mm"}
# No caret: it separates the parts of a person's name in DICOM (PS3.5, 6.2.1).


@dataclass(frozen=True)
class Record:
    """One request. Statistics and header are empty if the image could not be read."""

    request_id: str
    variant: str
    model_digest: str
    score: float | None
    latency_ms: float
    error: str | None
    tag: Tag
    statistics: Mapping[str, float]
    header: Mapping[str, Any]


class Capture:
    """Appends records to one JSON-lines file per day (UTC), each line whole or absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def write(self, record: Record) -> None:
        """Append one line and hand it to the system before returning.

        Raises:
            OSError: The line could not be written; the request must then fail as well.
        """
        now = datetime.now(UTC)
        line = (json.dumps(_line(record, now), allow_nan=False) + "\n").encode()
        path = self._folder / f"{now:%Y-%m-%d}.jsonl"
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                size = os.fstat(file).st_size
                if os.write(file, line) != len(line):  # a full disk takes part of a line
                    os.ftruncate(file, size)
                    raise OSError("the captured line could not be written whole")
            finally:
                os.close(file)


def _line(record: Record, now: datetime) -> dict[str, Any]:
    # Field by field from fixed lists: what a caller adds to either mapping goes nowhere.
    return {
        "at": now.isoformat(timespec="milliseconds"),
        "request_id": record.request_id,
        "variant": record.variant,
        "model_digest": record.model_digest,
        "score": record.score,
        "latency_ms": round(record.latency_ms, 3),
        "error": record.error,
        "tag": record.tag,
        **{name: _number(record.statistics.get(name)) for name in STATISTICS},
        **{name: _header_value(name, record.header.get(name)) for name in HEADER_FIELDS},
    }


def _header_value(name: str, value: Any) -> str | float | None:
    if name in _NUMBERS:
        return _number(value)
    return value if isinstance(value, str) and PLAIN.fullmatch(value) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 1e12 else None  # False for NaN as well
