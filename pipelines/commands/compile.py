"""Translation for cluster engines."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.commands.options import CONFIG, ENGINES, ENVIRONMENT, SET, WATCH, place_of

if TYPE_CHECKING:
    from pipelines.backends.tasks import Engine


@click.command()
@CONFIG
@SET
@click.option("--on", "engine", type=click.Choice(ENGINES), required=True)
@ENVIRONMENT
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True)
@WATCH
def compile(
    config: Path,
    overrides: tuple[str, ...],
    engine: "Engine",
    environment: Path | None,
    output: Path,
    nightly: bool,
) -> None:
    """Translate the pipeline for a cluster engine, without network or credentials.

    \b
    Example: lightbox compile configs/phantom.yaml --on kubeflow -o lifecycle.yaml
    """
    from lineage.errors import BadInput
    from pipelines.backends.tasks import compile_for
    from pipelines.config import load
    from pipelines.model_lifecycle import drift_watch, model_lifecycle

    settings = load(config, overrides)
    pipeline = (drift_watch if nightly else model_lifecycle)(settings)
    if output.is_dir():
        raise BadInput(f"{output} is a folder; -o names the file to write")
    output.parent.mkdir(parents=True, exist_ok=True)
    where = place_of(engine, environment)
    compile_for(pipeline, engine, where, output)
    click.echo(f"{output}: {pipeline.name} compiled for {engine}")
