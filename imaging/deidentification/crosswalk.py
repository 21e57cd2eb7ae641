"""Random names, and an encrypted file that says which is whose.

A row is found by an HMAC of the identifier and holds it encrypted (AES-256-GCM), both under keys
derived from the pseudonym key. Without that key the file tells how many names there are, and no
more. Names cannot be drawn again: who loses the file loses the way back, and the names themselves.
"""

import json
import os
import secrets
import sqlite3
import uuid
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

from lineage.digest import keyed_digest
from lineage.errors import BadInput

WAIT_S = 60.0  # for other processes that are writing
REMEMBERED = 10_000  # names per process: the same studies and series come again and again
# Kinds of file system that one machine has for itself.
LOCAL = {"apfs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"}


class Crosswalk:
    """Names drawn at first use; the first process to ask draws for all.

    Any number of processes may use one file. What `uid`, `patient` or `shift` has returned is in
    the file already: it outlives the process, however that ends.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        """Open the file, or make it, readable by its owner only.

        Raises:
            BadInput: Others can read it, it was made under another key, or it is no such file.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self.key = key
        self._cipher = AESGCM(bytes.fromhex(keyed_digest(key, "crosswalk", "encryption")))
        fingerprint = keyed_digest(key, "crosswalk", "fingerprint")[:16]
        self._database, self.name = _opened(path, fingerprint)
        self._name = lru_cache(REMEMBERED)(self._drawn)

    def uid(self, uid: str) -> str:
        """A random UID under 2.25 (PS3.5 B.2); the standard's own stay."""
        from pydicom._uid_dict import UID_dictionary

        uid = uid.strip(" \0")
        return self._name("uid", uid)[0] if uid and uid not in UID_dictionary else uid

    def patient(self, patient_id: str) -> str:
        """16 random hex digits for a patient's identifier."""
        return self._name("patient", patient_id.strip(" \0"))[0]

    def shift(self, patient_id: str) -> timedelta:
        """How far back all of a patient's dates move: between 100 and 110 years."""
        return timedelta(days=self._name("patient", patient_id.strip(" \0"))[1])

    def who(self, pseudonym: str) -> str | None:
        """The identifier that a name stands for, or None if it was never given."""
        row = self._database.execute(
            "SELECT found_by, sealed FROM names WHERE pseudonym = ?", (pseudonym,)
        ).fetchone()
        return str(self._opened(row[0], pseudonym, row[1])["identifier"]) if row else None

    def close(self) -> None:
        """Leave all in the one file; the last process to close removes SQLite's side files."""
        self._database.close()

    def _drawn(self, kind: str, identifier: str) -> tuple[str, int]:
        """The name of an identifier, and a patient's shift in days."""
        found_by = keyed_digest(self.key, f"crosswalk {kind}", identifier)
        find = "SELECT pseudonym, sealed FROM names WHERE found_by = ?"
        row = self._database.execute(find, (found_by,)).fetchone()
        if row is None:
            pseudonym = f"2.25.{uuid.uuid4().int}" if kind == "uid" else secrets.token_hex(8)
            days = 0 if kind == "uid" else 36525 + secrets.randbelow(3653)
            sealed = self._sealed(found_by, pseudonym, {"identifier": identifier, "days": days})
            # Another process may have drawn meanwhile: the first row stays, and all read that.
            self._database.execute(
                "INSERT OR IGNORE INTO names VALUES (?, ?, ?)", (found_by, pseudonym, sealed)
            )
            row = self._database.execute(find, (found_by,)).fetchone()
        return row[0], int(self._opened(found_by, *row)["days"])

    def _sealed(self, found_by: str, pseudonym: str, content: dict[str, str | int]) -> bytes:
        nonce = secrets.token_bytes(12)
        # Bound to its row: content moved to another pseudonym does not decrypt.
        bound = f"{found_by} {pseudonym}".encode()
        return nonce + self._cipher.encrypt(nonce, json.dumps(content).encode(), bound)

    def _opened(self, found_by: str, pseudonym: str, sealed: bytes) -> dict[str, str | int]:
        from cryptography.exceptions import InvalidTag

        try:
            bound = f"{found_by} {pseudonym}".encode()
            content = self._cipher.decrypt(sealed[:12], sealed[12:], bound)
        except InvalidTag:
            raise BadInput(
                "the crosswalk was changed by something else: bring back its last good copy"
            ) from None
        opened: dict[str, str | int] = json.loads(content)
        return opened


def _opened(path: Path, fingerprint: str) -> tuple[sqlite3.Connection, str]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite's side files take this mode
    if path.stat().st_mode & 0o077:
        raise BadInput(f"{path}: others can read it; `chmod 600` it, and ask who has")
    try:
        database = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
        if _of_one_machine(path.parent):
            # With a log, readers never wait and a commit is one write. A commit is safe from a
            # killed process at once, from a power cut only after a checkpoint, as the cleaned
            # files are.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
        else:
            # The log's index lies in memory that other machines do not see: they would write
            # over one another (sqlite.org/wal.html). Some 50 times slower.
            database.execute("PRAGMA journal_mode = PERSIST")
        database.execute(
            "CREATE TABLE IF NOT EXISTS names "
            "(found_by TEXT PRIMARY KEY, pseudonym TEXT NOT NULL UNIQUE, sealed BLOB NOT NULL) "
            "WITHOUT ROWID"
        )
        database.execute("CREATE TABLE IF NOT EXISTS made (once PRIMARY KEY, under_key, name)")
        database.execute(
            "INSERT OR IGNORE INTO made VALUES (1, ?, ?)", (fingerprint, secrets.token_hex(8))
        )
        under_key, name = database.execute("SELECT under_key, name FROM made").fetchone()
    except sqlite3.DatabaseError as error:
        raise BadInput(f"{path}: no crosswalk ({error}); move it away, or name another") from None
    if under_key != fingerprint:
        raise BadInput(f"{path}: made under another pseudonym key; give that key, or another file")
    return database, str(name)


def _of_one_machine(folder: Path) -> bool:
    """Whether no other machine can have this folder mounted; where that is unknown, it may."""
    import psutil

    kinds = {Path(p.mountpoint): p.fstype for p in psutil.disk_partitions(all=True)}
    whole = folder.resolve()
    return next((kinds[p] for p in (whole, *whole.parents) if p in kinds), "") in LOCAL
