"""The snapshots of a workspace: which there are, and which one is meant."""

from dataclasses import dataclass
from pathlib import Path

from imaging.manifest import MANIFEST
from imaging.snapshots.integrity import read_root
from lineage.errors import BadInput
from lineage.files import read_json
from lineage.workspace import Workspace
from pipelines.backends.store import Store
from pipelines.runs import past_runs

OUTPUT = "snapshot"


@dataclass(frozen=True)
class Snapshot:
    """One data set that a run took in.

    Attributes:
        digest: Of the whole folder, as the store names it.
        root: Merkle root of its rows; None if it is older than roots are.
        runs: Those that used it, newest first.
        taken_at: When the first of them started.
    """

    digest: str
    path: Path
    root: str | None
    images: int
    patients: int
    set_aside: int
    runs: tuple[str, ...]
    taken_at: str


def snapshots(workspace: Workspace) -> list[Snapshot]:
    """Every snapshot that a run made or used and that is still here, newest first."""
    store, used = Store(workspace.store), dict[str, list[tuple[str, str]]]()
    for run in past_runs(workspace):
        for step in run.steps:
            if content := step.outputs.get(OUTPUT):
                used.setdefault(content, []).append((run.started_at, run.id))
    found = []
    for content, runs in used.items():
        path = store.path(content)
        counts = read_json(path / "counts.json")
        if counts is None or not (path / MANIFEST).exists():
            continue
        facts = {name: counts[name] for name in ("patients", "set_aside")}
        names = tuple(name for _, name in runs)
        taken = min(at for at, _ in runs)
        found.append(
            Snapshot(
                content, path, read_root(path), counts["read"], **facts, runs=names, taken_at=taken
            )
        )
    return sorted(found, key=lambda snapshot: snapshot.taken_at, reverse=True)


def find_snapshot(workspace: Workspace, name: str) -> Path:
    """The folder of a snapshot.

    Args:
        workspace: Where to look.
        name: `latest`, `previous` (the one before that), the beginning of a digest, of a Merkle
            root or of a run's id, or a folder.

    Raises:
        BadInput: There is none, or there are several.
    """
    if (Path(name) / MANIFEST).is_file():
        return Path(name)
    found = snapshots(workspace)
    if not found:
        raise BadInput("no snapshots yet; `lightbox run CONFIG` takes one")
    place = {"latest": 0, "previous": 1}.get(name)
    if place is not None:
        fitting = found[place : place + 1]
    else:
        fitting = [
            s
            for s in found
            if any(begins.startswith(name) for begins in (s.digest, s.root or "", *s.runs))
        ]
    if name == "previous" and len(found) == 1:
        raise BadInput("there is one snapshot here, and none before it")
    if len(fitting) != 1:
        told = "no snapshot is called" if not fitting else f"{len(fitting)} snapshots begin with"
        raise BadInput(f"{told} {name!r}; `lightbox data list` names them")
    return fitting[0].path
