"""The model's life, from incoming scans to a watched endpoint. Start reading here.

Steps name where their inputs come from; the list at the end says what runs, and what
runs only when a step said so. Every backend runs this one definition.
"""

from components.deploy_canary import deploy_canary
from components.evaluate import evaluate
from components.gate import gate
from components.ingest import ingest
from components.monitor_drift import monitor_drift
from components.promote import promote
from components.register import register
from components.retrain import retrain
from components.split import split
from components.train import train
from components.validate import validate
from pipelines.config import LifecycleConfig
from pipelines.graph import Fail, Node, Pipeline, Port, Source, Step, When

# How a run ends when it does not end well; 0, 1 and 2 are done, failed and bad input.
REFUSED, WAITING, ROLLED_BACK = 3, 4, 5


def model_lifecycle(config: LifecycleConfig) -> Pipeline:
    """Take in scans, train, release what passes the gate, and watch it."""
    scans, labels = (Source(n, getattr(config.sources, n)) for n in ("scans", "labels"))
    # De-identified at the door: no later step ever sees a patient's name.
    ingested = Step(ingest, config.ingestion, scans=scans, labels=labels)
    snapshot = ingested["snapshot"]
    # What the champion was made from: are new patients like those that it learned from?
    previous = Source(
        "previous", f"champion-snapshot:{config.registration.name}", replaced_by=snapshot
    )
    validated = Step(validate, config.validation, snapshot=snapshot, previous=previous)
    parted = Step(split, config.splitting, snapshot=snapshot, accepted=validated["accepted"])
    data = {"snapshot": snapshot, "splits": parted["splits"]}

    trained = Step(train, config.training, **data)
    # The champion is an input: a cached comparison can never be with the wrong one.
    champion = Source(
        "champion", f"champion:{config.registration.name}", replaced_by=trained["model"]
    )
    evaluated = Step(evaluate, config.evaluation, model=trained["model"], champion=champion, **data)
    gated = Step(gate, config.gating, metrics=evaluated["metrics"])
    # Refused models are registered too: what was tried is part of the record.
    registered = Step(
        register,
        config.registration,
        model=trained["model"],
        metrics=evaluated["metrics"],
        reference=evaluated["reference"],
        verdict=gated["verdict"],
        validation=validated["report"],
        **data,
    )

    promoted = Step(
        promote, config.promotion, version=registered["version"], verdict=gated["verdict"]
    )
    canary = Step(deploy_canary, config.deployment, approval=promoted["approval"], **data)
    watch = _watch(config, evaluated["reference"], snapshot)

    refused = Fail("refused", gated["reason"], REFUSED)
    waiting = Fail("waiting for approval", promoted["reason"], WAITING)
    rolled_back = Fail("rolled back", canary["reason"], ROLLED_BACK)
    released = When(canary["released"], then=watch, otherwise=[rolled_back])
    approved = When(promoted["approved"], then=[canary, released], otherwise=[waiting])
    return Pipeline(
        name="model-lifecycle",
        nodes=[
            ingested,
            validated,
            parted,
            trained,
            evaluated,
            gated,
            registered,
            When(gated["passed"], then=[promoted, approved], otherwise=[refused]),
        ],
    )


def drift_watch(config: LifecycleConfig) -> Pipeline:
    """The lifecycle's last steps on their own, run nightly against what is in service."""
    champion = config.registration.name
    reference = Source("reference", f"champion-reference:{champion}")
    snapshot = Source("snapshot", f"champion-snapshot:{champion}")
    return Pipeline(name="drift-watch", nodes=_watch(config, reference, snapshot))


def _watch(
    config: LifecycleConfig, reference: Port | Source, snapshot: Port | Source
) -> list[Node]:
    captured = config.sources.traffic or f"captured:{config.registration.name}"
    traffic, labels = Source("traffic", captured), Source("labels", config.sources.labels)
    watched = Step(monitor_drift, config.monitoring, reference=reference, traffic=traffic)
    # Asks for a new run of this pipeline; the graph itself stays free of cycles.
    retrained = Step(
        retrain, config.retraining, report=watched["report"], snapshot=snapshot, labels=labels
    )
    return [watched, When(watched["drifted"], then=[retrained])]
