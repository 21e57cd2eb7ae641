"""The real pipeline, killed as each step begins, in its middle and as it ends, and each time
started again by the same command; beside it one life that nobody disturbed.

LIGHTBOX_KILLS, thousands of them in `make torture`, also sets how often a step is killed inside;
LIGHTBOX_SEED, another one each time there, when.
"""

import json
import os
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from forked_commands import Commands

from lineage.code import ROOT, reachable
from lineage.workspace import Workspace
from pipelines.config import load
from pipelines.model_lifecycle import drift_watch, model_lifecycle
from pipelines.runs import Run, past_runs

CONFIG = ROOT / "configs" / "phantom.yaml"
MODEL = "phantom-finding"
INSIDE = max(1, int(os.environ.get("LIGHTBOX_KILLS", "200")) // 200)  # kills in a step's middle
SEED = int(os.environ.get("LIGHTBOX_SEED", "0"))
EFFECTS = ("register", "promote", "deploy_canary", "retrain")
KEPT = ("train", "promote")  # killed between their result's record and their run's
ENDED = ("ran", "reused")
pytestmark = pytest.mark.timeout(900 + 60 * INSIDE)


@dataclass(frozen=True)
class Life:
    """A workspace, and the settings of a small life in it that ends in service."""

    home: Workspace
    data: Path
    commands: Commands

    @property
    def overrides(self) -> tuple[str, ...]:
        return (
            f"sources={{scans: {self.data}/scans, labels: {self.data}/scans-labels.csv}}",
            "training.max_epochs=1",
            "evaluation.bootstrap_repetitions=200",
            "gating.rules=[{rule: lower_bound, metric: auroc, at_least: 0.0}]",
            "deployment.steps=[1.0]",
            "monitoring.minimum_requests=20",
            "retraining.minimum_new_patients=10",
        )

    @property
    def log(self) -> Path:
        return self.data / f"{self.home.home.name}.log"

    def __call__(self, verb: str, **options: Any) -> int:
        sets = [part for each in self.overrides for part in ("--set", each)]
        return self.typed(verb, str(CONFIG), *sets, **options)

    def typed(self, *args: str, **options: Any) -> int:
        return self.commands(*args, home=self.home.home, log=self.log, **options)

    def runs(self) -> list[Run]:
        return past_runs(self.home)

    def mobile(self) -> None:
        """A new scanner's images are sent to the endpoint, and then labelled."""
        from imaging.phantom import SCANNERS, write_cohort
        from imaging.reading.pixels import DICOM
        from serving.local_endpoint import LocalEndpoint

        endpoint = LocalEndpoint(self.home, MODEL)
        arriving = self.data / f"arriving-{self.home.home.name}"
        labels = write_cohort(
            arriving, seed=1, patients=24, scanners=SCANNERS[2:], first_patient=100
        )
        for path in sorted(p for p in arriving.rglob("*") if p.is_file()):
            assert endpoint.invoke(path.read_bytes(), DICOM).error is None
        with (self.data / "scans-labels.csv").open("a") as table:
            table.writelines(labels.read_text().splitlines(keepends=True)[1:])


def keep_keys(home: Workspace) -> None:
    """The same keys give the same pseudonyms and the same split."""
    for number, name in enumerate(("pseudonym.key", "split.key")):
        home.keep_secret(name, f"{number:064x}")


@dataclass(frozen=True)
class Lives:
    calm: Life
    killed: Life
    executed: dict[str, list[str]]  # by module of a component: the first-party files that it ran
    endings: Counter[int]


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    from imaging.phantom import SCANNERS, write_cohort

    folder = tmp_path_factory.mktemp("lives")
    write_cohort(folder / "scans", seed=1, patients=40, scanners=SCANNERS[:2])
    print(f"LIGHTBOX_SEED={SEED}")  # shown if this fails
    chance = random.Random(SEED)
    commands = Commands(folder / "commands.log")
    calm, killed = (Life(Workspace(folder / name), folder, commands) for name in ("calm", "killed"))
    endings: Counter[int] = Counter()
    executed: dict[str, list[str]] = {}
    try:
        keep_keys(calm.home)
        keep_keys(killed.home)
        for verb, pipeline in (("run", model_lifecycle), ("watch", drift_watch)):
            trace = folder / f"{verb}.json"
            status = calm(verb, trace=trace)
            assert status == 0, calm.log.read_text()
            executed |= json.loads(trace.read_text())
            took = {step.name: step.seconds for step in calm.runs()[0].steps}
            for step in (s.name for s in pipeline(load(CONFIG, calm.overrides)).steps()):
                if calm.runs()[0].step(step).state == "skipped":
                    continue
                middles = [took[step] * chance.uniform(0.02, 0.9) for _ in range(INSIDE)]
                deaths = [(("running",), 0.0)]
                # What an effect did stands, and nobody has written it down.
                deaths += [(("done",), 0.0)] if step in EFFECTS else []
                deaths += [(("running",), after_s) for after_s in middles]
                deaths += [(("kept",), 0.0)] if step in KEPT else []
                deaths += [(ENDED, 0.0)]
                for states, after_s in deaths:
                    status = killed(verb, die=(step, states, after_s))
                    endings[status] += 1
                    assert status < 0, killed.log.read_text()
            status = killed(verb)
            assert status == 0, killed.log.read_text()
            if verb == "run":
                for life in (calm, killed):
                    life.mobile()
        yield Lives(calm, killed, executed, endings)
    finally:
        for life in (calm, killed):
            life.typed("endpoint", "stop")
        commands.close()


def test_every_step_ran_to_its_end_exactly_once(lives) -> None:
    # Most were killed between two steps or in one, the last of each pipeline ended well.
    assert lives.endings.total() >= 3 * 12
    assert lives.endings[-9] >= 2 * 12 and lives.endings[-14] >= 4, lives.endings
    for pipeline, steps in (("model-lifecycle", 10), ("drift-watch", 2)):
        told = [
            step
            for run in lives.killed.runs()
            if run.pipeline == pipeline
            for step in run.steps
            if step.state in ENDED
        ]
        # A run killed right after a result was kept never says "ran"; who reuses it names that run.
        made = Counter(name for name, _ in {(step.name, step.made_by) for step in told})
        assert len(made) == steps and set(made.values()) == {1}, (pipeline, made)
        ran = Counter(step.name for step in told if step.state == "ran")
        assert set(ran.values()) == {1}, (pipeline, ran)
    outcomes = Counter(run.outcome for run in lives.killed.runs())
    assert set(outcomes) == {"interrupted", "done"}
    assert outcomes["interrupted"] >= 2 * 12, outcomes


def test_a_disturbed_life_makes_the_same_model(lives) -> None:
    calm, killed = (
        next(run for run in life.runs() if run.pipeline == "model-lifecycle" and not run.exit_code)
        for life in (lives.calm, lives.killed)
    )
    for step in ("ingest", "split", "train", "evaluate", "gate"):
        assert killed.step(step).outputs == calm.step(step).outputs, step
        assert killed.step(step).values == calm.step(step).values, step


def test_each_effect_happened_once(lives, monkeypatch) -> None:
    from registry import audit_log
    from registry.mlflow_registry import versions
    from serving.local_endpoint import LocalEndpoint

    told = []
    for life in (lives.calm, lives.killed):
        monkeypatch.setenv("LIGHTBOX_HOME", str(life.home.home))
        assert audit_log.verify() is None
        told.append([(e.actor, e.action, e.subject) for e in audit_log.entries()])
        (version,) = versions(MODEL)
        assert "champion" in version.aliases
        (request,) = life.home.requests.glob("*.json")
        assert json.loads(request.read_text())["status"] == "requested"
        assert LocalEndpoint(life.home, MODEL).served() == {version.digest: 1.0}
    assert told[0] == told[1]
    assert len(told[1]) == len(set(told[1]))


def test_no_endpoint_was_left_behind_beside_the_one_that_serves(lives) -> None:
    here = str(lives.killed.home.home).encode()
    commands = [_read(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert len([line for line in commands if b"serving.app" in line and here in line]) == 1


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just ended
        return b""


RUNNER = ("pipelines/", "components/step_log.py")


def test_what_a_step_executes_is_what_its_key_looks_at(lives) -> None:
    """Seen from inside: every first-party file whose code a step really ran, in every thread."""
    assert set(lives.executed) == {
        f"components.{name}"
        for name in (
            *("ingest", "validate", "split", "train", "evaluate", "gate", "monitor_drift"),
            *EFFECTS,
        )
    }
    for module, files in lives.executed.items():
        known = {path.relative_to(ROOT).as_posix() for path in reachable(module)}
        # The runner listens to what a step tells, and keeps it; no step imports from it.
        ours = {file for file in files if not file.startswith(RUNNER)}
        assert ours <= known, module
        assert module.replace(".", "/") + ".py" in files


@contextmanager
def mounted(place: Path, *args: str) -> Iterator[None]:
    """Something mounted there; needs the right to do so."""
    place.mkdir()
    done = subprocess.run(["mount", *args, str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def test_a_full_disk_ends_a_run_with_a_sentence_and_costs_nothing(lives) -> None:
    full = replace(lives.calm, home=Workspace(lives.calm.data / "full"))
    with mounted(full.home.home, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        keep_keys(full.home)
        for _ in range(2):  # what the first attempt wrote is not in the way of the second
            assert full("run") == 1
            said = full.log.read_text()
            assert "No space left on device" in said and "defect" not in said, said
            assert not list((full.home.store / "building").iterdir())
            assert not list(full.home.runs.glob("*/failed"))
        remount(full.home.home, "size=100m")
        assert full("run", die=("train", ("running",), 0.0)) == -9
        states = [step.state for step in full.runs()[0].steps]
        assert states[:3] == ["ran", "ran", "ran"]


def test_a_read_only_workspace_still_answers_and_says_why_it_does_no_more(lives) -> None:
    assert lives.calm("plan") == 0  # fetches the champion out of the registry, once
    closed = replace(lives.calm, home=Workspace(lives.calm.data / "closed"))
    with mounted(closed.home.home, "--bind", str(lives.calm.home.home)):
        remount(closed.home.home, "ro,bind")
        for asked in ("runs", "explain", "models", "gc", "endpoint status", f"lineage {MODEL}"):
            assert closed.typed(*asked.split()) == 0, closed.log.read_text()
        assert closed("plan") == 0
        for changing in ("run", "watch", f"approve {MODEL}:1 --reason x"):
            verb, *args = changing.split()
            status = closed.typed(verb, *args) if args else closed(verb)
            *_, sentence = closed.log.read_text().splitlines()
            assert status == 1
            assert sentence.startswith("error: the workspace cannot be written (")
