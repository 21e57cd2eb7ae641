"""A model's whole life on phantom DICOM, as a person would drive it; nothing is made to succeed.

It lives in a workspace of its own, `.lightbox/demo/`, so that a drawn model never stands
beside a real one; each demo starts from an empty one.
"""

import csv
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components.progress import progress
from lineage.code import ROOT
from lineage.digest import digest
from lineage.workspace import Workspace, workspace
from pipelines import tell
from pipelines.config import load
from pipelines.graph import Pipeline
from pipelines.model_lifecycle import drift_watch, model_lifecycle
from pipelines.runs import Run, past_runs
from pipelines.start import start

if TYPE_CHECKING:
    from rich.console import Console

CONFIG = ROOT / "configs" / "phantom.yaml"
MODEL = "phantom-finding"
PATIENTS, NEW_PATIENTS = 640, 200  # even: patients come in matched pairs
# A model that has learned nothing: the gate must see that without being told.
UNTRAINED = ("training.max_epochs=1", "training.learning_rate=0.0000001")


def demo(seed: int, overrides: Sequence[str]) -> int:
    """Play the demo and return 0 if it was played to its end, whatever the gates decided."""
    console = tell.console(stderr=True)
    home = _fresh_workspace(seed)
    started = time.monotonic()
    say = partial(_say, console, started)

    say("Radiographs of two ordinary scanners are drawn, and written as DICOM.")
    scans = home.home / "phantom" / "scans"
    _draw(scans, seed, patients=PATIENTS, ordinary=True)

    say("A first model: trained, judged, registered, approved by policy, released by a canary.")
    first = _walk(model_lifecycle(load(CONFIG, overrides)), console)

    say("A bad model, which has learned nothing. Nobody tells the gate.")
    _walk(model_lifecycle(load(CONFIG, [*overrides, *UNTRAINED])), console)

    if first.exit_code == 0:
        _drift_and_retrain(home, seed, overrides, console, say)
    else:
        say("No model is in service, so there is nothing to watch and nothing to retrain.")
    _closing_table(home, console, time.monotonic() - started)
    return 0


def _drift_and_retrain(
    home: Workspace,
    seed: int,
    overrides: Sequence[str],
    console: "Console",
    say: Callable[[str], None],
) -> None:
    scans, arriving = home.home / "phantom" / "scans", home.home / "phantom" / "arriving"
    say(
        "A new mobile scanner arrives. Its scans go to the endpoint, as a modality would send them."
    )
    _draw(arriving, seed, patients=NEW_PATIENTS, ordinary=False)
    _send(arriving)

    say("The nightly watch looks at what the endpoint captured. There are no labels yet.")
    watch = drift_watch(load(CONFIG, overrides))
    _walk(watch, console)

    say("Radiologists label the new scans; the watch looks again.")
    shutil.copytree(arriving, scans / "arriving")
    _append(_labels(arriving), _labels(scans))
    watched = _walk(watch, console)
    if not watched.step("retrain").values.get("requested"):
        say("No retraining was asked for.")
        return

    say("Retraining was asked for: the same command again, on the grown data.")
    _walk(model_lifecycle(load(CONFIG, overrides)), console)


def _fresh_workspace(seed: int) -> Workspace:
    from serving.local_endpoint import LocalEndpoint

    home = Workspace(workspace().home / "demo")
    os.environ["LIGHTBOX_HOME"] = str(home.home)
    LocalEndpoint(home, MODEL).stop()  # of an earlier demo
    shutil.rmtree(home.home, ignore_errors=True)
    # Nobody's identity hangs on these keys: the same seed shall give the same split and outcome.
    for name in ("pseudonym.key", "split.key"):
        home.keep_secret(name, digest("demo key", name, seed))
    return home


def _draw(directory: Path, seed: int, *, patients: int, ordinary: bool) -> None:
    from imaging.phantom import SCANNERS, write_cohort

    *rooms, mobile = SCANNERS
    with progress("drawing") as report:
        write_cohort(
            directory,
            seed=seed,
            patients=patients,
            scanners=rooms if ordinary else [mobile],
            first_patient=0 if ordinary else PATIENTS,
            report=report,
        )


def _send(directory: Path) -> None:
    from imaging.reading.pixels import DICOM
    from serving.local_endpoint import LocalEndpoint

    endpoint = LocalEndpoint(workspace(), MODEL)
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    with progress("sending") as report:
        for done, path in enumerate(files, start=1):
            endpoint.invoke(path.read_bytes(), DICOM)
            report(done, len(files), "")


def _labels(scans: Path) -> Path:
    return scans.with_name(f"{scans.name}-labels.csv")


def _append(source: Path, target: Path) -> None:
    with source.open(newline="") as new, target.open("a", newline="") as table:
        rows = list(csv.reader(new))[1:]
        csv.writer(table).writerows(rows)


def _walk(pipeline: Pipeline, console: "Console") -> Run:
    with tell.Narrator() as narrator:
        run = start(pipeline, config=str(CONFIG.relative_to(ROOT)), tell=narrator.tell)
    console.print(tell.summary(run), soft_wrap=True)
    return run


def _say(console: "Console", started: float, text: str) -> None:
    console.print(f"\n[bold]{text}[/] [dim]{time.monotonic() - started:.0f} s[/]")


def _closing_table(home: Workspace, console: "Console", seconds: float) -> None:
    from rich.table import Table

    from registry import dossier
    from registry.mlflow_registry import versions
    from serving.local_endpoint import LocalEndpoint

    console.print(f"\n[bold]After {seconds:.0f} seconds[/]")
    table = Table(box=None, pad_edge=False)
    for header in ("model", "verdict", "AUROC on the test split", "against the champion", "now"):
        table.add_column(header, no_wrap=True)
    for version in versions(MODEL):
        tested = dossier.lineage(MODEL, version.version)["evaluation"]
        difference = (tested["comparison"] or {}).get("auroc_difference")
        table.add_row(
            f"{version.name}:{version.version}",
            f"[{'green' if version.verdict == 'pass' else 'red'}]{version.verdict}[/]",
            dossier.interval(tested["metrics"]["auroc"]),
            dossier.interval(difference) if difference else "none yet",
            "in production" if "champion" in version.aliases else "",
        )
    console.print(table)
    endpoint = LocalEndpoint(home, MODEL)
    variants = endpoint.state() if endpoint.status() else ()
    serving = ", ".join(f"version {v.version} answers {v.share:.0%}" for v in variants)
    console.print(f"endpoint: {serving or 'not running'}")
    console.print(f"reports:  {home.runs}, a folder per run", soft_wrap=True)
    for run in past_runs(home):
        watched = [s for s in run.steps if s.name == "monitor_drift" and s.values.get("drifted")]
        if watched:
            page = home.runs / run.id / "monitor_drift.report" / "drift.html"
            console.print(f"drift:    {page}", soft_wrap=True)
            break
    command = Path(sys.executable).with_name("lightbox")
    console.print("next:")
    console.print(f"  export LIGHTBOX_HOME={home.home}", soft_wrap=True)
    for args in ("models", f"lineage {MODEL} --html lineage.html", "endpoint status", "runs"):
        console.print(f"  {command} {args}", soft_wrap=True)
