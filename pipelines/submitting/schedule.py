"""Have an engine start a pipeline by itself."""

from dataclasses import replace
from pathlib import Path

from lineage.workspace import Workspace
from pipelines.graph import Pipeline
from pipelines.submitting.cron import fields
from pipelines.submitting.engine import Engine, Order, Schedule, of_model
from pipelines.submitting.placing import identified, places, sent
from pipelines.submitting.work import read_work


def name_of(pipeline: Pipeline) -> str:
    """One schedule per pipeline of a model; EventBridge allows 64 characters."""
    return f"lightbox-{pipeline.name}"[:64]


def place(
    pipeline: Pipeline,
    model: str,
    engine: Engine,
    workspace: Workspace,
    config: Path,
    cron: str,
    *,
    dirty: bool = False,
) -> Schedule:
    """Schedule a pipeline with the champion as it is now, or change its schedule.

    What an engine starts by itself always reads the same places, so that the schedule is to be
    placed again once another model is champion.

    Raises:
        BadInput: A source lies on this machine, where later runs cannot read it.
    """
    fields(cron)
    pipeline = of_model(pipeline, model)
    work = read_work(config.absolute().parent, dirty=dirty)
    found = places(pipeline, engine, workspace, upload=False, standing=True)
    identity = identified(pipeline, engine, work, found)
    if work.patch:  # it belongs to no run of ours, and every night's run is made with it
        kept = workspace.home / "schedules" / f"{identity.token}.patch"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(work.patch)
    uris = sent(found, engine)
    # A definition of its own: what somebody submits by day must not change what runs at night.
    nightly = replace(pipeline, name=f"{pipeline.name}-nightly")
    order = Order(nightly, name_of(pipeline), identity, uris, work.patch)
    return engine.schedule(order, cron)
