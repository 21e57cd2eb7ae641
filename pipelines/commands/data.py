"""Snapshots: what a run took in, whether it is whole, and what changed since the last time."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands import completing
from pipelines.commands.options import JSON, print_json, print_table

if TYPE_CHECKING:
    from imaging.snapshots.differences import Differences, Distribution

MOST_TOLD = 12  # columns whose distributions are shown
NEAR = 0.01  # distributions nearer than this are not worth a line
SNAPSHOT = click.argument("snapshot", default="latest", shell_complete=completing.snapshots)


@click.group()
def data() -> None:
    """Look at snapshots: list, show, compare, check, and ask what was known when.

    A SNAPSHOT is `latest`, `previous`, a folder, or the beginning of a digest, a Merkle root or a
    run's id.
    """


@data.command("list")
@JSON
def list_(as_json: bool) -> None:
    """List the snapshots of this workspace, newest first.

    \b
    Example: lightbox data list
    """
    from lineage.workspace import workspace
    from pipelines.snapshots import snapshots

    found = snapshots(workspace())
    if as_json:
        print_json([asdict(snapshot) for snapshot in found])
        return
    rows = [
        (
            s.digest[:12],
            (s.root or "none")[:12],
            s.images,
            s.patients,
            s.set_aside,
            len(s.runs),
            s.taken_at[:16].replace("T", " "),
        )
        for s in found
    ]
    headers = ("snapshot", "root", "images", "patients", "set aside", "runs", "taken")
    print_table(headers, rows, "no snapshots yet; `lightbox run CONFIG` takes one")


@data.command()
@SNAPSHOT
@JSON
def show(snapshot: str, as_json: bool) -> None:
    """Show what a snapshot holds: counts, reasons, rules of de-identification, root.

    \b
    Example: lightbox data show latest
    """
    from imaging.snapshots.integrity import read_root
    from lineage.files import read_json

    path = _path(snapshot)
    counts, rules = (read_json(path / f"{name}.json") for name in ("counts", "deidentification"))
    facts = {
        "path": str(path),
        "root": read_root(path),
        "counts": counts,
        "deidentification": rules,
    }
    if as_json:
        print_json(facts)
        return
    for name, value in _flat(facts):
        click.echo(f"{name}: {value}")


@data.command()
@click.argument("before", shell_complete=completing.snapshots)
@click.argument("after", default="latest", shell_complete=completing.snapshots)
@JSON
def diff(before: str, after: str, as_json: bool) -> None:
    """Say what changed from one snapshot to another: rows, labels, distributions.

    \b
    Example: lightbox data diff previous latest
    """
    from imaging.snapshots.differences import compare

    found = compare(_path(before), _path(after))
    if as_json:
        print_json(asdict(found))
    else:
        _tell(found)


@data.command()
@SNAPSHOT
@JSON
def verify(snapshot: str, as_json: bool) -> int:
    """Read every file of a snapshot again and compare it with manifest and Merkle root.

    Ends with exit code 1 if anything is not as it was.

    \b
    Example: lightbox data verify latest
    """
    from components.progress import progress
    from imaging.snapshots.integrity import faults, read_root

    path = _path(snapshot)
    with progress("verify") as report:
        found = faults(path, report)
    if as_json:
        print_json({"root": read_root(path), "faults": found})
    else:
        for fault in found:
            click.echo(fault)
        click.echo(f"{len(found)} faults" if found else f"whole: root {read_root(path)}")
    return int(bool(found))


@data.command("as-of")
@click.argument("when")
@click.option("--model", "name", help="Whose data; needed if there are several.")
@click.option("--known", is_flag=True, help="By when a label became known, not when it came to us.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Write a Parquet table there."
)
@JSON
def as_of(when: str, name: str | None, known: bool, output: Path | None, as_json: bool) -> None:
    """Give the features and labels as they were known at WHEN, a date or time (UTC if not said).

    \b
    Example: lightbox data as-of 2026-06-30 -o then.parquet
    """
    from imaging.snapshots import history
    from lineage.errors import BadInput
    from lineage.workspace import workspace

    at, folder = _moment(when), workspace().ledgers / "history"
    clock: history.Clock = "label_known_since" if known else "recorded_at"
    name = name or _only(history.names(folder))
    rows = history.as_of(folder, name, at, clock)
    if not known and (first := history.times(folder, name)["recorded_at"].min()) > at:
        raise BadInput(
            f"nothing was known yet: the history of {name!r} begins at {first:%Y-%m-%dT%H:%M%z}"
        )
    if output is not None:
        _write(rows, output)
    facts = {
        "as_of": at.isoformat(),
        "images": len(rows),
        "patients": int(rows["patient_id"].nunique()),
        "positive": int(rows["label"].sum()),
    }
    if as_json:
        print_json(facts)
    else:
        click.echo(
            f"{facts['images']} images of {facts['patients']} patients, {facts['positive']} "
            f"positive, as known at {facts['as_of']}"
        )
        if output is not None:
            click.echo(f"wrote {output}")


def _path(name: str) -> Path:
    from lineage.workspace import workspace
    from pipelines.snapshots import find_snapshot

    return find_snapshot(workspace(), name)


def _moment(text: str) -> datetime:
    from lineage.errors import BadInput

    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            f"{text!r} is no time; write a date or time as ISO 8601 does, such as 2026-06-30 or "
            "2026-06-30T14:00"
        ) from None
    if len(text) == len("2026-06-30"):  # the whole day
        at = at.replace(hour=23, minute=59, second=59, microsecond=999_999)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _only(names: list[str]) -> str:
    from lineage.errors import BadInput

    if len(names) != 1:
        told = f"--model: say whose data, one of {names}" if names else "there is no history yet"
        raise BadInput(told if names else f"{told}: it grows with each run of ingest")
    return names[0]


def _write(rows: Any, output: Path) -> None:
    from lineage.errors import BadInput

    try:
        rows.to_parquet(output, index=False)
    except OSError as error:
        raise BadInput(f"{output}: cannot be written ({error.strerror or error})") from None


def _flat(facts: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in facts.items():
        here = f"{above}{name}"
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = f"{len(value)} entries; --json tells all"
        found += _flat(value, f"{here}.") if isinstance(value, dict) else [(here, value)]
    return found


def _tell(found: "Differences") -> None:
    if found.roots[0] == found.roots[1] is not None:
        click.echo("nothing differs: the Merkle roots are equal")
        return
    counts = (("images", found.images), ("patients", found.patients))
    rows = [(name, c.before, c.after, c.added, c.removed) for name, c in counts]
    print_table(("", "before", "after", "added", "removed"), rows, "")
    ups = sum(after > before for _, before, after in found.relabelled)
    downs = len(found.relabelled) - ups
    click.echo(f"\nrelabelled: {ups} from negative to positive, {downs} the other way")
    if found.changed:
        told = ", ".join(f"{column} in {n}" for column, n in found.changed.items())
        click.echo(f"of the {found.images.before - found.images.removed} images in both: {told}")
    told_of = [d for d in found.distributions if d.distance is None or d.distance >= NEAR]
    table = [(d.column, _distance(d), _words(d.before), _words(d.after)) for d in told_of]
    click.echo("")
    headers = ("column", "distance", "before", "after")
    print_table(headers, table[:MOST_TOLD], "no column's distribution moved by 0.01 or more")
    if len(table) > MOST_TOLD:
        click.echo(f"and {len(table) - MOST_TOLD} more; --json tells all")


def _distance(d: "Distribution") -> str:
    return "only one side" if d.distance is None else f"{d.distance:.2f}"


def _words(side: dict[str, Any]) -> str:
    if not side["n"]:
        return "nothing"
    if "median" in side:
        return f"{side['median']:.3g} ({side['p05']:.3g} to {side['p95']:.3g})"
    commonest = sorted(side["values"].items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{value} {n / side['n']:.0%}" for value, n in commonest)
