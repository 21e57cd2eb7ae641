import sqlite3
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from lineage.errors import BadInput
from lineage.workspace import Workspace
from registry import audit_log


def note(reason: str) -> audit_log.Entry:
    return audit_log.append(actor="ada", action="approved", subject="chest:1", reason=reason)


@pytest.fixture
def log(home: Workspace) -> Path:
    """Five rows whose triggers an attacker took away."""
    for number in range(1, 6):
        note(f"reason {number}")
    with closing(sqlite3.connect(home.audit_log)) as db:
        db.executescript("DROP TRIGGER no_UPDATE; DROP TRIGGER no_DELETE;")
    return home.audit_log


def run(log: Path, script: str) -> None:
    with closing(sqlite3.connect(log)) as db:
        db.executescript(script)


def test_a_row_says_who_did_what_when_and_why_and_what_it_was_before(home: Workspace) -> None:
    values = {"old": {"version": "1"}, "new": {"version": "2"}}
    made = audit_log.append(
        actor="ada", action="champion", subject="chest:2", reason="better", **values
    )
    assert audit_log.entries() == [made]
    assert (made.seq, made.actor, made.reason, made.old, made.new) == (
        *(1, "ada", "better"),
        *({"version": "1"}, {"version": "2"}),
    )
    assert made.at.endswith("+00:00")


def test_entries_of_one_subject_leave_the_others_out(home: Workspace) -> None:
    note("one")
    audit_log.append(actor="ada", action="approved", subject="chest:10", reason="other")
    assert [entry.reason for entry in audit_log.entries("chest:1")] == ["one"]


def test_before_the_first_row_the_log_is_empty_and_sound(home: Workspace) -> None:
    assert audit_log.entries() == []
    assert audit_log.verify() is None
    assert audit_log.head() == (0, audit_log.GENESIS)
    assert not home.audit_log.exists()


@pytest.mark.parametrize("missing", ["actor", "reason"])
def test_nobody_and_no_reason_are_refused(home: Workspace, missing: str) -> None:
    facts = {"actor": "ada", "action": "approved", "subject": "chest:1", "reason": "good"}
    with pytest.raises(BadInput, match="an actor and a reason"):
        audit_log.append(**(facts | {missing: " "}))


@pytest.mark.parametrize("change", ["UPDATE entries SET reason = 'x'", "DELETE FROM entries"])
def test_sqlite_itself_refuses_to_change_a_row(home: Workspace, change: str) -> None:
    note("one")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        run(home.audit_log, change)


@pytest.mark.parametrize(
    "column", ["at", "actor", "action", "subject", "reason", "old", "new", "previous", "hash"]
)
def test_an_edit_of_any_column_is_found(log: Path, column: str) -> None:
    assert audit_log.verify() is None
    # A space changes no JSON value, and must show all the same.
    run(log, f"UPDATE entries SET {column} = {column} || ' ' WHERE seq = 3")
    assert audit_log.verify().seq == 3


@pytest.mark.parametrize(
    ("change", "row"),
    [
        ("DELETE FROM entries WHERE seq = 3", 3),
        ("DELETE FROM entries WHERE seq = 1", 1),
        ("DELETE FROM entries WHERE seq = 2; UPDATE entries SET seq = seq - 1 WHERE seq > 2", 2),
        (
            "UPDATE entries SET seq = 99 WHERE seq = 2; UPDATE entries SET seq = 2 WHERE seq = 3;"
            "UPDATE entries SET seq = 3 WHERE seq = 99",
            2,
        ),
        (
            "UPDATE entries SET seq = -seq WHERE seq > 3; UPDATE entries SET seq = 1 - seq"
            " WHERE seq < 0; INSERT INTO entries SELECT 4, at, 'eve', action, subject, reason, old,"
            " new, previous, hash FROM entries WHERE seq = 3",
            4,
        ),
    ],
    ids=["delete", "delete first", "delete and renumber", "reorder", "insert"],
)
def test_a_moved_missing_or_inserted_row_is_named(log: Path, change: str, row: int) -> None:
    run(log, change)
    assert audit_log.verify().seq == row


def test_a_deleted_row_is_said_to_be_missing(log: Path) -> None:
    run(log, "DELETE FROM entries WHERE seq = 3")
    assert audit_log.verify() == audit_log.Fault(3, "is missing")


def test_an_edit_with_a_hash_made_to_fit_is_found_at_the_next_row(log: Path) -> None:
    run(log, "UPDATE entries SET reason = 'forged' WHERE seq = 3")
    with closing(sqlite3.connect(log)) as db:
        *values, _ = db.execute("SELECT * FROM entries WHERE seq = 3").fetchone()
        forged = audit_log._leaf_hash(*values)
        db.execute("UPDATE entries SET hash = ? WHERE seq = 3", (forged,))
        db.commit()
    assert audit_log.verify() == audit_log.Fault(4, "does not follow the row before it")


def test_a_cut_off_end_shows_only_against_a_head_kept_elsewhere(log: Path) -> None:
    kept = audit_log.head()
    run(log, "DELETE FROM entries WHERE seq > 3")
    assert audit_log.verify() is None
    assert audit_log.head() != kept


def test_writers_in_several_processes_leave_one_chain(home: Workspace) -> None:
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(note, [f"reason {n}" for n in range(40)]))
    assert len(audit_log.entries()) == 40
    assert audit_log.verify() is None


def test_the_hash_of_a_row_is_pinned(home: Workspace) -> None:
    row = (1, "2026-01-01T00:00:00.000+00:00", "ada", "approved", "chest:1", "good", "null", "null")
    assert audit_log._leaf_hash(*row, audit_log.GENESIS) == PINNED


PINNED = "88b9e485a0e353c829a3d5904d949943c07a0a19e4e70fa507555938999ccf6b"
