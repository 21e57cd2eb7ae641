"""The append-only log of who did what, when and why; what a reviewer trusts over MLflow's fields.

Each row holds the hash of the row before it and a hash of itself, so that an edited, inserted,
moved or deleted row shows (21 CFR 11.10(e): earlier entries are never obscured). A chain alone
cannot show that rows are missing at its *end*, nor that the whole file was written anew: keep
`head()` somewhere else and compare. Signed Merkle checkpoints, which close that gap, are not here
yet. No personal data of patients belongs in a row: it could never be erased (GDPR 17).
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from lineage.errors import BadInput
from lineage.workspace import workspace

_keepers: list[Callable[[], None]] = []

GENESIS = "0" * 64  # what the first row names as its predecessor


@dataclass(frozen=True)
class Entry:
    """One row. `old` and `new` are JSON values; `at` is UTC, ISO 8601, to the millisecond."""

    seq: int
    at: str
    actor: str
    action: str
    subject: str
    reason: str
    old: Any
    new: Any
    previous: str
    hash: str


@dataclass(frozen=True)
class Fault:
    """The first row that is not what was written, and what is wrong with it."""

    seq: int
    what: str


COLUMNS = ("seq", "at", "actor", "action", "subject", "reason", "old", "new", "previous")
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS entries (
        seq INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
        subject TEXT NOT NULL, reason TEXT NOT NULL, old TEXT NOT NULL, new TEXT NOT NULL,
        previous TEXT NOT NULL, hash TEXT NOT NULL)""",
    *(
        f"""CREATE TRIGGER IF NOT EXISTS no_{change} BEFORE {change} ON entries
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"""
        for change in ("UPDATE", "DELETE")
    ),
)


def append(
    *, actor: str, action: str, subject: str, reason: str, old: Any = None, new: Any = None
) -> Entry:
    """Write one row and return it once it is on disk; safe beside other writing processes.

    Args:
        actor: A person, `policy:<name>` or `step:<name>`.
        action: What was done, in the past tense: registered, assessed, approved, refused, champion,
            deidentified, reidentified.
        subject: The model version as `name:version`, `delivery:<digest of its SHA256SUMS>`, or
            `pseudonym:<code>`.
        reason: Why, in words.
        old: The JSON value before, None if there was none.
        new: The JSON value after.

    Raises:
        BadInput: Nobody, or no reason, is named.
    """
    if not actor.strip() or not reason.strip():
        raise BadInput(f"{action} {subject}: the audit log wants an actor and a reason")
    with _connected() as db:
        db.execute("BEGIN IMMEDIATE")  # nobody else writes between reading the head and appending
        for statement in SCHEMA:
            db.execute(statement)
        seq, previous = _head(db)
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        values = (seq + 1, at, actor, action, subject, reason, _canonical(old), _canonical(new))
        row = (*values, previous, _leaf_hash(*values, previous))
        db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        db.execute("COMMIT")
    for keep in _keepers:
        keep()
    return _entry(row)


@contextmanager
def kept_by(keep: Callable[[], None]) -> Iterator[None]:
    """Call a function after each row: where the disk goes with the job, a row on it is none yet.

    What it raises goes to whoever appended, before that one does what the row tells of.
    """
    _keepers.append(keep)
    try:
        yield
    finally:
        _keepers.remove(keep)


def entries(subject: str | None = None) -> list[Entry]:
    """All rows in order, or those of one subject."""
    return [_entry(row) for row in _rows() if subject in (None, row[4])]


def head() -> tuple[int, str]:
    """Number and hash of the last row; (0, zeros) for an empty log.

    Keep it where those who can write the log cannot.
    """
    rows = _rows()
    return (rows[-1][0], rows[-1][-1]) if rows else (0, GENESIS)


def verify() -> Fault | None:
    """Walk the chain from its first row; None if every row is as it was written.

    Cannot see rows cut off at the end: compare `head()` with one kept elsewhere.
    """
    expected = GENESIS
    for seq, row in enumerate(_rows(), start=1):
        *values, previous, own = row
        if values[0] != seq:
            return Fault(seq, "is missing")
        if previous != expected:
            return Fault(seq, "does not follow the row before it")
        if own != _leaf_hash(*values, previous):
            return Fault(seq, "is not what was written")
        expected = own
    return None


def require_whole() -> None:
    """Refuse to go by a log that somebody changed.

    Raises:
        BadInput: `verify` finds a fault.
    """
    if fault := verify():
        raise BadInput(
            f"the audit log was changed: row {fault.seq} {fault.what}; nothing is decided by it "
            "until a person has looked at it: lightbox audit shows its rows"
        )


def _leaf_hash(*values: Any) -> str:
    """SHA-256 over 0x00 and the row's canonical JSON, as leaves are hashed in RFC 6962, 2.1."""
    record = dict(zip(COLUMNS, values, strict=True))
    return sha256(b"\x00" + _canonical(record).encode()).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _entry(row: tuple[Any, ...]) -> Entry:
    seq, at, actor, action, subject, reason, old, new, previous, own = row
    change = json.loads(old), json.loads(new)
    return Entry(seq, at, actor, action, subject, reason, *change, previous, own)


def _rows() -> list[tuple[Any, ...]]:
    if not workspace().audit_log.exists():
        return []
    with _connected() as db:
        return db.execute("SELECT * FROM entries ORDER BY seq").fetchall()


def _head(db: sqlite3.Connection) -> tuple[int, str]:
    row = db.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
    return row or (0, GENESIS)


@contextmanager
def _connected() -> Iterator[sqlite3.Connection]:
    path = workspace().audit_log
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = FULL")  # a row that was reported is on disk
        yield db
