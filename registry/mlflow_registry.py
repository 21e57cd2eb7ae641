"""Model versions in MLflow: one run per model with its files, and one version per digest.

Files are logged as they are (safetensors, ONNX, JSON, Parquet); no MLflow flavour takes part,
because those pickle. A version's digest, verdict and evidence are tags, for MLflow's own pages
and for search; what a reviewer trusts is `audit_log`. Layout of a run's artifacts:

    model/                    the files that `model_digest` names
    assessment-<n>/<what>/    metrics, verdict, reference, lineage of the n-th assessment

A model that is assessed again keeps its version: the newer assessment is logged beside the older
one and its verdict becomes the version's.
"""

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from lineage import telemetry
from lineage.digest import tree_digest
from lineage.errors import BadInput
from lineage.tracking import SQLITE, ask, tracking_uri
from lineage.workspace import workspace
from registry import audit_log
from registry.decisions import Decision, decision

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"


@dataclass(frozen=True)
class Version:
    """One model, by number and by digest.

    `verdict` is pass, fail or inconclusive, `reason` the gate's sentence; `created_at` is UTC,
    ISO 8601.
    """

    name: str
    version: str
    digest: str
    verdict: str
    reason: str
    run_id: str
    created_at: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]


def register_model(
    name: str,
    model_dir: Path,
    tags: Mapping[str, str],
    artifacts: Mapping[str, Path],
    *,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float | Sequence[float]] | None = None,
    actor: str = "step:register",
) -> Version:
    """Register a model's files, once: the same files and tags again change nothing.

    Args:
        name: The registered model, as `registry.config.MODEL_NAME`.
        model_dir: The files of the model; `lineage.digest.tree_digest` names them.
        tags: Facts of this assessment, at best `verdict`, `verdict_digest` and `reason`.
        artifacts: Further directories of this assessment, each by its name.
        params: Settings, shown on the run's page.
        metrics: Numbers, or curves by epoch, shown on the run's page; names in any characters.
        actor: Who registers, for the audit log.
    """
    digest = tree_digest(model_dir)
    digests = {f"{what}_digest": tree_digest(path) for what, path in artifacts.items()}
    facts = {**tags, **digests, "model_digest": digest}
    with _lock():
        client = _client()
        found = find_by_digest(name, digest)
        if found and found.tags.items() >= facts.items():
            _audit_registration(found, facts, actor)  # may have been killed before this line
            return found
        count = int(found.tags["assessment"]) + 1 if found else 1
        run_id = found.run_id if found else _new_run(client, name, digest)
        if not found:
            client.log_artifacts(run_id, str(model_dir), "model")
        for what, path in artifacts.items():
            client.log_artifacts(run_id, str(path), f"assessment-{count}/{what}")
        _log_numbers(client, run_id, params or {}, metrics or {}, count)
        for key in ("verdict", "reason"):
            client.set_tag(run_id, key, tags.get(key, ""))
        # The facts last: until they stand, a registration that was killed is done again.
        every = {"assessment": str(count), **facts}
        number = found.version if found else _new_version(client, name, run_id, every)
        if found:
            _set_tags(client, name, number, every)
        client.update_model_version(name, number, tags.get("reason", ""))
        client.set_terminated(run_id)
        made = get_version(name, number)
        _audit_registration(made, facts, actor)
        return made


def get_version(name: str, version: str) -> Version:
    """Look one version up.

    Raises:
        BadInput: There is none of that name and number.
    """
    found = [each for each in versions(name) if each.version == str(version)]
    if not found:
        known = [f"{each.name}:{each.version}" for each in versions()]
        raise BadInput(f"the registry has no {name}:{version}; it has {known}")
    return found[0]


def versions(name: str | None = None) -> list[Version]:
    """All versions, or those of one model, by name and number; refused ones too."""
    return _search(f"name='{_plain(name)}'" if name else "")


def logged(version: Version) -> dict[str, float]:
    """The numbers that MLflow's own page of a version shows, by name, such as `auroc_low`."""
    return dict(_client().get_run(version.run_id).data.metrics)


def find_by_digest(name: str, digest: str) -> Version | None:
    """The version that holds exactly these files, if they were registered."""
    found = _search(f"name='{_plain(name)}' and tags.model_digest='{_plain(digest)}'")
    return found[0] if found else None


def champion(name: str) -> Version | None:
    """The version in service, or None as long as there is none.

    Raises:
        BadInput: MLflow's alias names a version that the audit log never saw become champion.
    """
    known = versions(name)
    alias = next((v.version for v in known if CHAMPION in v.aliases), None)
    number = _champion_of_record(name, alias)
    found = next((v for v in known if v.version == number), None)
    if number is not None and found is None:
        raise BadInput(f"{name}:{number} is champion, but MLflow lost it: restore its database")
    return found


def find_version(model: str) -> tuple[str, str]:
    """Name and number of MODEL[:VERSION]; without a number, the champion's, else the newest's.

    Raises:
        BadInput: No model has that name.
    """
    name, _, version = model.partition(":")
    if version:
        return name, version
    if best := champion(name):
        return name, best.version
    if not (found := versions(name)):
        raise BadInput(f"no model is named {name!r}; `lightbox models` lists them")
    return name, found[-1].version


def move_champion(name: str, version: str, *, actor: str, reason: str) -> Version:
    """Say that a version is the one in service; nothing happens if it is already.

    Raises:
        BadInput: The version does not exist, was not approved under its current verdict, or its
            tags are not what was registered.
    """
    with _lock():
        new, old = get_version(name, version), champion(name)
        if old is None or old.version != new.version:
            require_approved(new)
        aliased = CHAMPION in new.aliases
        if old is None or old.version != new.version:
            # The log first: a move that nobody can account for is worse than one noted twice.
            audit_log.append(
                actor=actor,
                action="champion",
                subject=f"{name}:{new.version}",
                reason=reason,
                old={"version": old.version, "model_digest": old.digest} if old else None,
                new={"version": new.version, "model_digest": new.digest},
            )
        if not aliased:  # or an earlier move was killed right here
            _client().set_registered_model_alias(name, CHAMPION, new.version)
        return get_version(name, version)


def _champion_of_record(name: str, alias: str | None) -> str | None:
    """The champion's number, given where MLflow's alias points.

    The audit log decides, for anybody can move or delete an alias in MLflow, and the next model
    would be compared with the wrong one, or with none. The alias may lag one move behind, as a kill
    leaves it. Of what another workspace registered the log knows nothing; there the alias counts.
    """
    log = audit_log.entries()
    moves = [e for e in log if e.action == "champion" and e.subject.rpartition(":")[0] == name]
    if alias is not None and not any(e.subject == f"{name}:{alias}" for e in log):
        return alias
    audit_log.require_whole()
    last = moves[-1] if moves else None
    before = (last.old or {}).get("version") if last else None
    if alias not in (None, before, last and last.new["version"]):
        raise BadInput(
            f"MLflow calls {name}:{alias} champion, but the audit log never saw that: somebody "
            f"moved the alias; "
            + (f"move it back to version {last.new['version']}" if last else "delete it")
        )
    return last.new["version"] if last else None


def require_approved(version: Version) -> Version:
    """Pass a version on if it passed its gate and the last decision on just that is an approval.

    Raises:
        BadInput: It did not, or its tags are not what was registered.
    """
    verdict_digest = attested(version).tags.get("verdict_digest", "")
    known = decision_in_force(version.name, version.version, version.digest, verdict_digest)
    if version.verdict != "pass" or known is None or not known.approved:
        raise BadInput(f"{version.name}:{version.version} is not approved, so it cannot serve")
    return version


def decision_in_force(
    name: str, version: str, model_digest: str, verdict_digest: str
) -> Decision | None:
    """The last decision on exactly this, or, for the model in service, on it under any verdict.

    What is in service is judged anew now and then, against itself or by newer code; as long as it
    passes, nobody has to let it in again. Imports no MLflow, so that receipts may ask.
    """
    known = decision(name, version, model_digest, verdict_digest)
    if known is None and quick_champion(name) == model_digest:
        return decision(name, version, model_digest)
    return known


def attested(version: Version) -> Version:
    """Pass a version on if its tags are those that the audit log saw; MLflow lets anyone edit them.

    Raises:
        BadInput: They are not, or the log itself was changed.
    """
    audit_log.require_whole()
    return _unedited(version)


def _unedited(version: Version) -> Version:
    if not agrees(version):
        raise BadInput(
            f"{version.name}:{version.version} has other tags in MLflow than the audit log saw "
            "registered: somebody changed them, so it must not be used"
        )
    return version


def agrees(version: Version) -> bool:
    """Tell whether verdict, digests and all other tags are as last registered or assessed."""
    facts = _registrations(version)
    return bool(facts) and version.tags.items() >= facts[-1].items()


def set_tags(name: str, version: str, tags: Mapping[str, str]) -> None:
    """Show facts on the version's page in MLflow."""
    _set_tags(_client(), name, version, tags)


def address(version: Version, what: str, file: str) -> str:
    """Where a file of a version's current assessment lies; a browser opens what is on this disk."""
    uri = _client().get_run(version.run_id).info.artifact_uri
    return f"{uri}/assessment-{version.tags['assessment']}/{what}/{file}"


def download(version: Version, what: str = "model", to: Path | None = None) -> Path:
    """Fetch a version's files: `model`, or an artifact of its current assessment.

    Args:
        version: Whose files.
        what: `model`, `metrics`, `verdict`, `reference`, `validation`, `manifest` or `lineage`.
        to: The directory to make; a new temporary one by default. It appears whole or not at all.

    Raises:
        BadInput: There is no such artifact, `to` holds something else, or the files or tags are not
            those that were registered.
    """
    digest = version.tags.get(f"{what}_digest")
    if digest is None:
        raise BadInput(f"{version.name}:{version.version} has no artifact {what!r}")
    # A version that another workspace registered is not in this log; its own digest still counts.
    if _registrations(version):
        _unedited(version)  # without the whole log: a lineage must be readable beside a broken one
    to = to or Path(mkdtemp(prefix="lightbox-")) / what
    if to.is_dir() and any(to.iterdir()):
        if tree_digest(to) == digest:
            return to
        raise BadInput(f"the directory {to.name!r} already holds something else: name another one")
    folder = what if what == "model" else f"assessment-{version.tags['assessment']}/{what}"
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        fetched = Path(_client().download_artifacts(version.run_id, folder, str(draft)))
        if tree_digest(fetched) != digest:
            raise BadInput(
                f"the stored {what} of {version.name}:{version.version} does not match its digest: "
                "it was changed after registration and must not be used"
            )
        fetched.rename(to)  # replaces an empty directory, never a full one
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return to


def quick_tags(name: str, version: str) -> dict[str, str]:
    """A version's tags, read without importing MLflow, for receipts; empty if there is none."""
    found = _quick(
        "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?",
        (name, int(version)),
    )
    if found is not None:
        return dict(found)
    return next((dict(v.tags) for v in versions(name) if v.version == str(version)), {})


def quick_champion(name: str) -> str | None:
    """The champion's model digest, read without importing MLflow; None as long as there is none."""
    return quick_champion_tags(name).get("model_digest")


def quick_champion_tags(name: str) -> dict[str, str]:
    """The champion's tags, read without importing MLflow; empty as long as there is none."""
    found = _quick(
        "SELECT alias, version FROM registered_model_aliases WHERE name = ? AND alias = ?",
        (name, CHAMPION),
    )
    if found is not None:
        alias = next((str(version) for _, version in found), None)
        number = _champion_of_record(name, alias)
        return quick_tags(name, number) if number else {}
    current = champion(name)
    return dict(current.tags) if current else {}


def _quick(query: str, values: tuple[Any, ...]) -> list[tuple[str, str]] | None:
    """Ask MLflow's SQLite file; None if MLflow itself must be asked, as for a server."""
    uri = workspace().mlflow_uri
    if not uri.startswith(SQLITE):
        return None
    path = Path(uri.removeprefix(SQLITE))
    if not path.exists():
        return []
    return ask(path, query, values)


def _search(condition: str) -> list[Version]:
    if not _exists():
        return []
    client = _client()
    found = client.search_model_versions(condition, max_results=10_000)
    aliases = {  # a search leaves them out
        (name, str(number), alias)
        for name in {version.name for version in found}
        for alias, number in client.get_registered_model(name).aliases.items()
    }
    made = [
        Version(
            name=each.name,
            version=str(each.version),
            digest=each.tags.get("model_digest", ""),
            verdict=each.tags.get("verdict", "inconclusive"),  # no evidence is not a pass
            reason=each.tags.get("reason", ""),
            run_id=each.run_id,
            created_at=datetime.fromtimestamp(each.creation_timestamp / 1000, UTC).isoformat(
                timespec="milliseconds"
            ),
            aliases=tuple(
                sorted(a for n, v, a in aliases if (n, v) == (each.name, str(each.version)))
            ),
            tags=dict(each.tags),
        )
        for each in found
    ]
    return sorted(made, key=lambda version: (version.name, int(version.version)))


def _new_run(client: "MlflowClient", name: str, digest: str) -> str:
    if (experiment := client.get_experiment_by_name(name)) is not None:
        experiment_id = experiment.experiment_id
    else:
        # A server knows best where its artifacts lie.
        local = workspace().mlflow_uri.startswith(SQLITE)
        place = (workspace().mlflow_artifacts / name).as_uri() if local else None
        experiment_id = client.create_experiment(name, artifact_location=place)
    run = client.create_run(
        experiment_id, run_name=f"{name} {digest[:8]}", tags={"model_digest": digest}
    )
    run_id: str = run.info.run_id
    return run_id


def _new_version(client: "MlflowClient", name: str, run_id: str, tags: Mapping[str, str]) -> str:
    if not any(model.name == name for model in client.search_registered_models(f"name='{name}'")):
        client.create_registered_model(name)
    source = client.get_run(run_id).info.artifact_uri + "/model"
    made = client.create_model_version(
        name, source=source, run_id=run_id, tags=dict(tags), await_creation_for=None
    )
    return str(made.version)


def _audit_registration(version: Version, facts: Mapping[str, str], actor: str) -> None:
    """Note a registration or a new assessment, unless the log's last word on it says so already."""
    subject = f"{version.name}:{version.version}"
    before = _registrations(version)
    if before and before[-1] == facts:
        return
    audit_log.append(
        actor=actor,
        action="assessed" if before else "registered",
        subject=subject,
        reason=version.reason or "no verdict was given",
        old=before[-1] if before else None,
        new=facts,
    )


def _registrations(version: Version) -> list[dict[str, str]]:
    found = audit_log.entries(f"{version.name}:{version.version}")
    return [entry.new for entry in found if entry.action in ("registered", "assessed")]


def _log_numbers(
    client: "MlflowClient",
    run_id: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float | Sequence[float]],
    count: int,
) -> None:
    """Log in few calls; params and curves with the first assessment only, as they never change."""
    from mlflow.entities import Metric, Param

    now = int(datetime.now(UTC).timestamp() * 1000)
    spelled = {_label(key): _text(value) for key, value in params.items()}
    shown = [Param(key, value) for key, value in spelled.items()]
    measured = []
    for key, value in metrics.items():
        if isinstance(value, int | float):
            measured.append(Metric(_label(key), float(value), now, count))
        elif count == 1:
            measured += [Metric(_label(key), float(v), now, i) for i, v in enumerate(value, 1)]
    for start in range(0, len(shown) if count == 1 else 0, 100):  # MLflow takes 100 at once
        client.log_batch(run_id, params=shown[start : start + 100])
    for start in range(0, len(measured), 1000):
        client.log_batch(run_id, metrics=measured[start : start + 1000])


def _set_tags(client: "MlflowClient", name: str, version: str, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)


def _label(text: str) -> str:
    """Spell a name as MLflow takes it: `age_band/<40` as `age_band/under 40`, `a//b` as `a/b`.

    It must be a path that needs no tidying, of 250 characters at most.
    """
    spelled = re.sub(r"[^\w\-./: ]", "_", text.replace("<", "under ").replace("+", " plus"))
    return "/".join(p for p in spelled[:250].split("/") if p not in ("", ".", "..")) or "_"


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:6000]


def _plain(text: str) -> str:
    """Refuse what would end the quotes of a search string."""
    if "'" in text:
        raise BadInput("a model's name or digest holds no quotes")
    return text


def _exists() -> bool:
    """False before the first registration here, when asking MLflow would only create its tables."""
    uri = workspace().mlflow_uri
    return not uri.startswith(SQLITE) or Path(uri.removeprefix(SQLITE)).exists()


def _client() -> "MlflowClient":
    telemetry.off()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # it would try for minutes
    from mlflow import MlflowClient

    for noisy in ("alembic", "mlflow.store.db.utils"):  # table by table, at first use
        logging.getLogger(noisy).setLevel(logging.WARNING)
    uri = tracking_uri(workspace())
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _lock() -> Iterator[None]:
    """Let one process of this workspace at a time change the registry."""
    path = workspace().home / "registry.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # freed when the file closes, also by a kill
        yield
