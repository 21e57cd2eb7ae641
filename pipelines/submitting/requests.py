"""Requests for a retraining that wait for somebody to act, in the workspace that the cluster uses.

`retrain` files them; a scheduled job calls `lightbox submit --if-requested` after the drift watch.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.shared_state import VARIABLE, shared_state
from lineage.digest import digest
from lineage.files import write_json
from lineage.workspace import Workspace
from monitoring.retraining import REQUESTED, read_requests
from pipelines.config import LifecycleConfig
from pipelines.runs import now

LEASE_MINUTES = 15  # to digest, upload and start


@contextmanager
def requests_of(state: str, workspace: Workspace) -> Iterator[Path]:
    """The folder of requests; what is changed in there holds on the cluster too.

    Args:
        state: `s3://BUCKET/PREFIX` of the cluster's workspace, or empty where this workspace is a
            volume that the cluster mounts too.
        workspace: This one.
    """
    if not state:
        yield workspace.requests
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = state
    try:
        with (
            TemporaryDirectory() as folder,
            shared_state(("requests/*.json",), Path(folder), LEASE_MINUTES),
        ):
            yield Path(folder) / "requests"
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def standing(folder: Path, settings: LifecycleConfig) -> dict[str, dict[str, Any]]:
    """The requests for this model that nobody has acted on, by name.

    A request is named after its drift report and the policy that it was judged by, and knows the
    model that drifted.
    """
    from registry.mlflow_registry import find_by_digest

    policy = settings.retraining.model_dump(mode="json")
    found = {}
    for name, request in read_requests(folder).items():
        if request["status"] != REQUESTED or "run" in request:
            continue
        if name != digest("retraining request", request["cause"]["drift_report"], policy):
            continue
        if find_by_digest(settings.registration.name, request["cause"]["model_digest"]):
            found[name] = request
    return found


def answer(folder: Path, found: dict[str, dict[str, Any]], run: str) -> None:
    """Write down which run answers them; the requests stand, for they space out later ones."""
    for name, request in found.items():
        write_json(folder / f"{name}.json", {**request, "run": run, "answered_at": now()})
