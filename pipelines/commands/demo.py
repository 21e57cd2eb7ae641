"""The demo."""

import click

from pipelines.commands.options import SET


@click.command()
@click.option("--seed", default=7, show_default=True, help="Another seed, another cohort.")
@SET
def demo(seed: int, overrides: tuple[str, ...]) -> int:
    """Live a model's whole life on phantom DICOM: release, drift, retraining, a refused model.

    \b
    Example: lightbox demo --set gating.rules='[]'
    """
    from pipelines.demo import demo as play

    return play(seed, overrides)
