"""What one run on an engine would cost: each task's time, times the price of what it runs on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from statistics import median
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from lineage.errors import BadInput
from lineage.workspace import Workspace
from pipelines.backends.tasks import ALWAYS, Instances, Pod, Task
from pipelines.graph import Pipeline
from pipelines.runs import Run, config_digest, past_runs

HOURS_PER_MONTH = 730
LIMIT, UNKNOWN = "time limit", "start-up"  # an upper bound; all that can be told


class Price(BaseModel):
    """Per hour."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_demand: float = Field(ge=0)
    spot: float = Field(ge=0)

    def times(self, factor: float) -> Self:
        """The price of so many."""
        return type(self)(on_demand=self.on_demand * factor, spot=self.spot * factor)


class Billing(BaseModel):
    """How an engine's time is counted.

    Args:
        region: Where these prices hold.
        startup_s: What is billed beside the step itself, for each job.
        least_billed_s: What the shortest job is billed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: str
    startup_s: float = Field(ge=0)
    least_billed_s: float = Field(ge=0)


class SageMakerPrices(Billing):
    """Per instance; a job's volume costs for as long as the job runs."""

    instances: dict[str, Price]
    storage_gib_month: float = Field(ge=0)


class KubeflowPrices(Billing):
    """Per what a pod asks for."""

    cpu: Price
    memory_gib: Price
    gpu: Price


class Prices(BaseModel):
    """From configs/lists/prices.yaml, or a file of one's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date
    source: str
    currency: str
    sagemaker: SageMakerPrices
    kubeflow: KubeflowPrices


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the most of several measurements; all three equal for one."""

    least: float = 0.0
    middle: float = 0.0
    most: float = 0.0

    def __add__(self, other: "Spread") -> "Spread":
        return Spread(self.least + other.least, self.middle + other.middle, self.most + other.most)

    def times(self, factor: float) -> "Spread":
        """The spread of a multiple."""
        return Spread(self.least * factor, self.middle * factor, self.most * factor)


@dataclass(frozen=True)
class Estimate:
    """What one task costs.

    Args:
        task: Its name on the engine.
        runs_on: Instance or pod.
        measurements: How many the time is taken from.
        basis: The same in words, such as `2 runs`; `time limit` where it was never measured.
        billed_s: Start-up included.
        on_demand: In the currency of the prices.
        spot: The same where the engine may take it away; on-demand where it never does.
        bound: It is an upper bound, for want of a measurement.
        cached: A repeated run may find its result and pay nothing.
        guarded: It stands in a branch, and may not run at all.
    """

    task: str
    runs_on: str
    measurements: int
    basis: str
    billed_s: Spread
    on_demand: Spread
    spot: Spread
    bound: bool
    cached: bool
    guarded: bool


@dataclass(frozen=True)
class Total:
    """What a run costs that takes a certain way."""

    way: str
    on_demand: Spread
    spot: Spread
    bound: bool


def measured(runs: Iterable[Run]) -> dict[str, list[float]]:
    """The seconds that each step took, once for each time that it was executed."""
    times: dict[str, dict[str, float]] = {}
    for run in runs:
        for step in run.steps:
            if step.state == "ran":
                times.setdefault(step.name, {})[run.id] = step.seconds
            elif step.state == "reused":
                times.setdefault(step.name, {})[step.made_by] = step.made_seconds
    return {name: list(found.values()) for name, found in times.items()}


def runs_of(pipeline: Pipeline, workspace: Workspace) -> list[Run]:
    """The workspace's runs of the very same pipeline and settings."""
    wanted = config_digest(pipeline)
    return [run for run in past_runs(workspace) if run.config_digest == wanted]


def estimate(
    tasks: Iterable[Task], seconds: Mapping[str, list[float]], prices: Prices
) -> list[Estimate]:
    """What each task costs that runs on something; an engine does the others by itself.

    A task whose step was never measured counts with its time limit. Retries are not counted.

    Raises:
        BadInput: An instance type has no price.
    """
    # Kubernetes takes no underscores, so that a step may bear another name there.
    taken = {name.replace("_", "-"): found for name, found in seconds.items()}
    return [
        _estimate(task, taken.get(task.name.replace("_", "-"), []), prices)
        for task in tasks
        if task.runs_on and task.kind != "fail"
    ]


def _estimate(task: Task, seconds: list[float], prices: Prices) -> Estimate:
    billing: Billing
    if isinstance(task.runs_on, Instances):
        billing = prices.sagemaker
        hourly = _of_instances(task.runs_on, prices.sagemaker, may_be_spot=task.kind == "training")
    else:
        assert task.runs_on
        billing, hourly = prices.kubeflow, _of_pod(task.runs_on, prices.kubeflow)
    times = seconds or [(task.minutes_limit or 0) * 60]
    billed = [max(billing.startup_s + taken, billing.least_billed_s) for taken in times]
    spread = Spread(min(billed), median(billed), max(billed))
    return Estimate(
        task=task.name,
        runs_on=str(task.runs_on),
        measurements=len(seconds),
        basis=_basis(task, len(seconds)),
        billed_s=spread,
        on_demand=spread.times(hourly.on_demand / 3600),
        spot=spread.times(hourly.spot / 3600),
        bound=not seconds and bool(task.minutes_limit),
        cached=task.cached,
        guarded=task.condition not in ("", ALWAYS),
    )


def _basis(task: Task, measurements: int) -> str:
    if measurements:
        return f"{measurements} run{'s' * (measurements > 1)}"
    return LIMIT if task.minutes_limit else UNKNOWN


def _of_instances(machine: Instances, prices: SageMakerPrices, may_be_spot: bool) -> Price:
    price = prices.instances.get(machine.type)
    if price is None:
        raise BadInput(
            f"sagemaker.instances: no price for {machine.type}; add it there, "
            f"the prices know {sorted(prices.instances)}"
        )
    volume = machine.volume_gib * prices.storage_gib_month / HOURS_PER_MONTH
    spot = price.spot if may_be_spot else price.on_demand
    return Price(on_demand=price.on_demand + volume, spot=spot + volume).times(machine.count)


def _of_pod(pod: Pod, prices: KubeflowPrices) -> Price:
    cpu, memory = prices.cpu.times(pod.cpu), prices.memory_gib.times(pod.memory_gib)
    gpus = prices.gpu.times(pod.gpus)
    return Price(
        on_demand=cpu.on_demand + memory.on_demand + gpus.on_demand,
        spot=cpu.spot + memory.spot + gpus.spot,
    )


def totals(estimates: Iterable[Estimate]) -> list[Total]:
    """What a run costs that goes through every branch, that goes through none, or that finds
    every result again which the engine may reuse."""
    found = list(estimates)
    ways = {
        "every branch": found,
        "no branch": [each for each in found if not each.guarded],
        "repeated": [each for each in found if not each.cached],
    }
    return [
        Total(
            way,
            sum((each.on_demand for each in those), Spread()),
            sum((each.spot for each in those), Spread()),
            any(each.bound for each in those),
        )
        for way, those in ways.items()
    ]
