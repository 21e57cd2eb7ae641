"""What was examined before: facts of files by their content, and the cleaned files, kept for later.

A file that looks as it did is not opened again, and one with the same bytes is not cleaned again;
masks neither.
Nothing in here says who anybody is: identifiers are HMACs under the pseudonym key, and a PatientID,
whose order is needed, is encrypted under it. Losing the folder costs time only.

facts.sqlite         `looks` of source files (no names: those may be patients'), `facts` by content
cleaned/<..>/<…>     cleaned files by the SHA-256 of what they were made from
masks/<..>/<…>       cleaned masks by their own SHA-256: a file may hold several
drafts/<…>           one that is not yet checked
lock                 held by all who are at work, however they end
"""

import fcntl
import json
import os
import shutil
import sqlite3
import stat
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from lineage.digest import keyed_digest
from lineage.files import forget_time

FOLDER = "ingested"
AT_REST_NS = (
    2_000_000_000  # see lineage/known.py: of a file that was just written, looks say little
)

Facts = dict[str, Any]

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (id INTEGER PRIMARY KEY, content TEXT UNIQUE, facts TEXT) STRICT;
CREATE TABLE IF NOT EXISTS looks (look TEXT PRIMARY KEY, id INTEGER) STRICT, WITHOUT ROWID;
"""


class Ingested:
    """The folder of one way of cleaning: policy, key and code are part of its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("cleaned", "drafts"):
            (folder / name).mkdir(exist_ok=True)
        self._lock = (folder / "lock").open("w")
        with suppress(BlockingIOError):  # others are at work, perhaps in other containers
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for draft in (folder / "drafts").iterdir():  # their writers were killed
                draft.unlink()
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        try:
            self._database = _open(folder)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            (folder / "facts.sqlite").unlink()
            self._database = _open(folder)
        os.utime(folder)  # still of use: see pipelines/garbage.py

    def recall(self, look: str | None) -> int | None:
        """The row of a file that looks so, if what was made of it is still whole."""
        found = self._database.execute("SELECT id FROM looks WHERE look = ?", (look,)).fetchone()
        return found[0] if found and is_whole(self.folder, self.facts(found[0])) else None

    def find(self, content: str) -> int | None:
        """The row of files with this content."""
        query = "SELECT id FROM facts WHERE content = ?"
        found = self._database.execute(query, (content,)).fetchone()
        return found[0] if found else None

    def facts(self, row: int) -> Facts:
        """The facts in a row."""
        query = "SELECT facts FROM facts WHERE id = ?"
        return dict(json.loads(self._database.execute(query, (row,)).fetchone()[0]))

    def keep(self, content: str, facts: Facts) -> int:
        """Store what was found out of a file's content; its row."""
        query = (
            "INSERT INTO facts (content, facts) VALUES (?, ?)"
            " ON CONFLICT (content) DO UPDATE SET facts = excluded.facts RETURNING id"
        )
        text = json.dumps(facts, separators=(",", ":"))
        return int(self._database.execute(query, (content, text)).fetchone()[0])

    def remember(self, look: str, row: int) -> None:
        """Know the file by its look from now on."""
        self._database.execute("INSERT OR REPLACE INTO looks VALUES (?, ?)", (look, row))

    def commit(self) -> None:
        """Have the disk hold it, and let others write."""
        self._database.commit()

    def place(self, name: str, target: Path, *, shared: bool = True) -> None:
        """Put a file where it is wanted: the same bytes on disk if it is to be shared."""
        target.parent.mkdir(parents=True, exist_ok=True)
        source = self.folder / name
        if not shared:
            shutil.copyfile(source, target)
            return
        try:
            target.hardlink_to(source)
        except OSError:  # a file system without links, or with as many of them as it allows
            shutil.copy2(source, target)

    def close(self) -> None:
        """Keep what was found out."""
        self._database.commit()
        self._database.close()
        self._lock.close()


def _open(folder: Path) -> sqlite3.Connection:
    database = sqlite3.connect(folder / "facts.sqlite", timeout=60)
    database.execute("PRAGMA synchronous = NORMAL")  # a lost power costs time, never truth
    database.executescript(_TABLES)
    return database


@contextmanager
def ingested(cache: Path | None, recipe: str, output: Path) -> Iterator[Ingested]:
    """Open the folder of a recipe; without a cache it lies in the output until the work is done.

    Args:
        cache: Where the folders of all recipes lie. On another disk than the output it would hold
            everything twice, and is left alone.
        recipe: Names everything that the facts depend on but the file.
        output: Where cleaned files will be placed.
    """
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        if cache.stat().st_dev == output.stat().st_dev:
            store = Ingested(cache / recipe)
            try:
                yield store
            finally:
                store.close()
            return
    scratch = scratch_path(output, recipe)
    store = Ingested(scratch)
    try:
        yield store
    except KeyboardInterrupt:  # the same again goes on from here, as it does after a kill
        store.close()
        raise
    except BaseException:
        store.close()
        shutil.rmtree(scratch)
        raise
    store.close()
    shutil.rmtree(scratch)


def scratch_path(output: Path, recipe: str) -> Path:
    """What lies in an output while it is being made."""
    return output / f".ingesting-{recipe[:16]}"


def knower(folder: Path) -> Callable[[str], bool]:
    """Tells, in another process, whether a content was examined and its cleaned file is whole."""
    database = sqlite3.connect(
        f"{(folder / 'facts.sqlite').as_uri()}?mode=ro", uri=True, timeout=60
    )
    query = "SELECT facts FROM facts WHERE content = ?"

    def knows(content: str) -> bool:
        found = database.execute(query, (content,)).fetchone()
        return found is not None and is_whole(folder, json.loads(found[0]))

    return knows


def cleaned_name(facts: Facts) -> str:
    """Where the cleaned file of a source file lies, below the folder."""
    file_sha256 = facts["file_sha256"]
    return f"cleaned/{file_sha256[:2]}/{file_sha256}"


def write_checked(
    data: bytes, name: str, folder: Path, facts: Facts, check: Callable[[Path], list[Any]]
) -> None:
    """Write a file where nobody looks, check, and only then give it its place.

    Args:
        data: Its bytes.
        name: Its place, below the folder.
        folder: Of `Ingested`.
        facts: Told how it looks, or what went wrong.
        check: Gives the leaks, as dataclasses.
    """
    path, draft = folder / name, folder / "drafts" / uuid4().hex
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        forget_time(draft)
        draft.chmod(0o444)  # snapshots share it: whoever edits one would edit all
    except OSError as error:
        facts["unwritable"] = error.strerror  # no fault of this file's: it must not cost the file
        return
    if leaks := check(draft):
        facts["leaks"] = [asdict(leak) for leak in leaks]
        draft.unlink()
        return
    draft.replace(path)
    facts.setdefault("cleaned", {})[name] = as_written(path)


def is_whole(folder: Path, facts: Facts) -> bool:
    """Whether what was written of a file, if anything, is as it was written."""
    with suppress(OSError):
        written = facts.get("cleaned", {}).items()
        return all(as_written(folder / name) == found for name, found in written)
    return False


def as_written(path: Path) -> list[int]:
    """How a file looks that only we write: inode, size, modified. A new link to it moves ctime."""
    found = path.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def look(found: os.stat_result) -> str | None:
    """How a source file looks; None for what is no regular file."""
    if not stat.S_ISREG(found.st_mode):
        return None
    size, times = found.st_size, (found.st_mtime_ns, found.st_ctime_ns)
    return " ".join(map(str, (found.st_dev, found.st_ino, size, *times)))


def at_rest(found: os.stat_result, now_ns: int) -> bool:
    """Whether a look taken now will change with the file's next change."""
    return max(found.st_mtime_ns, found.st_ctime_ns) < now_ns - AT_REST_NS


def seal(key: bytes, text: str) -> str:
    """Encrypt a text under the pseudonym key (AES-256-GCM, random nonce)."""
    nonce = os.urandom(12)
    data = _cipher(key).encrypt(nonce, text.encode("utf-8", "surrogatepass"), None)
    return b64encode(nonce + data).decode()


def unseal(key: bytes, sealed: str) -> str:
    """The text again."""
    data = b64decode(sealed)
    return str(_cipher(key).decrypt(data[:12], data[12:], None), "utf-8", "surrogatepass")


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(bytes.fromhex(keyed_digest(key, "seal", FOLDER)))
