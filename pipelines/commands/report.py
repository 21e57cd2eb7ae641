"""The report page of a run."""

from pathlib import Path

import click

from pipelines.commands import completing


@click.command()
@click.argument("run", required=False, shell_complete=completing.runs)
@click.option("--open", "in_browser", is_flag=True, help="Open it in the browser.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Write a copy to hand on, without links into the workspace.",
)
def report(run: str | None, in_browser: bool, output: Path | None) -> None:
    """Write the report page of RUN, or of the newest one, and say where it is.

    \b
    Example: lightbox report --open
    """
    from lineage.errors import BadInput
    from lineage.workspace import workspace
    from pipelines.reporting.report import page, write_report
    from pipelines.runs import find_run

    home = workspace()
    found = find_run(home, run)
    if output:
        try:
            output.write_text(page(found, home, links=False), encoding="utf-8")
        except OSError as error:
            raise BadInput(f"{output}: cannot be written ({error.strerror})") from None
    path = output or write_report(found, home)
    click.echo(str(path))
    if in_browser:
        click.launch(path.absolute().as_uri())
