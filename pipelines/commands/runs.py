"""Runs: start one, draw it, look at those that were."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands import completing
from pipelines.commands.options import (
    CONFIG,
    ENGINES,
    ENVIRONMENT,
    JSON,
    SET,
    WATCH,
    coloured,
    place_of,
    print_json,
    print_rich,
    print_table,
)
from pipelines.commands.submit import JUNIT, REPORT, hand_over, submitting

if TYPE_CHECKING:
    from pipelines.backends.tasks import Engine, Task
    from pipelines.runs import Run


@click.command()
@CONFIG
@SET
@click.option(
    "--until",
    metavar="STEP",
    shell_complete=completing.steps,
    help="Stop after this step, such as validate or split; a later run goes on from there.",
)
@click.option(
    "--on", "engine", type=click.Choice(ENGINES), help="On this cluster; see `lightbox submit`."
)
@submitting
@REPORT
@JUNIT
@JSON
def run(
    config: Path,
    overrides: tuple[str, ...],
    until: str | None,
    engine: str | None,
    report: Path | None,
    junit: Path | None,
    as_json: bool,
    **elsewhere: Any,
) -> int:
    """Walk the pipeline with the settings of CONFIG; finished work is reused.

    With --on it runs on a cluster, as if it was submitted.

    \b
    Example: lightbox run configs/phantom.yaml --set training.learning_rate=0.001
    Example: lightbox run configs/phantom.yaml --until split
    """
    from pipelines.config import load
    from pipelines.model_lifecycle import model_lifecycle
    from pipelines.submitting.report import write

    if engine and until:
        raise click.UsageError("--until is for runs on this machine; leave out --on")
    if engine:
        told: dict[str, Any] = {"report": report, "junit": junit, "as_json": as_json}
        return hand_over(config, overrides, engine, **told, **elsewhere)
    if any(elsewhere[name] for name in ("environment", "again", "dirty", "upload", "dry_run")):
        raise click.UsageError("these options are for a cluster; say --on kubeflow or sagemaker")
    done = _walk(model_lifecycle(load(config, overrides)), config, overrides, as_json, until)
    write(done, None, report, junit)
    return _finish(done, as_json)


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
@click.option(
    "--on",
    "engine",
    type=click.Choice(ENGINES),
    help="List the tasks that this engine would get instead.",
)
@ENVIRONMENT
@JSON
@WATCH
def show(
    config: Path,
    overrides: tuple[str, ...],
    engine: "Engine | None",
    environment: Path | None,
    as_json: bool,
    nightly: bool,
) -> None:
    """Draw the pipeline: steps, what they read and make, and what each branch guards.

    With --on, compile it, and list what the engine would get: every task, what it runs on, what
    it reads and makes, and what it waits for.

    \b
    Example: lightbox show configs/phantom.yaml --on kubeflow
    """
    from pipelines.config import load
    from pipelines.model_lifecycle import drift_watch, model_lifecycle
    from pipelines.show import as_data, as_tree

    settings = load(config, overrides)
    pipeline = (drift_watch if nightly else model_lifecycle)(settings)
    if engine:
        from pipelines.backends.tasks import compiled

        where = place_of(engine, environment)
        tasks = compiled(pipeline, engine, where)
        if as_json:
            print_json([{**asdict(t), "runs_on": str(t.runs_on or "")} for t in tasks])
            return
        rows = [(t.name, _placed(t), "\n".join(_told(t))) for t in tasks]
        print_table(("task", "runs on", "settings"), rows, "no tasks")
    elif as_json:
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


def _placed(task: "Task") -> str:
    return f"{task.kind}\n{task.runs_on}" if task.runs_on else task.kind


def _told(task: "Task") -> Iterator[str]:
    """A line for each thing that a reader of an engine's task looks for."""
    from pipelines.backends.tasks import ALWAYS

    if task.condition:
        yield f"{'once' if task.condition == ALWAYS else 'if'} {task.condition}"
    if task.outcome:
        yield f"ends the run as “{task.outcome}”"
    # Configs, which bear digests, and what the engine fills in by itself are in the JSON.
    reads = [o for o in dict.fromkeys(task.inputs.values()) if "://" not in o and "{{" not in o]
    for verb, names in (("reads", reads), ("makes", task.outputs), ("after", task.after)):
        if names:
            yield f"{verb} {', '.join(names)}"
    if task.kind not in ("condition", "fail", "importer", "model package"):
        networks = {"none": "no network", "vpc": "in the VPC", "public": "on the internet"}
        limit = task.minutes_limit and f"at most {task.minutes_limit:g} min"
        retries = task.retries and f"{task.retries} retries"
        facts = (limit, task.cached and "cached", retries, networks.get(task.network))
        yield ", ".join(fact for fact in facts if fact)


def _walk(
    pipeline: Any,
    config: Path,
    overrides: tuple[str, ...],
    as_json: bool,
    until: str | None = None,
) -> "Run":
    from lineage.errors import BadInput
    from pipelines.settings import placed
    from pipelines.start import start
    from pipelines.tell import Narrator

    try:
        with Narrator(quiet=as_json) as narrator:
            return start(
                pipeline,
                config=str(config),
                overrides=overrides,
                until=until,
                tell=narrator.tell,
            )
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
