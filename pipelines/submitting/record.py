"""The record of a run that an engine executes, beside those of local runs.

runs/<id>/run.json          the run, as it was last seen
runs/<id>/submission.json   which run of which engine it is, and what it is made of
runs/<id>/work.patch        the uncommitted work that it was submitted with
runs/<id>/report.json       how it ended
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lineage.errors import BadInput
from lineage.files import read_json, write_json
from lineage.workspace import Workspace
from pipelines.graph import Pipeline
from pipelines.runs import Run, find_run, new_run
from pipelines.submitting.engine import Execution

SUBMITTED = "submitted"  # the outcome of a run that was not seen to end


@dataclass(frozen=True)
class Submission:
    """Which run of which engine it is, and what it is made of."""

    engine: str
    engine_id: str
    environment: str
    name: str
    url: str = ""
    uris: dict[str, str] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)  # see Identity.facts


def submitted(pipeline: Pipeline, config: str, overrides: Sequence[str]) -> Run:
    """A run of which nothing is known yet."""
    return replace(new_run(pipeline, config, overrides), outcome=SUBMITTED)


def keep(workspace: Workspace, run: Run, submission: Submission, patch: bytes = b"") -> None:
    """Write both down; the run last, for it makes the folder a run."""
    folder = workspace.runs / run.id
    folder.mkdir(parents=True, exist_ok=True)
    if patch:
        (folder / "work.patch").write_bytes(patch)
    write_json(folder / "submission.json", asdict(submission))
    keep_run(workspace, run)


def keep_run(workspace: Workspace, run: Run) -> None:
    """Write down how it fares; a full disk costs the record, not the look at the run."""
    with suppress(OSError):
        write_json(workspace.runs / run.id / "run.json", asdict(run), durable=False)


def submission_of(workspace: Workspace, run: Run) -> Submission | None:
    """None for a local run."""
    record = read_json(workspace.runs / run.id / "submission.json")
    return Submission(**record) if record else None


def find(workspace: Workspace, id: str) -> tuple[Run, Submission]:
    """A submitted run by the beginning of our id, or by the engine's whole one.

    Raises:
        BadInput: It was not submitted from this workspace.
    """
    for path in workspace.runs.glob("*/submission.json"):
        if (read_json(path) or {}).get("engine_id") == id:
            id = path.parent.name
    try:
        run = find_run(workspace, id)
    except BadInput as error:
        raise BadInput(
            f"{error}; one that was submitted from elsewhere is found by the same "
            "`lightbox submit` again, with --wait"
        ) from error
    if (submission := submission_of(workspace, run)) is None:
        raise BadInput(f"{run.id} ran on this machine; there is nothing to follow")
    return run, submission


def of_execution(workspace: Workspace, execution: Execution) -> tuple[Run, Submission] | None:
    """The record of an engine's run; None if it was neither submitted nor followed from here."""
    for path in sorted(workspace.runs.glob("*/submission.json")):
        if (read_json(path) or {}).get("engine_id") == execution.id:
            return find(workspace, path.parent.name)
    return None
