"""What the commands share: their common options, and how they print."""

import json
from pathlib import Path
from typing import Any

import click

from pipelines.commands import completing

CONFIG = click.argument(
    "config", type=click.Path(path_type=Path), shell_complete=completing.configs
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one setting.",
    shell_complete=completing.settings,
)
WRAPPED = ("reason", "why")  # the columns of prose
WATCH = click.option("--watch", "nightly", is_flag=True, help="The nightly drift watch instead.")


def coloured(word: str) -> str:
    """An outcome, a verdict or a step's state in the colour of what it means."""
    from pipelines.tell import COLOURS

    if word in COLOURS:
        return f"[{COLOURS[word]}]{word}[/]"
    mild = {"done": "green", "pass": "green", "running": "yellow", "inconclusive": "yellow"}
    plain = ("waiting", "skipped", "blocked")
    return word if word in plain else f"[{mild.get(word, 'red')}]{word}[/]"


def print_table(headers: tuple[str, ...], rows: list[tuple[Any, ...]], empty: str) -> None:
    """Print rows under headers, or say that there is nothing."""
    from rich.table import Table

    if not rows:
        click.echo(empty)
        return
    table = Table(box=None, pad_edge=False)
    for header in headers:
        table.add_column(
            header, header_style="bold", no_wrap=header not in WRAPPED, overflow="fold"
        )
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    print_rich(table)


def print_rich(renderable: Any) -> None:
    """Print a `rich` object, or a text with its markup."""
    from pipelines.tell import console

    console().print(renderable, soft_wrap=isinstance(renderable, str))


def print_json(value: Any) -> None:
    """Print a value for machines."""
    click.echo(json.dumps(value, indent=2, default=str))
