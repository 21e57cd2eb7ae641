"""Where a source's data lies on this machine: a path, or what the registry holds of a champion."""

from pathlib import Path

from lineage.errors import BadInput
from lineage.known import Known
from lineage.workspace import Workspace
from pipelines.graph import Source

# What each scheme takes out of the registry; a champion that is not there is an empty folder.
CAPTURED = "captured"
CHAMPION = {"champion": "model", "champion-reference": "reference", "champion-snapshot": "manifest"}


def resolve(source: Source, workspace: Workspace) -> Path:
    """Find a source's data; what comes from the registry is fetched and checked by digest.

    Raises:
        BadInput: Nothing lies there, or the workspace lies in it; the message names the setting.
    """
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


def _of_champion(name: str, what: str, workspace: Workspace) -> Path:
    from registry import mlflow_registry

    digest = mlflow_registry.quick_champion(name)
    folder = workspace.home / "champions"
    if digest is None:
        nothing = folder / "none"
        nothing.mkdir(parents=True, exist_ok=True)
        return nothing
    if what == "model":
        # Asking MLflow costs seconds, and what its endpoint serves is the same.
        known = Known(workspace.store / "known")
        for place in (folder / digest, workspace.endpoint(name) / "models" / digest):
            if place.is_dir() and known.tree_digest(place) == digest:
                return place
    champion = mlflow_registry.champion(name)
    if champion is None:
        raise BadInput(f"{name} lost its champion while it was being looked up; run again")
    return mlflow_registry.download(champion, what, folder / champion.tags[f"{what}_digest"])
