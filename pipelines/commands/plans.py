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
    Nothing is fetched: a source that lies elsewhere is taken as it was when it was last fetched.

    \b
    Example: lightbox plan configs/phantom.yaml --set training.learning_rate=0.001
    """
    from functools import partial

    from rich.text import Text

    from lineage.workspace import workspace
    from pipelines.backends.plan import plan as look
    from pipelines.config import load
    from pipelines.model_lifecycle import drift_watch, model_lifecycle
    from pipelines.sources import resolve

    home, settings = workspace(), load(config, overrides)
    pipeline = (drift_watch if nightly else model_lifecycle)(settings)
    planned = look(pipeline, home, partial(resolve, workspace=home, fetch=False))
    if as_json:
        print_json([asdict(each) for each in planned])
        return
    rows = [
        (
            each.step,
            Text(each.action, ACTIONS[each.action]),
            "" if each.seconds is None else f"{each.seconds:.1f} s",
            each.why + (f" (if {each.when})" if each.when else ""),
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
    from rich.text import Text

    from lineage.workspace import workspace
    from pipelines.explain import explain as explained
    from pipelines.runs import find_run
    from pipelines.tell import reason

    found = find_run(workspace(), run)
    rows = explained(found)
    if as_json:
        told = {"run": found.id, "outcome": found.outcome, "reason": found.reason}
        print_json({**told, "overrides": found.overrides, "steps": [asdict(row) for row in rows]})
        return
    head = Text.assemble((found.pipeline, "bold"), f" {found.id}  ", coloured(found.outcome))
    print_rich(head.append("  ".join(("", found.config, *found.overrides))))
    if all(row.state == "skipped" for row in rows):
        print_rich(Text(f"no step was reached: {reason(found)}"))
        return
    cells = [(row.step, coloured(row.state), f"{row.seconds:.1f} s", row.why) for row in rows]
    print_table(("step", "state", "time", "why"), cells, "no steps")
