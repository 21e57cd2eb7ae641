"""The audit log: who did what, when and why, and whether it is as it was written."""

from dataclasses import asdict

import click

from pipelines.commands.options import JSON, print_json, print_table


@click.command()
@click.argument("subject", required=False)
@JSON
def audit(subject: str | None, as_json: bool) -> int:
    """Show who did what, when and why, and check that no row was changed.

    SUBJECT is MODEL:VERSION, `pseudonym:CODE` or `delivery:DIGEST`. That rows are missing at the
    end shows by the last row's number and hash alone: keep them elsewhere, and compare.

    \b
    Example: lightbox audit phantom-finding:1
    """
    from components.shared_state import fetch_state
    from lineage.workspace import workspace
    from registry import audit_log

    home = workspace()
    fetch_state((home.audit_log.name,), home.home)
    found, fault, (last, head) = audit_log.entries(subject), audit_log.verify(), audit_log.head()
    if as_json:
        faults = asdict(fault) if fault else None
        print_json(
            {"rows": [asdict(e) for e in found], "fault": faults, "last": last, "head": head}
        )
        return 1 if fault else 0
    rows = [
        (e.seq, e.at[:19].replace("T", " "), e.actor, e.action, e.subject, e.reason) for e in found
    ]
    headers = ("row", "at (UTC)", "who", "did", "to", "reason")
    print_table(headers, rows, "the audit log says nothing of that" if subject else "no rows yet")
    if fault:
        click.echo(f"error: the log was changed: row {fault.seq} {fault.what}", err=True)
        return 1
    if last:
        click.echo(f"whole: rows 1 to {last} are as they were written; head {head}")
    return 0
