"""Room on the disk."""

from collections import defaultdict
from dataclasses import asdict

import click

from pipelines.commands.options import JSON, print_json, print_table


@click.command()
@click.option("--yes", is_flag=True, help="Really remove it; without this, nothing is touched.")
@click.option(
    "--runs-older-than",
    "days",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Let go of older runs too, and of what only they refer to.",
)
@JSON
def gc(yes: bool, days: float | None, as_json: bool) -> None:
    """Say what no run, version or dossier refers to; with --yes, remove it.

    \b
    Example: lightbox gc --runs-older-than 30
    """
    from lineage.workspace import workspace
    from pipelines.garbage import Waste, find_waste, free

    home = workspace()
    waste = find_waste(home, days)
    freed = free(home, waste) if yes and waste else 0
    if as_json:
        found = [{**asdict(each), "path": str(each.path)} for each in waste]
        print_json({"freed_bytes": freed, "waste": found})
        return
    kinds: defaultdict[tuple[str, str], list[Waste]] = defaultdict(list)
    for each in waste:
        kinds[each.kind, each.why].append(each)
    rows = [
        (kind, len(all_of_it), _told(sum(w.size_bytes for w in all_of_it)), why)
        for (kind, why), all_of_it in kinds.items()
    ]
    print_table(("what", "how many", "size", "why"), rows, "nothing can go")
    if rows:
        total = _told(sum(each.size_bytes for each in waste))
        told = f"{total} freed" if yes else f"{total} could go; the same with --yes removes it"
        click.echo(told)


def _told(size_bytes: int) -> str:
    size, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
