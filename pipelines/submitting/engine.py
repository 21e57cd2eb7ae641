"""What is asked of an engine, and what it tells of a run, in one shape for all of them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lineage.digest import digest
from lineage.errors import StepFailed
from pipelines.graph import Pipeline

if TYPE_CHECKING:
    from pipelines.submitting.identity import Identity

Name = Literal["kubeflow", "sagemaker"]
MOST = 43  # EventBridge allows a schedule 64 characters


class Unreachable(StepFailed):
    """The engine gives no answer just now; asking again later may help."""


@dataclass(frozen=True)
class Task:
    """What an engine tells of one of its tasks; states are those of `pipelines.runs.StepState`,
    and `stopped`."""

    name: str
    state: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    why: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Execution:
    """What an engine tells of a run."""

    id: str
    state: Literal["running", "succeeded", "failed", "stopped"]
    url: str = ""
    reason: str = ""
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True)
class Order:
    """A run as it is handed to an engine.

    Args:
        pipeline: What to run.
        name: What people look for in the engine's own pages.
        identity: What the run is made of; see there.
        uris: Where the cluster finds each source.
        patch: Uncommitted work, for `git apply`.
        again: Set apart from earlier runs that are made of the same; empty for the first.
    """

    pipeline: Pipeline
    name: str
    identity: "Identity"
    uris: Mapping[str, str]
    patch: bytes = b""
    again: str = ""


@dataclass(frozen=True)
class Schedule:
    """A pipeline that the engine starts by itself."""

    name: str
    cron: str  # in the engine's own words
    target: str  # what it starts
    enabled: bool = True


class Engine(Protocol):
    """One cluster, connected. Every method may raise `Unreachable`."""

    name: Name
    schemes: tuple[str, ...]  # of URIs that its steps can read
    given: dict[str, str]  # sources that its settings place
    image: str  # what its steps run in
    registry: str  # the MLflow server that its steps speak to
    state: str  # s3://… of the workspace that its steps share; empty where that is a volume

    def content(self, uri: str) -> str:
        """A digest of what lies there; of the name, where the engine cannot look."""

    def upload(self, path: Path, content: str) -> str:
        """Bring a file or folder to where steps can read it, once; the URI."""

    def find(self, pipeline: str, token: str) -> Execution | None:
        """The newest run that bears this token."""

    def start(self, order: Order) -> Execution:
        """Start a run; of two at the same time for one token, both get the same."""

    def look(self, id: str) -> Execution:
        """How a run fares."""

    def stop(self, id: str) -> None:
        """End a run early."""

    def schedule(self, order: Order, cron: str) -> Schedule:
        """Have it started at these times; what was scheduled under its name before is replaced."""

    def schedules(self) -> list[Schedule]:
        """All that this project scheduled."""

    def unschedule(self, name: str) -> bool:
        """Whether there was one to remove."""


def of_model(pipeline: Pipeline, model: str) -> Pipeline:
    """The pipeline under a name that no other model's has: engines keep one definition for each."""
    name = plain(model)
    if name != model or len(name) > MOST:
        name = f"{name[: MOST - 7].strip('-')}-{digest('model', model)[:6]}"
    return replace(pipeline, name=f"{pipeline.name}-{name}")


def plain(name: str) -> str:
    """A name as every engine can spell it."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def connect(engine: str, environment: Path) -> Engine:
    """The engine that a settings file describes; heavy libraries are imported only here."""
    from pipelines.settings import read_settings

    if engine == "kubeflow":
        from pipelines.backends.kubeflow.client import KubeflowEngine
        from pipelines.backends.kubeflow.settings import KubeflowSettings

        return KubeflowEngine(read_settings(environment, KubeflowSettings))
    from pipelines.backends.sagemaker.client import SageMakerEngine
    from pipelines.backends.sagemaker.settings import SageMakerSettings

    return SageMakerEngine(read_settings(environment, SageMakerSettings))


def fails(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every Fail of a graph as data; see `pipelines.show.as_data`."""
    for node in nodes:
        if "fail" in node:
            yield node
        yield from fails([*node.get("then", ()), *node.get("otherwise", ())])
