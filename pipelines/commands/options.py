"""What the commands share: their common options, and how they print."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands import completing

if TYPE_CHECKING:
    from rich.text import Text

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
WRAPPED = ("reason", "why", "settings", "before", "after", "to")  # the columns of prose
ENGINES = ("kubeflow", "sagemaker")
ENVIRONMENT = click.option(
    "--environment",
    type=click.Path(path_type=Path),
    help="Where it is to run; configs/environments/ENGINE.yaml.",
)
WATCH = click.option("--watch", "nightly", is_flag=True, help="The nightly drift watch instead.")


def place_of(engine: str, environment: Path | None) -> Path:
    """The settings of the place: those that are given, or the shipped ones."""
    from lineage.code import ROOT
    from lineage.errors import BadInput

    shipped = Path(f"configs/environments/{engine}.yaml")
    if environment is None and not shipped.exists():
        raise BadInput(
            f"{shipped} is not here: copy {ROOT / shipped} and fill it in, or name a file of your "
            "own with --environment"
        )
    return environment or shipped


def coloured(word: str) -> "Text":
    """An outcome, a verdict or a step's state in the colour of what it means."""
    from rich.text import Text

    from pipelines.tell import COLOURS

    mild = {
        "done": "green",
        "stopped": "green",
        "pass": "green",
        "running": "yellow",
        "inconclusive": "yellow",
        "submitted": "yellow",
    }
    plain = dict.fromkeys(("waiting", "skipped", "blocked"), "")
    return Text(word, {**mild, **plain, **COLOURS}.get(word, "red"))


def print_table(headers: tuple[str, ...], rows: list[tuple[Any, ...]], empty: str) -> None:
    """Print rows under headers, or say that there is nothing. A text in a cell is data, never
    markup; a cell in colour is a `rich` Text."""
    from rich.table import Table
    from rich.text import Text

    from pipelines.tell import console

    if not rows:
        click.echo(empty)
        return
    table = Table(box=None, pad_edge=False)
    for header in headers:
        table.add_column(
            header, header_style="bold", no_wrap=header not in WRAPPED, overflow="fold"
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    screen = console()
    if screen.is_terminal:
        screen.print(table)
        return
    with screen.capture() as printed:
        screen.print(table)
    for line in printed.get().splitlines():  # for those who look for differences of files
        click.echo(line.rstrip())


def print_rich(renderable: Any) -> None:
    """Print a `rich` object, or a text with its markup; no line of a text is broken."""
    from rich.text import Text

    from pipelines.tell import console

    console().print(renderable, soft_wrap=isinstance(renderable, str | Text))


def print_json(value: Any) -> None:
    """Print a value for machines."""
    click.echo(json.dumps(value, indent=2, default=str))
