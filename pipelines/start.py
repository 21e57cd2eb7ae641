"""The one way in which a run starts on this machine: from the command, and from Python."""

from functools import partial

from lineage.workspace import workspace
from pipelines.backends import local
from pipelines.graph import Pipeline
from pipelines.runs import Run
from pipelines.sources import resolve


def start(pipeline: Pipeline, *, config: str = "", tell: local.Tell) -> Run:
    """Walk a pipeline in the workspace in force; see `pipelines.backends.local.run`."""
    home = workspace()
    where = partial(resolve, workspace=home)
    return local.run(pipeline, home, where, config=config, tell=tell)
