"""Tools around the pipeline: the doctor, MLflow's pages, schemas for editors, completion."""

from pathlib import Path

import click

from pipelines.commands.options import JSON, print_json

KINDS = ("lifecycle", "kubeflow", "sagemaker")


@click.command()
@JSON
@click.option("--gpu", is_flag=True, help="Also compute something on the GPU; takes seconds.")
def doctor(as_json: bool, gpu: bool) -> int:
    """Check this machine, the installation and the workspace; say what to do.

    Changes nothing. Ends with exit code 1 if there is a problem; a warning is none.

    \b
    Example: lightbox doctor
    """
    from dataclasses import asdict

    from lineage.workspace import workspace
    from pipelines.doctor import examine

    found = examine(workspace(), gpu=gpu)
    if as_json:
        print_json([asdict(check) for check in found])
    else:
        colours = {"ok": "green", "warning": "yellow", "problem": "red"}
        for check in found:
            state = click.style(f"{check.state:8}", colours[check.state])
            click.echo(f"{state} {check.name:10} {check.told}")
            if check.way:
                click.echo(f"{'':19} -> {check.way}")
    return int(any(check.state == "problem" for check in found))


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=5000, show_default=True)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def ui(port: int, no_browser: bool) -> None:
    """Open MLflow's own pages on this workspace, until Ctrl-C.

    They are bound to this machine and open to one browser, because they have no login and can
    edit; what is changed in the registry there, the audit log notices. --port 0 takes a free one.

    \b
    Example: lightbox ui --no-browser
    """
    from lineage.workspace import workspace
    from pipelines.ui import serve

    serve(workspace(), port, browser=not no_browser, tell=click.echo)


@click.command()
@click.argument("kind", type=click.Choice(KINDS), default="lifecycle")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write it there.")
def schema(kind: str, output: Path | None) -> None:
    """Print the JSON Schema of a settings file, so that an editor completes and checks it.

    KIND is lifecycle (configs/*.yaml), kubeflow or sagemaker (configs/environments/*.yaml). The
    shipped files name theirs in their first line; many editors follow it without being asked.

    \b
    Example: lightbox schema -o lifecycle.schema.json
    """
    from lineage.errors import BadInput
    from pipelines.schema import as_text

    text = as_text(kind)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise BadInput(f"{output}: cannot be written ({error.strerror})") from None
    click.echo(f"wrote {output}")


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that lets SHELL complete commands, options, models, runs and settings.

    Put this line into ~/.bashrc, or ~/.zshrc with zsh:

    \b
        eval "$(lightbox completion bash)"

    With fish: lightbox completion fish > ~/.config/fish/completions/lightbox.fish

    \b
    Example: lightbox completion bash
    """
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None
    command = context.find_root().command
    click.echo(script(command, {}, "lightbox", "_LIGHTBOX_COMPLETE").source())
