"""The whole life of a model, as `make demo` lives it, looked at from outside through the command.

One demo is run for all tests here; each then asks something of what it left behind.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.timeout(900)  # a demo takes a minute, and minutes on a busy machine
CONFIG = str(ROOT / "configs" / "phantom.yaml")


class Command:
    """`lightbox` in a workspace of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "LIGHTBOX_HOME": str(folder / "demo"), "COLUMNS": "140"}
        self.env.pop("MLFLOW_TRACKING_URI", None)

    def __call__(self, *args: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *args],
            env={**self.env, **env},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def json(self, *args: str) -> Any:
        return json.loads(self(*args, "--json").stdout)


@pytest.fixture(scope="module")
def lightbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    command = Command(tmp_path_factory.mktemp("life"))
    command.story = command("demo", LIGHTBOX_HOME=str(command.folder)).stderr
    yield command
    command("endpoint", "stop")


def test_the_loop_closes(lightbox) -> None:
    runs = list(reversed(lightbox.json("runs")))
    assert [(run["pipeline"], run["outcome"], run["exit_code"]) for run in runs] == [
        ("model-lifecycle", "done", 0),
        ("model-lifecycle", "refused", 3),
        ("drift-watch", "done", 0),
        ("drift-watch", "done", 0),
        ("model-lifecycle", "done", 0),
    ]
    values = [{s["name"]: s["values"] for s in run["steps"]} for run in runs]
    # Right after a release there is no live traffic, and no verdict on it.
    assert values[0]["monitor_drift"]["drifted"] is False
    assert values[0]["monitor_drift"]["verdict"] == "insufficient"
    assert values[2]["monitor_drift"]["drifted"] is True
    assert values[2]["retrain"]["requested"] is False  # labels were lacking
    assert values[3]["retrain"]["requested"] is True


def test_a_refused_model_is_visible_as_refused(lightbox) -> None:
    verdicts = {m["version"]: m["verdict"] for m in lightbox.json("models")}
    assert verdicts == {"1": "pass", "2": "fail", "3": "pass"}
    assert "refused" in lightbox.story
    told = lightbox("approve", "phantom-finding:2", "--reason", "please", code=2).stderr
    assert told.startswith("error: ")


def test_the_finding_is_neither_trivial_nor_hopeless_to_learn(lightbox) -> None:
    for version in ("1", "3"):
        document = lightbox.json("lineage", f"phantom-finding:{version}")
        assert 0.92 <= document["evaluation"]["metrics"]["auroc"]["estimate"] <= 0.99


def test_the_new_model_met_the_old_one_on_the_same_patients(lightbox) -> None:
    first, third = (lightbox.json("lineage", f"phantom-finding:{n}") for n in "13")
    assert third["evaluation"]["champion"]["digest"] == first["model"]["digest"]
    difference = third["evaluation"]["comparison"]["auroc_difference"]
    assert difference["n"] == third["evaluation"]["n_images"]


def test_the_endpoint_serves_the_champion_and_nothing_else(lightbox) -> None:
    (state,) = lightbox.json("endpoint", "status")
    assert state["model"] == "phantom-finding"
    (champion,) = [m for m in lightbox.json("models") if "champion" in m["aliases"]]
    assert [(v["digest"], v["share"]) for v in state["variants"]] == [(champion["digest"], 1.0)]
    scan = next(p for p in (lightbox.folder / "demo/phantom/scans").rglob("*") if p.is_file())
    answer = lightbox.json("predict", str(scan))
    assert answer["digest"] == champion["digest"]
    assert answer["label"] in ("absent", "present")


def test_a_stopped_endpoint_stays_stopped_until_it_is_started(lightbox) -> None:
    scan = next(p for p in (lightbox.folder / "demo/phantom/scans").rglob("*") if p.is_file())
    assert lightbox.json("endpoint", "stop", "phantom-finding") == {"phantom-finding": True}
    assert "lightbox endpoint start" in lightbox("predict", str(scan), code=2).stderr
    lightbox("endpoint", "start")
    assert lightbox.json("predict", str(scan))["model"] == "phantom-finding"


HEAVY = {"numpy", "pandas", "scipy", "pydicom", "torch", "monai", "mlflow", "evidently", "sklearn"}


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The top-level modules that a command imported, as `-X importtime` lists them."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_the_same_command_again_does_nothing_and_imports_nothing_heavy(lightbox) -> None:
    """Also right after a release: what is in service now need not beat itself."""
    first = {s["name"]: s["state"] for s in lightbox.json("run", CONFIG)["steps"]}
    # The endpoint was asked in between, so there is other traffic to look at.
    assert {name for name, state in first.items() if state == "ran"} <= {"monitor_drift"}
    planned = {each["step"]: each["action"] for each in lightbox.json("plan", CONFIG)}
    assert set(planned.values()) == {"reuse", "skip"}, planned
    done = lightbox("run", CONFIG, "--json", PYTHONPROFILEIMPORTTIME="1")
    again = json.loads(done.stdout)
    states = {s["name"]: s["state"] for s in again["steps"]}
    assert states.pop("retrain") == "skipped"
    assert set(states.values()) == {"reused"}
    assert "pipelines" in imported(done)
    assert not imported(done) & HEAVY
    assert len(lightbox.json("models")) == 3  # the same model is the same version
    explained = {each["step"]: each["why"] for each in lightbox.json("explain")["steps"]}
    assert all("since run" in explained[name] for name in states)


def test_help_imports_nothing_heavy(lightbox) -> None:
    done = lightbox("--help", PYTHONPROFILEIMPORTTIME="1")
    assert not imported(done) & (HEAVY | {"pydantic", "rich", "yaml", "jinja2"})


def test_each_run_leaves_a_page_that_needs_nothing_from_elsewhere(lightbox) -> None:
    for run in lightbox.json("runs"):
        page = Path(lightbox("report", run["id"]).stdout.strip()).read_text()
        assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
        assert run["id"] in page


def test_two_runs_are_compared(lightbox) -> None:
    _, *others, first = (r for r in lightbox.json("runs") if r["pipeline"] == "model-lifecycle")
    refused = next(run for run in others if run["outcome"] == "refused")
    told = lightbox.json("compare", first["id"], refused["id"])
    changed = {name: (one, other) for name, one, other in told["settings"]}
    assert changed["train.max_epochs"][1] == 1
    assert told["difference"]["estimate"] < -0.3


def test_a_changed_threshold_changes_the_outcome(lightbox) -> None:
    rules = "gating.rules=[{rule: lower_bound, metric: auroc, at_least: 0.999}]"
    strict = ("--set", rules, "--set", "registration.name=strict")
    run = json.loads(lightbox("run", CONFIG, *strict, "--json", code=3).stdout)
    assert run["outcome"] == "refused"
    assert "0.999" in run["reason"]
    assert {m["verdict"] for m in lightbox.json("models") if m["name"] == "strict"} == {"fail"}
    # Without a version and a champion, the newest is meant.
    assert lightbox.json("lineage", "strict")["version"]["version"] == "1"


def test_without_a_policy_a_run_waits_for_a_person(lightbox) -> None:
    manual = ("--set", "promotion={approver: manual}", "--set", "registration.name=manual")
    waiting = json.loads(lightbox("run", CONFIG, *manual, "--json", code=4).stdout)
    assert waiting["outcome"] == "waiting for approval"
    assert "lightbox approve manual:1" in waiting["reason"]
    lightbox("approve", "manual:1", "--reason", "looked at it", "--actor", "person:reader")
    assert lightbox.json("lineage", "manual:1")["approval"]["actor"] == "person:reader"


def test_the_lineage_page_needs_nothing_from_elsewhere(lightbox, tmp_path) -> None:
    page = tmp_path / "lineage.html"
    lightbox("lineage", "phantom-finding:2", "--html", str(page))
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)
    assert "refused" in text.lower()


def test_no_identity_leaves_the_door(lightbox) -> None:
    """Names and identifiers of all phantom patients, searched in all that the steps wrote."""
    from pydicom import dcmread

    home = lightbox.folder / "demo"
    identities: set[bytes] = set()
    for scan in (home / "phantom" / "scans").rglob("*"):
        if scan.is_file():
            header = dcmread(scan, stop_before_pixels=True)
            identities |= {
                str(header.PatientID).encode(),
                str(header.SOPInstanceUID).encode(),
                str(header.StudyInstanceUID).encode(),
                str(header.AccessionNumber).encode(),
                str(header.PatientName).encode(),
            }
    assert len(identities) > 1000
    pattern = re.compile(b"|".join(re.escape(i) for i in sorted(identities) if len(i) >= 6))
    searched = 0
    for path in home.rglob("*"):
        inside = path.relative_to(home).parts
        # What the demo drew, and the owner's list of what was set aside, are the source's side.
        if not path.is_file() or inside[0] == "phantom" or inside[:2] == ("secrets", "set_aside"):
            continue
        searched += 1
        assert not pattern.search(path.read_bytes()), path
    assert searched > 1000


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("run", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("run", CONFIG, "--set", "training.epochs=3"), "did you mean"),
        (("run", CONFIG, "--set", "sources.scans=nowhere"), "sources.scans: nowhere"),
        (("run", CONFIG, "--set", "ingestion.labels.column=findin"), "finding"),
        (("run", CONFIG, "--set", "training.network.name=ResNett"), "near it: ResNet"),
        (("lineage", "phantom-findin"), "lightbox models"),
        (("lineage", "phantom-finding:99"), "99"),
        (("predict", CONFIG), "neither DICOM, PNG nor JPEG"),
        (("predict", "nowhere.dcm"), "cannot be read"),
        (("approve", "phantom-finding:99", "--reason", "x"), "99"),
        (("approve", "phantom-finding", "--reason", "x"), "say which version"),
        (("approve", "phantom-finding:3", "--reason", " "), "--reason is empty"),
        (("endpoint", "stop", "phantom"), "was never in service here"),
        (("lineage", "phantom-finding:3", "--html", "nowhere/x.html"), "cannot be written"),
    ],
)
def test_bad_input_is_one_clear_sentence(lightbox, args, told) -> None:
    # Lines before it tell which steps went well.
    sentence = lightbox(*args, code=2).stderr.strip().splitlines()[-1]
    assert sentence.startswith("error: ")
    assert told in sentence


def test_show_draws_every_step(lightbox) -> None:
    drawn = lightbox("show", CONFIG).stdout
    assert all(name in drawn for name in ("ingest", "gate", "refused", "exit code 5", "retrain"))
    assert lightbox.json("show", CONFIG)["name"] == "model-lifecycle"


def test_what_goes_costs_nothing_that_is_needed(lightbox) -> None:
    """Last, because it lets go of all runs but the newest."""
    lineage = lightbox("lineage", "phantom-finding").stdout
    assert lightbox.json("gc", "--runs-older-than", "0", "--yes")["freed_bytes"] > 0
    assert lightbox("lineage", "phantom-finding").stdout == lineage
    assert len(lightbox.json("models")) > 3
    assert lightbox.json("gc", "--runs-older-than", "0")["waste"] == []
