"""Runs: start one, draw it, look at those that were."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.options import (
    CONFIG,
    JSON,
    SET,
    WATCH,
    coloured,
    print_json,
    print_rich,
    print_table,
)

if TYPE_CHECKING:
    from pipelines.runs import Run


@click.command()
@CONFIG
@SET
@JSON
def run(config: Path, overrides: tuple[str, ...], as_json: bool) -> int:
    """Walk the pipeline with the settings of CONFIG; finished work is reused.

    \b
    Example: lightbox run configs/phantom.yaml --set training.learning_rate=0.001
    """
    from pipelines.config import load
    from pipelines.model_lifecycle import model_lifecycle

    settings = load(config, overrides)
    return _finish(_walk(model_lifecycle(settings), config, overrides, as_json), as_json)


@click.command()
@CONFIG
@SET
@JSON
def watch(config: Path, overrides: tuple[str, ...], as_json: bool) -> int:
    """Judge captured traffic against the champion's reference; ask for a retraining if due.

    \b
    Example: lightbox watch configs/phantom.yaml
    """
    from pipelines.config import load
    from pipelines.model_lifecycle import drift_watch

    settings = load(config, overrides)
    return _finish(_walk(drift_watch(settings), config, overrides, as_json), as_json)


@click.command()
@CONFIG
@SET
@JSON
@WATCH
def show(config: Path, overrides: tuple[str, ...], as_json: bool, nightly: bool) -> None:
    """Draw the pipeline: steps, what they read and make, and what each branch guards.

    \b
    Example: lightbox show configs/phantom.yaml
    """
    from pipelines.config import load
    from pipelines.model_lifecycle import drift_watch, model_lifecycle
    from pipelines.show import as_data, as_tree

    settings = load(config, overrides)
    pipeline = (drift_watch if nightly else model_lifecycle)(settings)
    if as_json:
        print_json(as_data(pipeline))
    else:
        print_rich(as_tree(pipeline))


@click.command()
@JSON
@click.option(
    "--last",
    default=20,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many, newest first.",
)
def runs(as_json: bool, last: int) -> None:
    """List past runs, how each ended, and why.

    \b
    Example: lightbox runs --last 5
    """
    from lineage.workspace import workspace
    from pipelines.runs import past_runs
    from pipelines.tell import reason, short

    home = workspace()
    found = past_runs(home)[:last]
    if as_json:
        print_json([asdict(run) for run in found])
        return
    rows = [
        (
            r.id,
            r.pipeline,
            " ".join((Path(r.config).name, *r.overrides)),
            coloured(r.outcome),
            _auroc(r),
            _tally(r),
            short(reason(r)),
        )
        for r in found
    ]
    headers = ("run", "pipeline", "settings", "outcome", "AUROC", "steps", "reason")
    print_table(headers, rows, f"no runs yet in {home.home}")


def _walk(pipeline: Any, config: Path, overrides: tuple[str, ...], as_json: bool) -> "Run":
    from lineage.errors import BadInput
    from pipelines.settings import placed
    from pipelines.start import start
    from pipelines.tell import Narrator

    try:
        with Narrator(quiet=as_json) as narrator:
            return start(pipeline, config=str(config), overrides=overrides, tell=narrator.tell)
    except BadInput as error:
        raise BadInput(placed(config, overrides, str(error))) from error


def _finish(run: "Run", as_json: bool) -> int:
    from pipelines.tell import console, summary

    if as_json:
        print_json(asdict(run))
    else:
        print_rich(summary(run, console().width))
    return run.exit_code or 0


def _auroc(run: "Run") -> str:
    """Without its interval, which the run's summary and report give."""
    found = next((step.values["auroc"] for step in run.steps if "auroc" in step.values), "")
    return str(found).partition(" ")[0].rstrip(":")


def _tally(run: "Run") -> str:
    states = [step.state for step in run.steps]
    return f"{states.count('ran')} ran, {states.count('reused')} reused"
