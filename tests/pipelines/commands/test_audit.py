"""The audit log, as the command shows it."""

import json
import sqlite3

from click.testing import CliRunner, Result

from lineage.workspace import Workspace
from pipelines.commands.audit import audit
from registry import audit_log


def told(*args: str) -> Result:
    return CliRunner().invoke(audit, args, standalone_mode=False, catch_exceptions=False)


def test_rows_are_shown_with_the_last_one_s_hash(home: Workspace) -> None:
    assert told().output == "no rows yet\n"
    audit_log.append(actor="person:ann", action="approved", subject="chest:1", reason="read it")
    last = audit_log.append(
        actor="person:ben", action="reidentified", subject="pseudonym:AB", reason="a recall"
    )
    shown = told()
    assert shown.return_value == 0
    assert "person:ann  approved      chest:1       read it" in shown.output
    assert f"whole: rows 1 to 2 are as they were written; head {last.hash}" in shown.output
    assert "chest:1" not in told("pseudonym:AB").output
    assert told("chest:9").output.startswith("the audit log says nothing of that")


def test_a_changed_row_is_told_and_no_success(home: Workspace) -> None:
    for number in range(3):
        audit_log.append(actor="a", action="approved", subject=f"m:{number}", reason="r")
    with sqlite3.connect(home.audit_log) as database:
        database.execute("DROP TRIGGER no_UPDATE")
        database.execute("UPDATE entries SET actor = 'b' WHERE seq = 2")
    shown = told()
    assert shown.return_value == 1
    assert "the log was changed: row 2 is not what was written" in shown.output
    for_machines = told("m:0", "--json")
    facts = json.loads(for_machines.output)
    assert for_machines.return_value == 1
    assert (facts["fault"]["seq"], facts["last"], len(facts["rows"])) == (2, 3, 1)
