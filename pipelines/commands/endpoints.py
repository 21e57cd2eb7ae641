"""The local endpoints: status, start, stop, and asking one of them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pipelines.commands import completing
from pipelines.commands.options import JSON, print_json, print_table

MODEL = click.argument("model", required=False, shell_complete=completing.endpoints)


@click.group()
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
    from lineage.workspace import workspace
    from serving.local_endpoint import endpoints

    told: list[dict[str, Any]] = []
    rows: list[tuple[Any, ...]] = []
    for place in endpoints(workspace(), model):
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
        print_json(told)
        return
    headers = ("model", "endpoint", "version", "share", "digest", "requests", "errors")
    print_table(headers, rows, "no endpoints yet")


@endpoint.command()
@MODEL
def start(model: str | None) -> None:
    """Start what was stopped, or ended when idle, as it was.

    \b
    Example: lightbox endpoint start phantom-finding
    """
    from lineage.workspace import workspace
    from serving.local_endpoint import endpoints

    for place in endpoints(workspace(), model):
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
    from lineage.workspace import workspace
    from serving.local_endpoint import endpoints

    stopped = {place.model: place.stop() for place in endpoints(workspace(), model)}
    if as_json:
        print_json(stopped)
        return
    for name, was_running in stopped.items():
        click.echo(f"{name} {'stopped' if was_running else 'was not running'}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--model",
    help="Which model to ask, where several are in service.",
    shell_complete=completing.endpoints,
)
@JSON
def predict(file: Path, model: str | None, as_json: bool) -> None:
    """Ask a running endpoint about one DICOM, PNG or JPEG file.

    \b
    Example: lightbox predict scan.dcm
    """
    from imaging.reading.pixels import media_type
    from lineage.errors import BadInput
    from lineage.workspace import workspace
    from serving.local_endpoint import endpoints

    try:
        data = file.read_bytes()
    except OSError as error:
        raise BadInput(f"the file cannot be read ({error.strerror})") from None
    kind = media_type(data)
    if kind is None:
        raise BadInput("the file is neither DICOM, PNG nor JPEG")
    places = endpoints(workspace(), model)
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
        print_json({"model": running[0].model, **asdict(answer)})
    else:
        told = f"{answer.label}  score {answer.score:.4f}"
        click.echo(f"{told}  {running[0].model}, model {str(answer.digest)[:12]}")
