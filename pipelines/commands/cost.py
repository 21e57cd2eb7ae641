"""What a run would cost."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lineage.code import ROOT
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
    print_table,
)

if TYPE_CHECKING:
    from pipelines.backends.tasks import Engine
    from pipelines.cost import Estimate, KubeflowPrices, Prices, SageMakerPrices, Spread, Total
    from pipelines.runs import Run

PRICES = ROOT / "configs" / "lists" / "prices.yaml"


@click.command()
@CONFIG
@SET
@click.option("--on", "engine", type=click.Choice(ENGINES), required=True)
@ENVIRONMENT
@click.option(
    "--prices",
    "price_list",
    type=click.Path(path_type=Path),
    default=PRICES,
    show_default=True,
    help="What things cost.",
)
@click.option(
    "--from",
    "run_id",
    metavar="RUN",
    shell_complete=completing.runs,
    help="Take times from that run alone, whatever its settings were.",
)
@JSON
@WATCH
def cost(
    config: Path,
    overrides: tuple[str, ...],
    engine: "Engine",
    environment: Path | None,
    price_list: Path,
    run_id: str | None,
    as_json: bool,
    nightly: bool,
) -> None:
    """Estimate what a run costs on an engine, from the times of runs on this machine.

    A step that was never measured counts with its time limit, and is marked so.

    \b
    Example: lightbox cost configs/phantom.yaml --on sagemaker
    """
    from lineage.workspace import workspace
    from pipelines.backends.tasks import compiled
    from pipelines.config import load
    from pipelines.cost import Prices, estimate, measured, runs_of, totals
    from pipelines.model_lifecycle import drift_watch, model_lifecycle
    from pipelines.runs import find_run
    from pipelines.settings import read_settings

    pipeline = (drift_watch if nightly else model_lifecycle)(load(config, overrides))
    where = place_of(engine, environment)
    prices = read_settings(price_list, Prices)
    home = workspace()
    runs = [find_run(home, run_id)] if run_id else runs_of(pipeline, home)
    estimates = estimate(compiled(pipeline, engine, where), measured(runs), prices)
    ways = totals(estimates)
    notes = _notes(engine, where, price_list, prices, runs)
    if as_json:
        facts = {"engine": engine, "currency": prices.currency, "as_of": prices.as_of}
        told = {"tasks": [asdict(e) for e in estimates], "totals": [asdict(way) for way in ways]}
        print_json({**facts, **told, "notes": notes})
        return
    _print(estimates, ways, prices.currency)
    for note in notes:
        click.echo(note)


def _print(estimates: "list[Estimate]", ways: "list[Total]", currency: str) -> None:
    rows = [
        (
            each.task,
            each.runs_on.replace(", ", "\n"),  # room for figures in a narrow window
            _spread(each.billed_s.times(1 / 60), 1, each.bound),
            _money(each.on_demand, each.bound),
            _money(each.spot, each.bound),
            each.basis,
        )
        for each in estimates
    ]
    headers = ("task", "runs on", "minutes", currency, "with spot", "why")
    print_table(headers, rows, "no task runs on anything")
    click.echo()
    told = {
        "every branch": "every branch taken",
        "no branch": "ends at its first branch, as a refused run does",
        "repeated": "every branch taken, each cached result found again",
    }
    totals = [
        (_money(way.on_demand, way.bound), _money(way.spot, way.bound), told[way.way])
        for way in ways
    ]
    print_table((f"a run, {currency}", "with spot", "why"), totals, "")


def _notes(
    engine: str, where: Path, price_list: Path, prices: "Prices", runs: "list[Run]"
) -> list[str]:
    """What the figures rest on."""
    billing = prices.sagemaker if engine == "sagemaker" else prices.kubeflow
    named = ", ".join(run.id for run in runs[:3]) + (", ..." if len(runs) > 3 else "")
    times = (
        f"times: {len(runs)} run{'s' * (len(runs) > 1)} in this workspace ({named}), not scaled to "
        f"another machine; this one has {_cpus()} CPUs"
        if runs
        else "times: none measured with these settings; --from RUN takes those of another run"
    )
    counted = (
        f"counted: {billing.startup_s:g} s of start-up for each task; not counted: retries, "
        "storage of data, the network, an endpoint, a tracking server"
    )
    found = [
        "≤: for want of a measurement, the time limit of a step",
        times,
        f"prices: {price_list}, as of {prices.as_of}, {billing.region}. {prices.source}",
        counted,
    ]
    if engine == "sagemaker":
        found += _elsewhere(where, billing)
    return found


def _elsewhere(where: Path, billing: "SageMakerPrices | KubeflowPrices") -> list[str]:
    from pipelines.backends.sagemaker.settings import SageMakerSettings
    from pipelines.settings import read_settings

    region = read_settings(where, SageMakerSettings).region
    if region == billing.region:
        return []
    return [f"beware: the run takes place in {region}, the prices are those of {billing.region}"]


def _cpus() -> int:
    import os

    return len(os.sched_getaffinity(0))


def _money(amount: "Spread", bound: bool) -> str:
    return _spread(amount, 3, bound)


def _spread(found: "Spread", digits: int, bound: bool) -> str:
    """The middle, and below it how far it spreads, if that can be seen; or an upper bound."""
    smallest = 10**-digits

    def said(value: float) -> str:
        return f"{value:.{digits}f}" if value == 0 or value >= smallest else f"<{smallest:g}"

    if bound:
        return f"≤ {max(found.most, smallest):.{digits}f}"
    least, most = said(found.least), said(found.most)
    return said(found.middle) + (f"\n{least}–{most}" if least != most else "")
