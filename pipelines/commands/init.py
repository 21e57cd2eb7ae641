"""The first hour: settings for own data, after a look at it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lineage.workspace import workspace
from pipelines.commands.options import JSON, print_json, print_rich, print_table

if TYPE_CHECKING:
    from imaging.surveying.survey import Survey
    from pipelines.init import Proposal


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--config",
    type=click.Path(path_type=Path),
    help="Where to write; configs/NAME.yaml if left out.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="The labels table; searched for in DIR and beside it if left out.",
)
@click.option("--column", help="The column to learn; the likeliest one if left out.")
@click.option("--force", is_flag=True, help="Replace a file that is already there.")
@JSON
def init(
    folder: Path,
    config: Path | None,
    labels: Path | None,
    column: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Look at a folder of own images and write commented settings that `lightbox run` takes.

    \b
    Example: lightbox init data/chest --column view
    """
    from imaging.surveying.survey import survey
    from lineage.errors import BadInput
    from pipelines.init import as_data, propose, write
    from pipelines.sources import require_outside

    if ":/" in str(folder) and not folder.exists():  # a path keeps one slash of an address
        raise BadInput(
            "a folder of this machine is looked at: `lightbox fetch ADDRESS FOLDER` first, then "
            "`lightbox init FOLDER`; `sources.scans` may then name the address"
        )
    require_outside(folder, workspace().home, "the workspace", "LIGHTBOX_HOME names another place")
    found = survey(folder, labels, column)
    proposal = propose(found, folder)
    path = config or Path("configs") / f"{proposal.name}.yaml"
    require_outside(Path(found.scans), path, "the settings", "-o names another place")
    write(path, found, proposal, force=force)
    if as_json:
        print_json(as_data(found, proposal, path))
        return
    _tell(found, proposal)
    click.echo(f"\nwrote {path}; next: lightbox run {_quoted(path)}")


def _tell(s: "Survey", p: "Proposal") -> None:
    from rich.markup import escape

    from imaging.surveying.oddities import oddities

    labels, (rows, columns) = s.settings, s.typical
    print_table(
        ("found", ""),
        [
            ("images", f"{s.images} in {s.scans}, typically {rows} x {columns} pixels"),
            ("table", f"{s.labels}, {s.rows} rows; {s.with_row} images have one"),
            ("key", f"{labels.key}, in column {labels.key_column!r}"),
            ("patients", f"{s.patients} of {s.usable} images that can be used"),
            ("label", f"column {labels.column!r}: {s.why}"),
            *(
                (f"class {i}", f"{name!r}: {images} images of {patients} patients")
                for i, name, images, patients in zip(
                    (0, 1), labels.classes, s.class_images, s.class_patients, strict=True
                )
            ),
            ("others", ", ".join(map(repr, s.other_labels)) or "no other column"),
            *([("passed over", ", ".join(map(repr, s.passed_over)))] if s.passed_over else []),
        ],
        "",
    )
    if odd := oddities(s):
        print_rich("\n[bold]odd[/]\n" + "\n".join(f"  {escape(sentence)}" for sentence in odd))
    f = p.fractions
    lines = (
        f"tell {labels.classes[1]!r} from {labels.classes[0]!r}; classes ordered {s.order}",
        f"a small ResNet at {p.side} x {p.side} pixels, {p.epochs} epochs, "
        f"roughly {p.minutes} min on one CPU core",
        f"by patient: {f.train:.0%} to train, {f.validation:.0%} to tune, {f.test:.0%} to test",
        f"gate: AUROC surely at least {p.at_least:.2f}, on {p.patients} patients or more",
    )
    print_rich("\n[bold]proposed[/]\n" + "\n".join(f"  {escape(line)}" for line in lines))
    for warning in p.warnings:
        print_rich(f"\n[yellow]warning[/]: {escape(warning)}")


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
