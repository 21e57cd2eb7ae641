"""The `lightbox` command. Thin: parse, call, print. Heavy imports stay inside the commands.

Exit codes: 0 done, 1 a step failed, 2 bad input, 3 the gate refused, 4 waits for approval,
5 the canary was rolled back.
"""

import errno
import getpass
import json
import logging
import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lineage.workspace import Workspace
    from pipelines.backends.local import Run

FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
CONFIG = click.argument("config", type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one setting."
)


def main() -> None:
    """Run the command; whatever goes wrong ends in one clear sentence and an exit code."""
    from lineage.errors import BadInput, StepFailed

    _quieten()
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except BadInput as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except StepFailed as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        if os.environ.get("LIGHTBOX_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno in FULL_OR_CLOSED:
            told = f"error: the workspace cannot be written ({error.strerror}); nothing is "
            click.echo(told + "half-written, and the same command goes on from here.", err=True)
            sys.exit(1)
        # The message of an unforeseen error may quote data, so only its kind and place are told.
        click.echo(f"error: {type(error).__name__} at {_place(error)}; this is a defect.", err=True)
        click.echo("LIGHTBOX_DEBUG=1 shows the whole traceback, which may quote data.", err=True)
        sys.exit(1)


def _quieten() -> None:
    """Third-party telemetry off, and their warnings out of the user's sight."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if not os.environ.get("LIGHTBOX_DEBUG"):
        warnings.simplefilter("ignore")
        logging.captureWarnings(True)
        logging.getLogger().setLevel(logging.ERROR)


def _place(error: BaseException) -> str:
    """The innermost place of our own code on the traceback."""
    from lineage.code import ROOT

    place, trace = "an unknown place", error.__traceback__
    while trace:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(ROOT) and ".venv" not in file.parts:
            place = f"{file.relative_to(ROOT)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lightbox-mlops")
def cli() -> None:
    """The whole life of a medical imaging model: scans in, gated, released, watched."""


@cli.command()
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
    return _finish(_walk(model_lifecycle(settings), config, as_json), as_json)


@cli.command()
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
    return _finish(_walk(drift_watch(settings), config, as_json), as_json)


@cli.command()
@CONFIG
@SET
@JSON
@click.option("--watch", "nightly", is_flag=True, help="The nightly drift watch instead.")
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
        _print_json(as_data(pipeline))
    else:
        _print(as_tree(pipeline))


@cli.command()
@CONFIG
@SET
@click.option("--on", "engine", type=click.Choice(["kubeflow", "sagemaker"]), required=True)
@click.option("--environment", type=click.Path(path_type=Path), help="Where it is to run.")
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True)
@click.option("--watch", "nightly", is_flag=True, help="The nightly drift watch instead.")
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
        from pipelines.backends import kubeflow

        kubeflow.compile_to(pipeline, read_settings(where, kubeflow.KubeflowSettings), output)
    else:
        from pipelines.backends import sagemaker

        sagemaker.compile_to(pipeline, read_settings(where, sagemaker.SageMakerSettings), output)
    click.echo(f"{output}: {pipeline.name} compiled for {engine}")


@cli.command()
@JSON
@click.option("--last", default=20, show_default=True, help="How many, newest first.")
def runs(as_json: bool, last: int) -> None:
    """List past runs, how each ended, and why.

    \b
    Example: lightbox runs --last 5
    """
    from lineage.workspace import workspace
    from pipelines.backends.local import past_runs
    from pipelines.tell import short

    found = past_runs(workspace())[:last]
    if as_json:
        _print_json([asdict(run) for run in found])
        return
    rows = [
        (r.id, r.pipeline, Path(r.config).name, _outcome(r.outcome), _tally(r), short(r.reason))
        for r in found
    ]
    _table(("run", "pipeline", "config", "outcome", "steps", "reason"), rows, "no runs yet")


@cli.command()
@JSON
def models(as_json: bool) -> None:
    """List registered models, the refused ones too.

    \b
    Example: lightbox models
    """
    from pipelines.tell import short
    from registry.mlflow_registry import versions

    found = versions(None)
    if as_json:
        _print_json([asdict(version) for version in found])
        return
    rows = [
        (
            f"{v.name}:{v.version}",
            _outcome(v.verdict),
            ", ".join(v.aliases),
            v.digest[:12],
            v.created_at[:16].replace("T", " "),
            short(v.reason),
        )
        for v in found
    ]
    _table(("model", "verdict", "alias", "digest", "created", "reason"), rows, "no models yet")


@cli.command()
@click.argument("model")
@JSON
@click.option("--html", type=click.Path(path_type=Path), help="Write one self-contained page.")
def lineage(model: str, as_json: bool, html: Path | None) -> None:
    """Show where MODEL[:VERSION] came from: data, code, settings, gate, who allowed it.

    \b
    Example: lightbox lineage phantom-finding:1 --html lineage.html
    """
    from lineage.errors import BadInput
    from registry import dossier

    name, version = _version(model)
    facts = dossier.lineage(name, version)
    if html:
        try:
            html.write_text(dossier.as_html(facts))
        except OSError as error:
            raise BadInput(f"{html}: cannot be written ({error.strerror})") from None
        click.echo(f"wrote {html}; open it in a browser")
    elif as_json:
        _print_json(facts)
    else:
        click.echo(dossier.as_text(facts))


@cli.command()
@click.argument("model")
@click.option("--reason", required=True, help="Why; it is kept in the audit log.")
@click.option("--refuse", is_flag=True, help="Refuse instead.")
@click.option("--actor", default=None, help="Who decides; the login name if left out.")
def approve(model: str, reason: str, refuse: bool, actor: str | None) -> None:
    """Approve MODEL:VERSION for release; a version that its gate refused cannot be approved.

    \b
    Example: lightbox approve phantom-finding:1 --reason "figures reviewed"
    """
    from lineage.errors import BadInput
    from registry import approval, mlflow_registry

    name, _, version = model.partition(":")
    if not version:
        raise BadInput(f"say which version: {name}:VERSION; `lightbox models` lists them")
    if not reason.strip():
        raise BadInput("--reason is empty; the audit log wants to know why")
    who = getpass.getuser() if actor is None else actor.removeprefix("person:").strip()
    if not who:
        raise BadInput("--actor is empty; the audit log wants to know who")
    decide = approval.refuse if refuse else approval.approve
    decide(name, version, actor=f"person:{who}", reason=reason)
    if not refuse:
        click.echo(f"{name}:{version} approved; the same `lightbox run` again releases it")
        return
    click.echo(f"{name}:{version} refused")
    if (serving := mlflow_registry.champion(name)) and serving.version == version:
        click.echo(f"It is still in service: `lightbox endpoint stop {name}` takes it out.")


MODEL = click.argument("model", required=False)


@cli.group()
def endpoint() -> None:
    """The local endpoints: each registered model has its own."""


@endpoint.command()
@MODEL
@JSON
def status(model: str | None, as_json: bool) -> None:
    """Say which endpoints run, and which model versions answer with which share.

    \b
    Example: lightbox endpoint status
    """
    from serving.local_endpoint import endpoints

    told: list[dict[str, Any]] = []
    rows: list[tuple[Any, ...]] = []
    for place in endpoints(_workspace(), model):
        address = place.status()
        variants = place.state() if address else ()
        told.append(
            {
                "model": place.model,
                "address": address and asdict(address),
                "variants": [asdict(v) for v in variants],
            }
        )
        where = f"{address.host}:{address.port}, pid {address.pid}" if address else "not running"
        rows += [
            (place.model, where, v.version, f"{v.share:.0%}", v.digest[:12], v.requests, v.errors)
            for v in variants
        ] or [(place.model, where, "", "", "", "", "")]
    if as_json:
        _print_json(told)
        return
    headers = ("model", "endpoint", "version", "share", "digest", "requests", "errors")
    _table(headers, rows, "no endpoints yet")


@endpoint.command()
@MODEL
def start(model: str | None) -> None:
    """Start what was stopped, or ended when idle, as it was.

    \b
    Example: lightbox endpoint start phantom-finding
    """
    from serving.local_endpoint import endpoints

    for place in endpoints(_workspace(), model):
        address = place.start()
        click.echo(f"{place.model} listens on {address.host}:{address.port}")


@endpoint.command()
@MODEL
@JSON
def stop(model: str | None, as_json: bool) -> None:
    """Stop one endpoint, or all; `start` or the next canary brings it back as it was.

    \b
    Example: lightbox endpoint stop
    """
    from serving.local_endpoint import endpoints

    stopped = {place.model: place.stop() for place in endpoints(_workspace(), model)}
    if as_json:
        _print_json(stopped)
        return
    for name, was_running in stopped.items():
        click.echo(f"{name} {'stopped' if was_running else 'was not running'}")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", help="Which model to ask, where several are in service.")
@JSON
def predict(file: Path, model: str | None, as_json: bool) -> None:
    """Ask a running endpoint about one DICOM, PNG or JPEG file.

    \b
    Example: lightbox predict scan.dcm
    """
    from imaging.pixels import media_type
    from lineage.errors import BadInput
    from serving.local_endpoint import endpoints

    try:
        data = file.read_bytes()
    except OSError as error:
        raise BadInput(f"the file cannot be read ({error.strerror})") from None
    kind = media_type(data)
    if kind is None:
        raise BadInput("the file is neither DICOM, PNG nor JPEG")
    places = endpoints(_workspace(), model)
    running = [place for place in places if place.status()]
    if not running:
        way = "lightbox endpoint start" if places else "lightbox run CONFIG"
        raise BadInput(f"no model is in service; `{way}` brings one there")
    if len(running) > 1:
        names = ", ".join(place.model for place in running)
        raise BadInput(f"several models are in service; say --model, one of {names}")
    answer = running[0].invoke(data, kind)
    if answer.error:
        raise BadInput(f"the endpoint gave no answer ({answer.error}): {answer.sentence}")
    if as_json:
        _print_json({"model": running[0].model, **asdict(answer)})
    else:
        told = f"{answer.label}  score {answer.score:.4f}"
        click.echo(f"{told}  {running[0].model}, model {str(answer.digest)[:12]}")


@cli.command()
@click.option("--seed", default=7, show_default=True, help="Another seed, another cohort.")
@SET
def demo(seed: int, overrides: tuple[str, ...]) -> int:
    """Live a model's whole life on phantom DICOM: release, drift, retraining, a refused model.

    \b
    Example: lightbox demo --set gating.rules='[]'
    """
    from pipelines.demo import demo as play

    return play(seed, overrides)


def _walk(pipeline: Any, config: Path, as_json: bool) -> "Run":
    from functools import partial

    from lineage.workspace import workspace
    from pipelines.backends import local
    from pipelines.sources import resolve
    from pipelines.tell import Narrator

    home = workspace()
    narrator = Narrator(quiet=as_json)
    where = partial(resolve, workspace=home)
    return local.run(pipeline, home, where, config=str(config), tell=narrator.tell)


def _workspace() -> "Workspace":
    from lineage.workspace import workspace

    return workspace()


def _finish(run: "Run", as_json: bool) -> int:
    from pipelines.tell import summary

    if as_json:
        _print_json(asdict(run))
    else:
        _print(summary(run))
    return run.exit_code or 0


def _version(model: str) -> tuple[str, str]:
    """Split MODEL[:VERSION]; without a version, the champion, else the newest."""
    from lineage.errors import BadInput
    from registry.mlflow_registry import champion, versions

    name, _, version = model.partition(":")
    if version:
        return name, version
    if best := champion(name):
        return name, best.version
    if not (found := versions(name)):
        raise BadInput(f"no model is named {name!r}; `lightbox models` lists them")
    return name, found[-1].version


def _outcome(word: str) -> str:
    colour = {"done": "green", "pass": "green", "running": "yellow", "inconclusive": "yellow"}
    return f"[{colour.get(word, 'red')}]{word}[/]"


def _tally(run: "Run") -> str:
    states = [step.state for step in run.steps]
    return f"{states.count('ran')} ran, {states.count('reused')} reused"


def _table(headers: tuple[str, ...], rows: list[tuple[Any, ...]], empty: str) -> None:
    from rich.table import Table

    if not rows:
        click.echo(empty)
        return
    table = Table(box=None, pad_edge=False)
    for header in headers:
        table.add_column(header, header_style="bold", no_wrap=header != "reason", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    _print(table)


def _print(renderable: Any) -> None:
    from pipelines.tell import console

    console().print(renderable, soft_wrap=isinstance(renderable, str))


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))


if __name__ == "__main__":
    main()
