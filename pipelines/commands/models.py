"""Registered models: what there is, where it came from, who allows it."""

import getpass
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click

from pipelines.commands import completing
from pipelines.commands.options import JSON, coloured, print_json, print_table


@click.command()
@JSON
def models(as_json: bool) -> None:
    """List registered models, the refused ones too.

    \b
    Example: lightbox models
    """
    from registry.mlflow_registry import logged, versions

    found = versions(None)
    if as_json:
        print_json([asdict(version) for version in found])
        return
    rows = [
        (
            f"{v.name}:{v.version}",
            coloured(v.verdict),
            _auroc(logged(v)),
            ", ".join(v.aliases),
            v.digest[:12],
            v.created_at[:16].replace("T", " "),
        )
        for v in found
    ]
    headers = ("model", "verdict", "AUROC on the test split", "alias", "digest", "created")
    print_table(headers, rows, "no models yet")


def _auroc(metrics: Mapping[str, float]) -> str:
    try:
        estimate, low, high = (metrics[f"auroc{end}"] for end in ("", "_low", "_high"))
    except KeyError:
        return "unknown"
    return f"{estimate:.3f} ({low:.3f} to {high:.3f})"


@click.command()
@click.argument("model", shell_complete=completing.models)
@JSON
@click.option("--html", type=click.Path(path_type=Path), help="Write one self-contained page.")
def lineage(model: str, as_json: bool, html: Path | None) -> None:
    """Show where MODEL[:VERSION] came from: data, code, settings, gate, who allowed it.

    \b
    Example: lightbox lineage phantom-finding:1 --html lineage.html
    """
    from components.shared_state import fetch_state
    from lineage.errors import BadInput
    from lineage.openings import FOLDER
    from lineage.workspace import workspace
    from registry import dossier
    from registry.mlflow_registry import find_version

    home = workspace()
    fetch_state((home.audit_log.name, f"ledgers/{FOLDER}/*"), home.home)
    facts = dossier.lineage(*find_version(model))
    if html:
        try:
            html.write_text(dossier.as_html(facts))
        except OSError as error:
            raise BadInput(f"{html}: cannot be written ({error.strerror})") from None
        click.echo(f"wrote {html}; open it in a browser")
    elif as_json:
        print_json(facts)
    else:
        click.echo(dossier.as_text(facts))


@click.command()
@click.argument("model", shell_complete=completing.model_versions)
@click.option("--reason", required=True, help="Why; it is kept in the audit log.")
@click.option("--refuse", is_flag=True, help="Refuse instead.")
@click.option("--actor", default=None, help="Who decides; the login name if left out.")
def approve(model: str, reason: str, refuse: bool, actor: str | None) -> None:
    """Approve MODEL:VERSION for release; a version that its gate refused cannot be approved.

    \b
    Example: lightbox approve phantom-finding:1 --reason "figures reviewed"
    """
    from components.shared_state import shared_state
    from lineage.errors import BadInput
    from lineage.workspace import workspace
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
    with shared_state((workspace().audit_log.name,), workspace().home, lease_minutes=5):
        decide(name, version, actor=f"person:{who}", reason=reason)
    if not refuse:
        click.echo(f"{name}:{version} approved; the same `lightbox run` again releases it")
        return
    click.echo(f"{name}:{version} refused")
    if (serving := mlflow_registry.champion(name)) and serving.version == version:
        click.echo(f"It is still in service: `lightbox endpoint stop {name}` takes it out.")
