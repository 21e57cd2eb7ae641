"""Hand a run to an engine: find it if it was handed over before, else bring all it needs."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lineage.workspace import Workspace
from pipelines.graph import Pipeline
from pipelines.runs import Run
from pipelines.submitting import record
from pipelines.submitting.engine import Engine, Execution, Order, of_model
from pipelines.submitting.identity import Identity
from pipelines.submitting.placing import Place, identified, places, sent
from pipelines.submitting.record import Submission
from pipelines.submitting.work import Work, read_work


@dataclass(frozen=True)
class Prepared:
    """All that is known of a run before anything is sent."""

    pipeline: Pipeline
    name: str
    identity: Identity
    places: list[Place]
    work: Work


def prepare(
    pipeline: Pipeline,
    model: str,
    engine: Engine,
    workspace: Workspace,
    config: Path,
    *,
    dirty: bool = False,
    upload: bool = False,
    request: str = "",
) -> Prepared:
    """Look at the commit, the settings and the data; nothing is sent.

    Args:
        pipeline: What to run.
        model: The registered name, for people.
        engine: Where.
        workspace: Holds champions and captured traffic.
        config: The settings file; its repository is the one whose commit counts.
        dirty: Take uncommitted work as a patch.
        upload: Files of this machine may be sent.
        request: The request for a retraining that the run answers.
    """
    pipeline = of_model(pipeline, model)
    work = read_work(config.absolute().parent, dirty=dirty)
    found = places(pipeline, engine, workspace, upload=upload)
    identity = identified(pipeline, engine, work, found, request)
    commit = f"{work.commit[:7] or 'nocommit'}{'-dirty' if work.patch else ''}"
    name = f"{model[:40]}-{commit}-{identity.token[:8]}"
    return Prepared(pipeline, name, identity, found, work)


def submit(
    prepared: Prepared,
    engine: Engine,
    workspace: Workspace,
    environment: Path,
    *,
    config: str,
    overrides: Sequence[str] = (),
    again: bool = False,
) -> tuple[Run, Submission, bool]:
    """Start the run, unless one that is made of the same was started before.

    Returns:
        Its record, which run of the engine it is, and whether it was found.
    """
    found = None if again else engine.find(prepared.pipeline.name, prepared.identity.token)
    if found and (known := record.of_execution(workspace, found)):
        return *known, True
    uris = {place.source: place.uri for place in prepared.places if place.uri}
    if found is None:
        uris = dict(sent(prepared.places, engine))
        nonce = secrets.token_hex(4) if again else ""
        order = Order(
            prepared.pipeline, prepared.name, prepared.identity, uris, prepared.work.patch, nonce
        )
        execution = engine.start(order)
    else:
        execution = found
    run = record.submitted(prepared.pipeline, config, overrides)
    submission = _submission(prepared, engine, execution, environment, uris)
    record.keep(workspace, run, submission, prepared.work.patch)
    return run, submission, found is not None


def _submission(
    prepared: Prepared,
    engine: Engine,
    execution: Execution,
    environment: Path,
    uris: dict[str, str],
) -> Submission:
    return Submission(
        engine=engine.name,
        engine_id=execution.id,
        environment=str(environment),
        name=prepared.name,
        url=execution.url,
        uris=uris,
        identity=prepared.identity.facts(),
    )
