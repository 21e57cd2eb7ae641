"""Names for content. A digest never depends on dates, owners, or where a file lies."""

import hashlib
import hmac
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

RECORD = ".lineage.json"
# No step reads a file as large as this, and a sparse one costs its author nothing.
HUGE_BYTES = 16 * 2**30


def digest(kind: str, *parts: Any) -> str:
    """Hash a record of JSON values to 64 hex digits.

    `kind` keeps, say, a config and a file with equal bytes apart (the idea is redun's).
    """
    text = json.dumps([kind, *parts], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def keyed_digest(key: bytes, kind: str, text: str) -> str:
    """HMAC-SHA256 (RFC 2104) of a text under a secret: nobody without the key can guess back."""
    message = f"{kind}\0{text}".encode("utf-8", "surrogatepass")  # names of files are not all UTF-8
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with open(path, "rb") as file:  # noqa: PTH123  see _files
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(path: Path, of: Callable[[str], str] = file_digest) -> str:
    """Hash a file by its bytes, or a directory by relative paths and bytes.

    A directory's own record (`.lineage.json`) does not count, so that what a thing is
    called does not depend on how it came about. Folders that are links are not entered. Links,
    pipes and devices that lead to no file count by name and kind; they are never opened. So does
    a file that may not be read, and, by its size, one of more than `HUGE_BYTES`.

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
    found = sorted((name, kind) for name, kind in _files(str(path)) if name != RECORD)
    contents = [[name, _content(f"{path}/{name}", kind, of)] for name, kind in found]
    return digest("tree", contents)


def _content(path: str, kind: str, of: Callable[[str], str]) -> str:
    try:
        return digest(kind) if kind else of(path)
    except PermissionError:
        return digest("unreadable")


def _files(folder: str) -> Iterator[tuple[str, str]]:
    """Relative posix paths, each with its kind, which is empty for what can be read as a file.

    Plain text: a Path for each of 100,000 files costs a second. No recursion: folders may lie
    within each other a thousand times.
    """
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(f"{folder}/{below}") as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{below}{entry.name}/")
                else:
                    yield below + entry.name, _kind(entry)


def _kind(entry: os.DirEntry[str]) -> str:
    with suppress(OSError):  # a link in a circle, or to where nobody may look
        if entry.is_file():
            size = entry.stat().st_size
            return f"huge {size}" if size > HUGE_BYTES else ""
    if entry.is_symlink():
        return "link"
    return f"special {stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode):o}"
