"""A life of a model in six steps: what clusters must carry, in its smallest form."""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from components.contract import Input, Output, Resources, component
from pipelines.graph import Fail, Pipeline, Source, Step, When

IMAGE = "registry.example/lightbox@sha256:" + "ab" * 32


class Knobs(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    note: str = "costs 5 $, and {{$.inputs}} is no placeholder"


class Decision(NamedTuple):
    passed: bool
    reason: str


class Approval(NamedTuple):
    approved: bool
    reason: str


class Registered(NamedTuple):
    version: str


class Watched(NamedTuple):
    drifted: bool


def stands(**outputs: object) -> bool:
    return True


@component(secrets=("pseudonym.key",), retries=2)
def take_in(config: Knobs, scans: Input, snapshot: Output) -> None: ...


@component(trains="model", resources=Resources(cpu=8, memory_gib=32, gpus=1, timeout_minutes=90))
def fit(config: Knobs, snapshot: Input, model: Output) -> None: ...


@component()
def evaluate(config: Knobs, model: Input, champion: Input, verdict: Output) -> Decision: ...  # type: ignore[empty-body]


@component(receipt=stands, registers="model")
def enter(config: Knobs, model: Input, verdict: Input, version: Output) -> Registered: ...  # type: ignore[empty-body]


@component(receipt=stands)
def approve(config: Knobs, verdict: Input, approval: Output) -> Approval: ...  # type: ignore[empty-body]


@component()
def watch(config: Knobs, approval: Input, report: Output) -> Watched: ...  # type: ignore[empty-body]


def small_lifecycle(scans: str = "scans/here", config: Knobs = Knobs()) -> Pipeline:
    taken = Step(take_in, config, scans=Source("scans", scans))
    fitted = Step(fit, config, snapshot=taken["snapshot"])
    champion = Source("champion", "champion:toy")
    judged = Step(evaluate, config, model=fitted["model"], champion=champion)
    entered = Step(enter, config, model=fitted["model"], verdict=judged["verdict"])
    approved = Step(approve, config, verdict=judged["verdict"])
    watched = Step(watch, config, approval=approved["approval"])
    waiting = Fail("waiting for approval", approved["reason"], 4)
    refused = Fail("refused", judged["reason"], 3)
    inner = When(approved["approved"], then=[watched], otherwise=[waiting])
    outer = When(judged["passed"], then=[approved, inner], otherwise=[refused])
    return Pipeline("small-lifecycle", [taken, fitted, judged, entered, outer])
