"""Names for content. A digest never depends on dates, owners, or where a file lies."""

import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterator
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


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with open(path, "rb") as file:  # noqa: PTH123  see _files
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(path: Path, of: Callable[[str], str] = file_digest) -> str:
    """Hash a file by its bytes, or a directory by relative paths and bytes.

    A directory's own record (`.lineage.json`) does not count, so that what a thing is
    called does not depend on how it came about. Folders that are links are not entered.

    Args:
        path: A file or a directory.
        of: Gives the digest of one file; `lineage.known` has a quicker one.

    Raises:
        FileNotFoundError: Nothing lies there; a missing input must never look like an empty one.
    """
    if path.is_file():
        return digest("file", of(str(path)))
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist")
    names = sorted(name for name in _files(str(path)) if name != RECORD)
    return digest("tree", [[name, of(f"{path}/{name}")] for name in names])


def _files(folder: str, below: str = "") -> Iterator[str]:
    """Relative posix paths. Plain text: a Path for each of 100,000 files costs a second."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{below}{entry.name}/")
            elif entry.is_file():
                yield below + entry.name
