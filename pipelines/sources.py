"""Where a source's data lies on this machine: a path, a copy of what lies elsewhere, or what the
registry holds of a champion."""

import sys
from pathlib import Path

from lineage.digest import digest
from lineage.errors import BadInput, StepFailed
from lineage.known import Known
from lineage.workspace import Workspace
from pipelines.graph import Source

# What each scheme takes out of the registry; a champion that is not there is an empty folder.
CAPTURED = "captured"
CHAMPION = {"champion": "model", "champion-reference": "reference", "champion-snapshot": "manifest"}


def resolve(source: Source, workspace: Workspace, *, fetch: bool = True) -> Path:
    """Find a source's data; what comes from the registry is fetched and checked by digest.

    Args:
        source: What is looked for.
        workspace: Keeps copies of what lies elsewhere, and captured traffic.
        fetch: Bring the copy of a remote source up to date. Without it the copy is taken as it is:
            for whoever only says what a run would do.

    Raises:
        BadInput: Nothing lies there, or the workspace lies in it; the message names the setting.
        StepFailed: Not all of a remote source came; the next call goes on from there.
    """
    from imaging.incoming.remote import is_remote

    if is_remote(source.uri):
        return _copied(source, workspace, fetch)
    scheme, separator, name = source.uri.partition(":")
    if separator and scheme in CHAMPION:
        return _of_champion(name, CHAMPION[scheme], workspace)
    if separator and scheme == CAPTURED:
        # Nothing was captured yet: an empty folder, so that "no traffic" is an answer, not a crash.
        captured = workspace.endpoint(name) / "captured"
        captured.mkdir(parents=True, exist_ok=True)
        return captured
    path = Path(source.uri).absolute()
    if not path.exists():
        looked = (
            f"; looked from {Path.cwd()}, for relative paths count from the folder in which the "
            "command is typed"
        )
        gone = f"sources.{source.name}: {source.uri} does not exist"
        raise BadInput(gone if Path(source.uri).is_absolute() else gone + looked)
    if holds(path, workspace.home):
        raise BadInput(
            f"sources.{source.name}: the workspace lies in {source.uri}, so its own files would be "
            "taken for data: type the command in a folder outside, or let LIGHTBOX_HOME name one"
        )
    return path


def holds(folder: Path, path: Path) -> bool:
    """Whether a path lies in a folder, or is that folder."""
    return path.resolve().is_relative_to(folder.resolve())


def require_outside(folder: Path, path: Path, what: str, way: str) -> None:
    """Keep what we write out of the images, where a run would take it for one.

    Raises:
        BadInput: The path lies in the folder.
    """
    if holds(folder, path):
        name = folder.resolve().name
        raise BadInput(
            f"{what} ({path}) would lie among the images in {folder}; type `lightbox init {name}` "
            f"in the folder above, or {way}"
        )


def _copied(source: Source, workspace: Workspace, fetch: bool) -> Path:
    """The workspace's copy of a remote source."""
    from components.progress import Work, now_and_then
    from imaging.incoming.mirror import fetched, mirror
    from imaging.incoming.remote import open_origin, require_nobody

    state = workspace.home / "incoming" / digest("address", source.uri)
    folder, work = state / "files", Work(f"fetching {source.name}")
    # No step has started, so nobody paints yet.
    hear = now_and_then(lambda line: print(f"  {line}", file=sys.stderr, flush=True))

    def report(done: int, total: int, note: str) -> None:
        work.advance(done, total, note)
        hear(work)

    try:
        require_nobody(source.uri)
        if fetch:
            change = mirror(open_origin(source.uri), source.uri, folder, state, report)
            if change.gone:
                gone = f"{len(change.gone)} files are gone at their source, and so here, too"
                print(f"  {source.name}: {gone}", file=sys.stderr)
    except (BadInput, StepFailed) as error:
        had = fetched(folder, state)
        way = f"; what was fetched before lies in {had}, which sources can name" if had else ""
        raise type(error)(f"sources.{source.name}: {error}{way}") from None
    if path := fetched(folder, state):
        return path
    raise BadInput(
        f"sources.{source.name}: nothing was fetched from there yet; a run does it, and "
        "`lightbox fetch ADDRESS FOLDER --dry-run` says how much it is"
    )


def _of_champion(name: str, what: str, workspace: Workspace) -> Path:
    from registry import mlflow_registry

    tags = mlflow_registry.quick_champion_tags(name)
    folder = workspace.home / "champions"
    if not tags:
        nothing = folder / "none"
        nothing.mkdir(parents=True, exist_ok=True)
        return nothing
    # Asking MLflow costs seconds, and what its endpoint serves is the same.
    known, content = Known(workspace.store / "known"), tags.get(f"{what}_digest", "")
    for place in (folder / content, workspace.endpoint(name) / "models" / content):
        if content and place.is_dir() and known.tree_digest(place) == content:
            return place
    champion = mlflow_registry.champion(name)
    if champion is None:
        raise BadInput(f"{name} lost its champion while it was being looked up; run again")
    return mlflow_registry.download(champion, what, folder / champion.tags[f"{what}_digest"])
