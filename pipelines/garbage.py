"""What a workspace can do without: finished work that no run, version or dossier refers to.

The search errs on the side of keeping: a digest that occurs anywhere in a run's record, a
version's tags, its dossier, the audit log or an endpoint's state is referred to.
"""

import json
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lineage.errors import BadInput
from lineage.files import read_json, sizes
from lineage.workspace import Workspace
from pipelines.backends.store import Store
from pipelines.runs import past_runs

DIGEST = re.compile(r"[0-9a-f]{64}")
DAY_S = 86_400
UNASKED_DAYS = 30


@dataclass(frozen=True)
class Waste:
    """One folder or file that can go."""

    kind: str
    path: Path
    size_bytes: int
    why: str


def find_waste(workspace: Workspace, runs_older_than_days: float | None = None) -> list[Waste]:
    """List what can go; nothing is touched. Records come before what they refer to.

    Args:
        workspace: Where to look.
        runs_older_than_days: Let go of the records of older runs too, and with them of what only
            they refer to. Without it every run is kept. The newest run is always kept.

    Raises:
        BadInput: The registry cannot be asked, or a version's files are not what was registered;
            what it refers to is then unknown.
    """
    store, documents = Store(workspace.store), _documents(workspace)
    old = _old_runs(workspace, runs_older_than_days, documents)
    documents += _records(workspace, {each.path for each in old})
    referred = {found for text in documents for found in DIGEST.findall(text)}
    return [
        *old,
        *_unreferred_steps(store.root / "steps", referred),
        *_unreferred(store.root / "objects", referred, "output of a step"),
        *_unreferred(workspace.home / "champions", referred, "copy out of the registry"),
        *(
            waste
            for models in sorted((workspace.home / "endpoints").glob("*/models"))
            for waste in _unreferred(models, referred, "copy of a model once in service")
        ),
        *_leftovers(store.root / "building", "an unfinished step", "its run was killed"),
        *_untouched(store.root / "known", "remembered digests", "not asked for"),
        *_untouched(workspace.home / "checkpoints", "a training that broke off", "not taken up"),
        *_untouched(workspace.home / "ingested", "files cleaned before", "not used"),
    ]


def free(workspace: Workspace, runs_older_than_days: float | None = None) -> list[Waste]:
    """Remove what can go, in the order of `find_waste`, so that a kill leaves nothing half-known.

    No run goes on between the look and the removal.

    Returns:
        What was removed.

    Raises:
        StepFailed: A run is going on.
        BadInput: As from `find_waste`; nothing was removed.
    """
    store = Store(workspace.store)
    with store.alone():
        waste = find_waste(workspace, runs_older_than_days)
        for each in waste:
            if each.path.is_dir():
                # Renamed first: a half-removed folder must not bear the name of a whole one.
                gone = each.path.with_name(f".gone-{each.path.name}")
                each.path.rename(gone)
                shutil.rmtree(gone)
            else:
                each.path.unlink(missing_ok=True)
        for lock in (store.root / "locks").iterdir():
            if lock.name != "store":
                lock.unlink()
    return waste


def _records(workspace: Workspace, old: set[Path]) -> list[str]:
    """The records of all runs that stay, as text: another version's may hold other facts."""
    files = [*workspace.runs.glob("*/run.json"), *workspace.runs.glob("*/steps.jsonl")]
    return [path.read_text(errors="replace") for path in files if path.parent not in old]


def _documents(workspace: Workspace) -> list[str]:
    """All texts of the registry and of the endpoints in which a digest means that it is needed."""
    found = [path.read_text() for path in (workspace.home / "endpoints").glob("*/*.json")]
    if not workspace.audit_log.exists():
        return found  # nothing was ever registered, and asking MLflow would make a registry
    from registry import audit_log, dossier
    from registry.mlflow_registry import versions

    log, known = audit_log.entries(), versions(None)
    found += [json.dumps(asdict(entry), default=str) for entry in log]
    registered = {entry.subject for entry in log if entry.action == "registered"}
    if lost := sorted(registered - {f"{v.name}:{v.version}" for v in known}):
        raise BadInput(
            f"the audit log saw {', '.join(lost)} registered, but MLflow has lost that: restore "
            "its database from a backup; until then nothing tells what those models need"
        )
    for version in known:
        found.append(json.dumps(asdict(version), default=str))
        found.append(json.dumps(dossier.lineage(version.name, version.version), default=str))
    return found


def _old_runs(workspace: Workspace, days: float | None, documents: list[str]) -> list[Waste]:
    if days is None:
        return []
    before = time.time() - days * DAY_S
    told = "\n".join(documents)
    return [
        Waste("run", folder, _total(folder), f"ended more than {days:g} days ago")
        for run in past_runs(workspace)[1:]
        if (folder := workspace.runs / run.id).stat().st_mtime < before
        and run.outcome != "running"
        and run.id not in told
    ]


def _unreferred_steps(folder: Path, referred: set[str]) -> list[Waste]:
    """Records of results that are not all there any more; one of results that stay may stay too."""
    return [
        waste
        for waste in _unreferred(folder, referred, "record of a step")
        if not (outputs := (read_json(waste.path) or {}).get("outputs"))
        or not referred.issuperset(outputs.values())
    ]


def _unreferred(folder: Path, referred: set[str], kind: str) -> list[Waste]:
    """Everything named by a digest that nothing refers to, and what an earlier `free` left."""
    return [
        Waste(kind, path, _total(path), "no run, version or dossier refers to it")
        for path in _below(folder)
        if path.name.startswith(".gone-")
        or (DIGEST.fullmatch(path.stem) and path.stem not in referred)
    ]


def _leftovers(folder: Path, kind: str, why: str) -> list[Waste]:
    return [Waste(kind, path, _total(path), why) for path in _below(folder)]


def _untouched(folder: Path, kind: str, why: str) -> list[Waste]:
    """What only saves time, and nobody has used lately."""
    before = time.time() - UNASKED_DAYS * DAY_S
    return [
        Waste(kind, path, _total(path), f"{why} in {UNASKED_DAYS} days")
        for path in _below(folder)
        if path.stat().st_mtime < before
    ]


def _below(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _total(path: Path) -> int:
    return sum(sizes(path))
