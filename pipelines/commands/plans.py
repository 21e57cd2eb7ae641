"""Before a run and after it: what would run, what did, and why."""

from dataclasses import asdict
from pathlib import Path

import click

from pipelines.commands import completing
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

ACTIONS = {"run": "yellow", "follow": "yellow", "reuse": "cyan", "skip": "dim"}


@click.command()
@CONFIG
@SET
@JSON
@WATCH
def plan(config: Path, overrides: tuple[str, ...], as_json: bool, nightly: bool) -> None:
    """Say beforehand which steps a run would execute or reuse, and why; nothing is executed.

    `follow` is a step that waits for one that runs: if that makes the same as before, it is reused.

    \b
    Example: lightbox plan configs/phantom.yaml --set training.learning_rate=0.001
    """
    from functools import partial

    from rich.markup import escape

    from lineage.workspace import workspace
    from pipelines.backends.plan import plan as look
    from pipelines.config import load
    from pipelines.model_lifecycle import drift_watch, model_lifecycle
    from pipelines.sources import resolve

    home, settings = workspace(), load(config, overrides)
    pipeline = (drift_watch if nightly else model_lifecycle)(settings)
    planned = look(pipeline, home, partial(resolve, workspace=home))
    if as_json:
        print_json([asdict(each) for each in planned])
        return
    rows = [
        (
            each.step,
            f"[{ACTIONS[each.action]}]{each.action}[/]",
            "" if each.seconds is None else f"{each.seconds:.1f} s",
            escape(each.why + (f" (if {each.when})" if each.when else "")),
        )
        for each in planned
    ]
    print_table(("step", "plan", "last took", "why"), rows, "no steps")
    due = [each for each in planned if each.action in ("run", "follow")]
    took = sum(each.seconds or 0 for each in due)
    known = f", {took:.0f} s as they last took" if took else ""
    ends = f"{len(due)} of {len(planned)} steps may run{known}" if due else "nothing would run"
    click.echo(ends)


@click.command()
@click.argument("run", required=False, shell_complete=completing.runs)
@JSON
def explain(run: str | None, as_json: bool) -> None:
    """Say for each step of RUN (the newest) why it ran, was reused, or was not reached.

    \b
    Example: lightbox explain
    """
    from rich.markup import escape

    from lineage.workspace import workspace
    from pipelines.explain import explain as explained
    from pipelines.runs import find_run

    found = find_run(workspace(), run)
    rows = explained(found)
    if as_json:
        print_json({"run": found.id, "steps": [asdict(row) for row in rows]})
        return
    print_rich(f"[bold]{found.pipeline}[/] {found.id}  {coloured(found.outcome)}  {found.config}")
    cells = [
        (row.step, coloured(row.state), f"{row.seconds:.1f} s", escape(row.why)) for row in rows
    ]
    print_table(("step", "state", "time", "why"), cells, "no steps")
