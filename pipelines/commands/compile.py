"""Translation for cluster engines."""

from pathlib import Path

import click

from pipelines.commands.options import CONFIG, SET, WATCH


@click.command()
@CONFIG
@SET
@click.option("--on", "engine", type=click.Choice(["kubeflow", "sagemaker"]), required=True)
@click.option("--environment", type=click.Path(path_type=Path), help="Where it is to run.")
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True)
@WATCH
def compile(
    config: Path,
    overrides: tuple[str, ...],
    engine: str,
    environment: Path | None,
    output: Path,
    nightly: bool,
) -> None:
    """Translate the pipeline for a cluster engine, without network or credentials.

    \b
    Example: lightbox compile configs/phantom.yaml --on kubeflow -o lifecycle.yaml
    """
    from pipelines.config import load
    from pipelines.model_lifecycle import drift_watch, model_lifecycle
    from pipelines.settings import read_settings

    settings = load(config, overrides)
    pipeline = (drift_watch if nightly else model_lifecycle)(settings)
    where = environment or Path(f"configs/environments/{engine}.yaml")
    if engine == "kubeflow":
        from pipelines.backends.kubeflow import lowering as kubeflow
        from pipelines.backends.kubeflow.settings import KubeflowSettings

        kubeflow.compile_to(pipeline, read_settings(where, KubeflowSettings), output)
    else:
        from pipelines.backends.sagemaker import lowering as sagemaker
        from pipelines.backends.sagemaker.settings import SageMakerSettings

        sagemaker.compile_to(pipeline, read_settings(where, SageMakerSettings), output)
    click.echo(f"{output}: {pipeline.name} compiled for {engine}")
