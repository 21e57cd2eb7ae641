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
    from lineage.files import in_bytes
    from lineage.workspace import workspace
    from pipelines.garbage import Waste, find_waste, free

    home = workspace()
    waste = free(home, days) if yes else find_waste(home, days)
    size = sum(each.size_bytes for each in waste)
    if as_json:
        found = [{**asdict(each), "path": str(each.path)} for each in waste]
        print_json({"freed_bytes": size if yes else 0, "waste": found})
        return
    kinds: defaultdict[tuple[str, str], list[Waste]] = defaultdict(list)
    for each in waste:
        kinds[each.kind, each.why].append(each)
    rows = [
        (kind, len(all_of_it), in_bytes(sum(w.size_bytes for w in all_of_it)), why)
        for (kind, why), all_of_it in kinds.items()
    ]
    print_table(("what", "how many", "size", "why"), rows, "nothing can go")
    if rows:
        told = "freed" if yes else "could go; the same with --yes removes it"
        click.echo(f"{in_bytes(size)} {told}")
