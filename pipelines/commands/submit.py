"""Runs on a cluster: start one, follow it, have it started at fixed times."""

import os
from collections.abc import Callable
from dataclasses import asdict
from functools import reduce
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
    place_of,
    print_json,
    print_rich,
    print_table,
)

if TYPE_CHECKING:
    from lineage.workspace import Workspace
    from pipelines.config import LifecycleConfig
    from pipelines.graph import Pipeline
    from pipelines.runs import Run
    from pipelines.submitting.engine import Engine
    from pipelines.submitting.record import Submission
    from pipelines.submitting.submit import Prepared

NIGHTLY = "0 2 * * *"
FILE = click.Path(path_type=Path)
REPORT = click.option("--report", type=FILE, help="Write how it ended as JSON.")
JUNIT = click.option("--junit", type=FILE, help="Write how it ended as JUnit XML.")
EVERY = click.option(
    "--every",
    "every_s",
    metavar="SECONDS",
    default=15.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="How often to look, at most.",
)
UPLOAD = click.option(
    "--upload-sources",
    "upload",
    is_flag=True,
    help="Send sources of this machine to the bucket as they are; they may hold identities.",
)
DIRTY = click.option("--dirty", is_flag=True, help="Record uncommitted work as a patch.")


def submitting(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that submits, besides the engine."""
    options = (
        ENVIRONMENT,
        click.option("--wait", is_flag=True, help="Follow the run, and end with its exit code."),
        click.option("--again", is_flag=True, help="Start it though the same was started before."),
        DIRTY,
        UPLOAD,
        EVERY,
        click.option("--dry-run", is_flag=True, help="Say what would be started; send nothing."),
    )
    return reduce(lambda decorated, option: option(decorated), reversed(options), command)


@click.command()
@CONFIG
@SET
@click.option("--on", "engine", type=click.Choice(ENGINES), required=True)
@submitting
@click.option(
    "--if-requested",
    is_flag=True,
    help="Only if a retraining is asked for that nobody has started.",
)
@REPORT
@JUNIT
@JSON
@WATCH
def submit(config: Path, overrides: tuple[str, ...], engine: str, **options: Any) -> int:
    """Start the pipeline on a cluster; with --wait, follow it to its end.

    What is made of the same commit, settings and data is one run: submitting it twice finds the
    first, unless --again is said.

    \b
    Example: lightbox submit configs/phantom.yaml --on sagemaker --wait --report report.json
    """
    return hand_over(config, overrides, engine, **options)


def hand_over(
    config: Path,
    overrides: tuple[str, ...],
    engine: str,
    *,
    environment: Path | None,
    dry_run: bool,
    nightly: bool = False,
    if_requested: bool = False,
    **options: Any,
) -> int:
    """What `submit` and `run --on` do."""
    from lineage.workspace import workspace
    from pipelines.config import load
    from pipelines.submitting.engine import connect

    settings = load(config, overrides)
    place = place_of(engine, environment).absolute()
    where = connect(engine, place)
    _look_at(where, settings)
    submission = _Submission(config, overrides, place, where, workspace(), settings, nightly)
    if dry_run:
        return submission.show(**options)
    if if_requested:
        return submission.answer_requests(**options)
    return submission.start(**options)


def _look_at(engine: "Engine", settings: "LifecycleConfig") -> None:
    """Refuse a source that no pipeline has, and ask who is champion where the steps write it.

    Raises:
        BadInput: With the name. Misspelt, it would leave the true one to be found on this machine.
    """
    from lineage.errors import BadInput

    pipelines = [_pipeline(settings, nightly) for nightly in (False, True)]
    known = {source.name for pipeline in pipelines for source in pipeline.sources()}
    if strange := sorted(engine.given.keys() - known):
        raise BadInput(
            f"sources: the environment places {strange}, but there are {sorted(known)} only"
        )
    os.environ.setdefault("MLFLOW_TRACKING_URI", engine.registry)


class _Submission:
    """One command's work; what all its parts need."""

    def __init__(
        self,
        config: Path,
        overrides: tuple[str, ...],
        place: Path,
        engine: "Engine",
        home: "Workspace",
        settings: "LifecycleConfig",
        nightly: bool,
    ) -> None:
        self.config, self.overrides, self.place = config, overrides, place
        self.engine, self.home, self.settings = engine, home, settings
        self.pipeline = _pipeline(settings, nightly)

    def prepare(self, dirty: bool, upload: bool, request: str = "") -> "Prepared":
        from pipelines.submitting.submit import prepare

        return prepare(
            self.pipeline,
            self.settings.registration.name,
            self.engine,
            self.home,
            self.config,
            dirty=dirty,
            upload=upload,
            request=request,
        )

    def show(self, *, dirty: bool, upload: bool, as_json: bool, **_: Any) -> int:
        prepared = self.prepare(dirty, upload)
        told = {
            "engine": self.engine.name,
            "name": prepared.name,
            **prepared.identity.facts(),
            "uploads": [place.source for place in prepared.places if place.path],
        }
        if as_json:
            print_json(told)
        else:
            rows: list[tuple[Any, ...]] = [
                (key, ", ".join(value) if isinstance(value, list | dict) else value)
                for key, value in told.items()
            ]
            print_table(("would start", ""), rows, "nothing")
        return 0

    def answer_requests(self, **options: Any) -> int:
        from pipelines.submitting.requests import answer, requests_of, standing

        with requests_of(self.engine.state, self.home) as folder:
            found = standing(folder, self.settings)
            if found:
                prepared = self.prepare(
                    options["dirty"], options["upload"], ",".join(sorted(found))
                )
                run, submission = self.hand_over(prepared, options["again"])
                answer(folder, found, run.id)
        if not found:
            click.echo("no retraining is asked for", err=True)
            return 0
        return self.told(run, submission, **options)

    def start(self, **options: Any) -> int:
        prepared = self.prepare(options["dirty"], options["upload"])
        return self.told(*self.hand_over(prepared, options["again"]), **options)

    def hand_over(self, prepared: "Prepared", again: bool) -> "tuple[Run, Submission]":
        from pipelines.submitting.submit import submit

        run, submission, found = submit(
            prepared,
            self.engine,
            self.home,
            self.place,
            config=str(self.config),
            overrides=self.overrides,
            again=again,
        )
        told = "was submitted before; --again starts it anew" if found else "started"
        where = f"  {submission.url}" if submission.url else ""
        click.echo(f"{submission.name} {told}: {submission.engine_id}{where}", err=True)
        return run, submission

    def told(
        self,
        run: "Run",
        submission: "Submission",
        *,
        wait: bool,
        every_s: float,
        report: Path | None,
        junit: Path | None,
        as_json: bool,
        **_: Any,
    ) -> int:
        if wait:
            return _follow(run, submission, self.engine, self.home, every_s, report, junit, as_json)
        return _tell(run, submission, report, junit, as_json)


@click.command()
@click.argument("run", shell_complete=completing.runs)
@click.option("--stop", is_flag=True, help="End the run, and follow it until it has.")
@ENVIRONMENT
@EVERY
@REPORT
@JUNIT
@JSON
def attach(
    run: str,
    stop: bool,
    environment: Path | None,
    every_s: float,
    report: Path | None,
    junit: Path | None,
    as_json: bool,
) -> int:
    """Follow a submitted RUN to its end, and end with its exit code.

    RUN is the beginning of our id, or the whole of the engine's.

    \b
    Example: lightbox attach 20261121-101500
    """
    from lineage.workspace import workspace
    from pipelines.submitting.engine import connect
    from pipelines.submitting.record import find

    home = workspace()
    found, submission = find(home, run)
    engine = connect(submission.engine, environment or Path(submission.environment))
    if stop:
        engine.stop(submission.engine_id)
    return _follow(found, submission, engine, home, every_s, report, junit, as_json)


def _follow(
    run: "Run",
    submission: "Submission",
    engine: "Engine",
    home: "Workspace",
    every_s: float,
    report: Path | None,
    junit: Path | None,
    as_json: bool,
) -> int:
    """Look on until it ends. Ctrl-C stops looking, and nothing else."""
    from pipelines.submitting.follow import follow
    from pipelines.tell import Narrator

    try:
        with Narrator(quiet=as_json) as narrator:
            follow(run, submission, engine, home, narrator.tell, every_s=every_s)
    except KeyboardInterrupt:
        click.echo(f"the run goes on; `lightbox attach {run.id}` follows it again", err=True)
        raise
    return _tell(run, submission, report, junit, as_json)


def _tell(
    run: "Run", submission: "Submission", report: Path | None, junit: Path | None, as_json: bool
) -> int:
    """Say how it ended, or that it goes on, to people and to machines."""
    from pipelines.submitting.report import as_report, in_words, write

    write(run, submission, report, junit)
    if as_json:
        print_json(as_report(run, submission))
    else:
        print_rich(in_words(run, submission))
    return run.exit_code or 0


@click.command()
@click.argument("config", type=FILE, shell_complete=completing.configs)
@SET
@click.option("--on", "engine", type=click.Choice(ENGINES), required=True)
@ENVIRONMENT
@click.option(
    "--cron",
    default=NIGHTLY,
    show_default=True,
    help="When, in UTC: minute, hour, day, month, weekday.",
)
@click.option("--remove", is_flag=True, help="Take the schedule away.")
@click.option("--list", "list_all", is_flag=True, help="Only list what is scheduled there.")
@DIRTY
@JSON
def schedule(
    config: Path,
    overrides: tuple[str, ...],
    engine: str,
    environment: Path | None,
    cron: str,
    remove: bool,
    list_all: bool,
    dirty: bool,
    as_json: bool,
) -> int:
    """Have the cluster watch for drift at fixed times; the same again changes the schedule.

    \b
    Example: lightbox schedule configs/phantom.yaml --on kubeflow --cron "30 1 * * *"
    """
    from lineage.workspace import workspace
    from pipelines.config import load
    from pipelines.submitting.engine import connect, of_model
    from pipelines.submitting.schedule import name_of, place

    settings = load(config, overrides)
    where = connect(engine, place_of(engine, environment))
    _look_at(where, settings)
    pipeline, model = _pipeline(settings, nightly=True), settings.registration.name
    if remove:
        removed = where.unschedule(name_of(of_model(pipeline, model)))
        click.echo("removed" if removed else "there was none", err=True)
    elif not list_all:
        made = place(pipeline, model, where, workspace(), config, cron, dirty=dirty)
        click.echo(f"{made.name}: {made.cron} UTC", err=True)
    found = where.schedules()
    if as_json:
        print_json([asdict(each) for each in found])
        return 0
    rows = [(s.name, s.cron, s.target, "" if s.enabled else "off") for s in found]
    print_table(("schedule", "when (UTC)", "starts", ""), rows, "nothing is scheduled")
    return 0


def _pipeline(settings: "LifecycleConfig", nightly: bool) -> "Pipeline":
    from pipelines.model_lifecycle import drift_watch, model_lifecycle

    return (drift_watch if nightly else model_lifecycle)(settings)
