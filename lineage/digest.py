"""Names for content. A digest never depends on dates, owners, or where a file lies."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

RECORD = ".lineage.json"


def digest(kind: str, *parts: Any) -> str:
    """Hash a record of JSON values to 64 hex digits.

    `kind` keeps, say, a config and a file with equal bytes apart (the idea is redun's).
    """
    text = json.dumps([kind, *parts], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def keyed_digest(key: bytes, kind: str, text: str) -> str:
    """HMAC-SHA256 (RFC 2104) of a text under a secret: nobody without the key can guess back."""
    return hmac.new(key, f"{kind}\0{text}".encode(), hashlib.sha256).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(path: Path) -> str:
    """Hash a file by its bytes, or a directory by relative paths and bytes.

    A directory's own record (`.lineage.json`) does not count, so that what a thing is
    called does not depend on how it came about.

    Raises:
        FileNotFoundError: Nothing lies there; a missing input must never look like an empty one.
    """
    if path.is_file():
        return digest("file", file_digest(path))
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist")
    files = sorted(p for p in path.rglob("*") if p.is_file() and p != path / RECORD)
    return digest("tree", [[p.relative_to(path).as_posix(), file_digest(p)] for p in files])
