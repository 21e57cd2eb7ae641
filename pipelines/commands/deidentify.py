"""De-identification on its own, and the audited way back."""

import getpass
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lineage.errors import BadInput
from pipelines.commands.options import JSON, print_json, print_table

KEY = "pseudonym.key"
PSEUDONYM = re.compile(r"[0-9a-f]{16}|2\.25\.[0-9]{1,39}")


@click.command()
@click.argument("scans", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path),
    help="What to do to identities; configs/deidentification/*.yaml. The default is research.yaml.",
)
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path),
    help="A file with the secret key, as 64 hex digits, that only its owner can read.",
)
@click.option("--dry-run", is_flag=True, help="Say what the policy means, and write nothing.")
@JSON
def deidentify(
    scans: Path,
    out: Path,
    policy_file: Path | None,
    key_file: Path | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Write de-identified copies of the images in IN into OUT, and a page that says what was done.

    Every written file is opened again and checked; a leak ends it with exit code 1, and nothing of
    that run stays. What cannot be read or cleaned is held back, with a reason; if that is all of
    it, the exit code is 1, too. IN is only read. Interrupted, the same command goes on.

    Without --key the workspace's own key is used, and made at first use: the same patient gets the
    same code as long as it is kept. It never lies in OUT.

    \b
    Example: lightbox deidentify scans clean --policy configs/deidentification/strict.yaml
    """
    from components.progress import duration, progress
    from imaging.deidentification.policy import DeidentificationPolicy
    from imaging.incoming.folder import find_files
    from imaging.snapshots.cleaning import DRAFT, check_out, clean_folder
    from imaging.snapshots.snapshot import crosswalk_path, keep_list
    from lineage.digest import digest, keyed_digest
    from lineage.files import write_json
    from lineage.workspace import workspace
    from pipelines.reporting.deidentification import (
        FACTS,
        PAGE,
        facts_of,
        not_looked_at,
        page,
        rules_of,
    )
    from pipelines.settings import read_settings

    policy = DeidentificationPolicy()
    if policy_file:
        policy = read_settings(policy_file, DeidentificationPolicy)
    if policy.text_in_pixels.ocr:
        from imaging.deidentification.ocr import warm_up

        warm_up()  # what is not installed is told before a key is made
    if not scans.is_dir():
        raise BadInput(f"{scans} is no folder; name the one that holds the images")
    found = find_files(scans)
    if not found:
        raise BadInput(f"{scans} holds no file")
    if dry_run:
        rules = {"found": len(found), **rules_of(policy)}
        _tell_rules(rules, as_json)
        return 0
    if key_file is None and not workspace().has_secret(KEY):
        # Before one is made: what is refused leaves no key behind.
        if policy.pseudonyms == "random" and crosswalk_path().exists():
            raise BadInput(f"{crosswalk_path()}: made under a key that is not here; give it: --key")
        check_out(scans, out, key_is_new=True)
    key = _key(key_file)
    with progress("de-identify") as report:
        cleaned = clean_folder(scans, out, policy, key, crosswalk=crosswalk_path(), report=report)
    facts = facts_of(cleaned, policy, keyed_digest(key, "fingerprint", KEY)[:16])
    _record(facts)
    write_json(out / FACTS, facts)
    (out / DRAFT).write_text(page(facts), encoding="utf-8")
    (out / DRAFT).replace(out / PAGE)
    name = f"out-{digest('path', str(out.absolute()))[:16]}"
    listed = keep_list(name, cleaned.set_aside, key)
    nothing = int(not cleaned.written)
    if as_json:
        print_json(facts)
        return nothing
    held = sum(cleaned.held.values())
    click.echo(
        f"{cleaned.written} of {cleaned.found} files de-identified and checked, {held} held back "
        f"({duration(cleaned.seconds)})"
    )
    if held:
        print_table(("held back because", "files"), list(cleaned.held.items()), "")
        click.echo(f"Which files these are only you can read: {listed}")
    click.echo(f"What was done to each attribute: {out / PAGE}")
    for why in facts["not_safe_harbor"]:
        click.echo(f"Not Safe Harbor: {why}")
    if unseen := not_looked_at(facts):
        click.echo(unseen)
    return nothing


def _record(facts: Mapping[str, Any]) -> None:
    """Who made this delivery, when, under which policy and key, and that the check passed it."""
    from components.shared_state import shared_state
    from lineage.workspace import workspace
    from registry import audit_log

    home = workspace()
    told = ("found", "written", "held", "checks", "policy_digest", "key_fingerprint")
    with shared_state((home.audit_log.name,), home.home, lease_minutes=5):
        audit_log.append(
            actor=f"person:{getpass.getuser()}",
            action="deidentified",
            subject=f"delivery:{facts['sums_sha256']}",
            reason=f"every one of {facts['written']} written files was checked, and none leaks",
            new={name: facts[name] for name in told},
        )


@click.command()
@click.argument("pseudonyms", nargs=-1, required=True, metavar="PSEUDONYM...")
@click.option("--reason", required=True, help="Why; kept in the audit log with who and when.")
@click.option(
    "--among",
    type=click.Path(path_type=Path),
    help="A text file of identifiers, one a line, to look among: derived names tell no way back.",
)
@click.option("--key", "key_file", type=click.Path(path_type=Path), help="As for deidentify.")
@JSON
def reidentify(
    pseudonyms: tuple[str, ...],
    reason: str,
    among: Path | None,
    key_file: Path | None,
    as_json: bool,
) -> int:
    """Say whose a patient's code or which UID a new one was; each asking is recorded first.

    Drawn codes (`pseudonyms: random`) are looked up in the encrypted crosswalk. Codes that were
    derived have no way back: they are compared with the codes of the identifiers in --among.
    Ends with exit code 1 if one is not found.

    \b
    Example: lightbox reidentify 3f9a1c0b2d4e5f60 --reason "incidental finding, letter to referrer"
    """
    from components.shared_state import shared_state
    from imaging.deidentification.crosswalk import Crosswalk
    from imaging.deidentification.pseudonyms import matching
    from imaging.snapshots.snapshot import crosswalk_path
    from lineage.workspace import workspace
    from registry import audit_log

    if not reason.strip():
        raise BadInput("--reason is empty; the audit log wants to know why")
    if strange := [p for p in pseudonyms if not PSEUDONYM.fullmatch(p)]:
        # Not quoted, and kept out of the log: it may be the identifier itself.
        raise BadInput(
            f"{len(strange)} of these are no pseudonyms: a patient's code has 16 hex digits, and a "
            "new UID begins with 2.25."
        )
    home = workspace()
    if not home.has_secret(KEY) and key_file is None:
        raise BadInput("there is no pseudonym key here, so no name was given here either")
    key = _key(key_file)
    candidates = _candidates(among)
    if among is None and not crosswalk_path().exists():
        raise BadInput(
            "no crosswalk is kept here: derived names tell no way back, so name a file of "
            "identifiers to look among with --among"
        )
    # Recorded before it is answered: nobody learns a name that the log does not know of.
    with shared_state((home.audit_log.name,), home.home, lease_minutes=5):
        for pseudonym in pseudonyms:
            audit_log.append(
                actor=f"person:{getpass.getuser()}",
                action="reidentified",
                subject=f"pseudonym:{pseudonym}",
                reason=reason,
            )
    if among is None:
        walk = Crosswalk(crosswalk_path(), key)
        answers = {p: walk.who(p) for p in pseudonyms}
    else:
        answers = {p: next(iter(matching(candidates, p, key)), None) for p in pseudonyms}
    if as_json:
        print_json(answers)
    else:
        for pseudonym, identifier in answers.items():
            click.echo(f"{pseudonym}: {'not found' if identifier is None else identifier}")
    if among is None and None in answers.values():
        click.echo(
            "Derived names (hmac) are in no crosswalk; --among compares them with a list", err=True
        )
    return int(None in answers.values())


def _key(file: Path | None) -> bytes:
    """The pseudonym key; one that is made now is spoken of."""
    from lineage.workspace import secret_in_file, workspace

    if file is not None:
        return secret_in_file("--key", file)
    home = workspace()
    made = not home.has_secret(KEY)
    key = home.secret(KEY)
    if made:
        click.echo(
            f"A key was made, and only you can read it: {home.home / 'secrets' / KEY}\n"
            "Keep it as you keep the scans: without it the same patient gets another code.",
            err=True,
        )
    return key


def _candidates(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return [line for text in file.read_text().splitlines() if (line := text.strip())]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--among: cannot be read ({type(error).__name__})") from None


def _tell_rules(rules: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(rules)
        return
    click.echo(f"{rules['found']} files would be looked at; nothing was read or written")
    print_table(("code", "applied"), list(rules["codes"].items()), "")
    for why in rules["not_safe_harbor"]:
        click.echo(f"Not Safe Harbor: {why}")
