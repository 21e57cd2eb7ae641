"""Two runs side by side."""

from dataclasses import asdict

import click

from pipelines.commands import completing
from pipelines.commands.options import JSON, print_json


@click.command()
@click.argument("one", shell_complete=completing.runs)
@click.argument("other", shell_complete=completing.runs)
@JSON
def compare(one: str, other: str, as_json: bool) -> None:
    """Show which settings differ between two runs, and what that did to the results.

    The beginning of a run's id is enough.

    \b
    Example: lightbox compare 20261121-101500 20261121-102030
    """
    from pipelines.notebook import api

    found = api.compare(one, other)
    if as_json:
        told = {
            "runs": [result.run.id for result in found.runs],
            "settings": found.settings,
            "metrics": found.metrics,
            "difference": found.difference and asdict(found.difference),
            "note": found.note,
        }
        print_json(told)
    else:
        click.echo(repr(found))
