"""A run is submitted, followed and told, through the command, against both engines' stubs.

Neither stub runs a step: how a run fares is written by each test. See `kfp_stub`, `sagemaker_stub`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import click
import pytest
import yaml
from click.testing import CliRunner, Result
from kfp_stub import Frame as Looks
from kfp_stub import Kubeflow, kubeflow
from sagemaker_stub import Aws, Frame
from sagemaker_stub import aws as played
from small_lifecycle import IMAGE

from lineage.digest import digest, tree_digest
from lineage.errors import BadInput, StepFailed
from lineage.files import write_json
from lineage.workspace import Workspace
from pipelines.cli import cli
from pipelines.config import load
from pipelines.model_lifecycle import drift_watch
from pipelines.submitting import follow
from pipelines.submitting.engine import of_model
from pipelines.submitting.schedule import name_of
from registry.mlflow_registry import register_model

ROOT = Path(__file__).resolve().parents[3]
BUCKET = "lightbox-runs"
SECRETS = ("pseudonym.key", "split.key", "endpoint.token")
STEPS = ("ingest", "validate", "split", "train", "evaluate", "gate", "register")
RELEASED = (*STEPS, "promote", "deploy_canary", "monitor_drift")


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path, home: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings under git, and scans of this machine beside it."""
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "1.dcm").write_bytes(b"a scan")
    (tmp_path / "labels.csv").write_text(
        "SOPInstanceUID,PatientID,finding\n1.2.3,a,absent\n1.2.4,b,present\n"
    )
    settings = yaml.safe_load((ROOT / "configs" / "phantom.yaml").read_text())
    settings["sources"] = {"scans": str(scans), "labels": str(tmp_path / "labels.csv")}
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "a.yaml").write_text(yaml.safe_dump(settings))
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.mlflow_uri)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def on_kubeflow(project: Path, aws: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubeflow]:
    settings = {
        "image": IMAGE,
        "tracking_uri": "https://mlflow.example",
        "workspace_claim": "workspace",
        "endpoint_url": "https://endpoint.example",
        "secrets": dict.fromkeys(SECRETS, "lightbox-keys"),
        "sources": {name: f"s3://intake/{name}" for name in ("scans", "labels", "traffic")},
        "bucket": f"minio://{BUCKET}",
    }
    (project.parent / "kubeflow.yaml").write_text(yaml.safe_dump(settings))
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    with kubeflow() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        yield server


@pytest.fixture
def on_sagemaker(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    with played(monkeypatch) as server:
        s3 = boto3.client("s3")
        s3.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        key = boto3.client("kms").create_key()["KeyMetadata"]["KeyId"]
        arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"
        gpu = {"type": "ml.g5.4xlarge", "cpu": 16, "memory_gib": 64, "gpus": 1, "local_disks": True}
        settings = {
            "image": IMAGE,
            "serving_image": IMAGE,
            "role": "arn:aws:iam::123456789012:role/lightbox",
            "region": "eu-west-1",
            "bucket": BUCKET,
            "kms_key": key,
            "subnets": ["subnet-0123456789abcdef0"],
            "security_groups": ["sg-0123456789abcdef0"],
            "tracking_uri": "https://mlflow.example",
            "endpoint_url": "https://endpoint.example",
            "model_package_group": "lightbox",
            "instances": [gpu],
            "secrets": {name: f"{arn}{name}" for name in SECRETS},
            "hipaa_eligible": str(ROOT / "configs" / "lists" / "hipaa_eligible.yaml"),
        }
        (project.parent / "sagemaker.yaml").write_text(yaml.safe_dump(settings))
        yield server


def lightbox(*arguments: str, code: int | None = 0) -> Result:
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    if code is None:
        assert done.exception
        raise done.exception
    assert done.exception is None, done.exception
    assert (done.return_value or 0) == code, done.output
    return done


def submit(engine: str, *arguments: str, code: int | None = 0) -> Result:
    where = ("--on", engine, "--environment", f"../{engine}.yaml", "--every", "0.1")
    more = ("--upload-sources",) if engine == "sagemaker" else ()
    return lightbox("submit", "a.yaml", *where, *more, *arguments, code=code)


def succeeded(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "Succeeded")


def kebab(names: tuple[str, ...], state: str = "SUCCEEDED") -> dict[str, str]:
    return {name.replace("_", "-"): state for name in names}


REFUSED = {"StepStatus": "Failed", "Metadata": {"Fail": {"ErrorMessage": "refused: auroc 0.5"}}}


def test_a_refused_model_on_sagemaker(on_sagemaker, project, home) -> None:
    on_sagemaker.play = [
        Frame("Executing", {"ingest": "Executing"}),
        Frame("Executing", {**succeeded("ingest", "validate"), "split": "Executing"}),
        Frame("Failed", {**succeeded(*STEPS), "refused": REFUSED}),
    ]
    told = ("--wait", "--report", "out/report.json", "--junit", "out/junit.xml")
    done = submit("sagemaker", *told, code=3)
    assert "refused: auroc 0.5" in done.output
    report = json.loads((project / "out" / "report.json").read_text())
    assert (report["outcome"], report["exit_code"], report["engine"]) == ("refused", 3, "sagemaker")
    assert report["gate"] == {"passed": False, "reason": "auroc 0.5"}
    states = {step["name"]: step["state"] for step in report["steps"]}
    assert states["register"] == "ran" and states["promote"] == "skipped"
    assert report["engine_id"] == _arn(on_sagemaker)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert report["commit"] == head.stdout.strip()
    assert set(report["sources"]) == {"scans", "labels", "previous", "champion", "traffic"}
    assert report["started_at"] and report["ended_at"]
    (run,) = json.loads(lightbox("runs", "--json").output)
    assert (run["outcome"], run["exit_code"], run["id"]) == ("refused", 3, report["run"])
    for command in (("runs",), ("explain",), ("report",)):  # they know it as any other run
        lightbox(*command)


def test_a_refused_model_on_kubeflow(on_kubeflow, project) -> None:
    on_kubeflow.play = [
        Looks("RUNNING", kebab(("ingest",), "RUNNING")),
        Looks("FAILED", {**kebab(STEPS), "refused": "FAILED"}),
    ]
    done = submit("kubeflow", "--wait", "--report", "report.json", code=3)
    assert f"{on_kubeflow.url}/#/runs/details/" in done.output
    report = json.loads((project / "report.json").read_text())
    assert (report["outcome"], report["exit_code"]) == ("refused", 3)
    assert report["gate"]["passed"] is False
    assert report["url"].startswith(on_kubeflow.url)


@pytest.mark.parametrize(
    ("tasks", "code", "outcome"),
    [
        (succeeded(*RELEASED), 0, "done"),
        ({**succeeded(*STEPS, "promote"), "waiting-for-approval": "Failed"}, 4, None),
        ({**succeeded(*RELEASED[:-1]), "rolled-back": "Failed"}, 5, "rolled back"),
        ({**succeeded(*STEPS[:3]), "train": "Failed"}, 1, "failed"),
    ],
)
def test_each_end_has_its_exit_code(on_sagemaker, tasks, code, outcome) -> None:
    on_sagemaker.play = [Frame("Failed" if code else "Succeeded", tasks)]
    done = submit("sagemaker", "--wait", "--json", code=code)
    assert json.loads(done.stdout)["outcome"] == (outcome or "waiting for approval")


def test_a_run_that_never_ran_is_no_success(on_sagemaker) -> None:
    on_sagemaker.play = [Frame("Succeeded", {})]  # as moto answers of itself
    done = submit("sagemaker", "--wait", code=1)
    assert "but not that ingest did" in done.output


@pytest.mark.parametrize("engine", ["kubeflow", "sagemaker"])
def test_the_same_three_are_one_run(request, project, engine) -> None:
    server = request.getfixturevalue(f"on_{engine}")
    first = json.loads(submit(engine, "--json").stdout)
    again = submit(engine, "--json")
    assert json.loads(again.stdout)["run"] == first["run"]
    assert "was submitted before" in again.stderr
    assert _count(server) == 1
    # From another machine, which has no record of it, it is found too.
    os.environ["LIGHTBOX_HOME"] += "-elsewhere"
    elsewhere = json.loads(submit(engine, "--json").stdout)
    assert (elsewhere["engine_id"], _count(server)) == (first["engine_id"], 1)
    # Each of the three makes another run of it.
    assert json.loads(submit(engine, "--again", "--json").stdout)["engine_id"] != first["engine_id"]
    submit(engine, "--set", "training.learning_rate=0.1")
    (project / "b.py").write_text("new\n")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "second")
    submit(engine)
    assert _count(server) == 4
    if engine == "sagemaker":  # Kubeflow's data lies where only the cluster looks
        (project.parent / "scans" / "2.dcm").write_bytes(b"another scan")
        submit(engine)
        assert _count(server) == 5


def test_raw_scans_are_sent_only_if_that_is_said(on_sagemaker, project) -> None:
    where = ("--on", "sagemaker", "--environment", "../sagemaker.yaml")
    with pytest.raises(BadInput, match=r"sources\.scans .* may hold identities.*--upload-sources"):
        lightbox("submit", "a.yaml", *where, code=None)
    s3 = boto3.client("s3")
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)
    submit("sagemaker")
    (started,) = on_sagemaker.started
    uris = {p["Name"]: p["Value"] for p in started["PipelineParameters"]}
    bucket, _, prefix = uris["scans"].removeprefix("s3://").partition("/")
    (scan,) = s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]
    assert s3.get_object(Bucket=bucket, Key=scan["Key"])["Body"].read() == b"a scan"


def test_kubeflow_has_nowhere_to_upload_to(on_kubeflow, project) -> None:
    path = project.parent / "kubeflow.yaml"
    settings = yaml.safe_load(path.read_text())
    del settings["sources"]["scans"], settings["bucket"]
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(BadInput, match="names no bucket"):
        submit("kubeflow", "--upload-sources", code=None)
    assert on_kubeflow.runs == {}


def test_kubeflow_reads_from_the_bucket_what_lies_here(on_kubeflow, project) -> None:
    path = project.parent / "kubeflow.yaml"
    settings = yaml.safe_load(path.read_text())
    del settings["sources"]["scans"]
    path.write_text(yaml.safe_dump(settings))
    submit("kubeflow", "--upload-sources")
    (run,) = on_kubeflow.runs.values()
    told = run["runtime_config"]["parameters"]
    content = tree_digest(project.parent / "scans")
    assert told["scans"] == f"minio://{BUCKET}/sources/{content}"
    listed = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=f"sources/{content}/")
    assert [item["Key"].rpartition("/")[2] for item in listed["Contents"]] == ["1.dcm"]
    assert told["champion"].startswith(f"minio://{BUCKET}/sources/")  # nobody yet: an empty folder
    assert told["labels"] == "s3://intake/labels"


@pytest.mark.parametrize("engine", ["kubeflow", "sagemaker"])
def test_the_champion_has_no_fixed_place(request, project, engine) -> None:
    """Or a gate that compares with it would pass for want of one, run after run."""
    request.getfixturevalue(f"on_{engine}")
    path = project.parent / f"{engine}.yaml"
    settings = yaml.safe_load(path.read_text())
    settings.setdefault("sources", {})["champion"] = "s3://intake/none"
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(BadInput, match=r"sources\.champion .* looked up at each submit"):
        submit(engine, code=None)


@pytest.mark.parametrize("engine", ["kubeflow", "sagemaker"])
def test_a_misspelt_source_does_not_lead_to_an_upload(request, project, engine) -> None:
    request.getfixturevalue(f"on_{engine}")
    path = project.parent / f"{engine}.yaml"
    settings = yaml.safe_load(path.read_text())
    settings.setdefault("sources", {})["scns"] = "s3://intake/scans"
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(BadInput, match=r"places \['scns'\], but there are .*'scans'"):
        submit(engine, "--upload-sources", code=None)


def test_a_rebuilt_image_is_another_run(on_sagemaker, project) -> None:
    submit("sagemaker")
    path = project.parent / "sagemaker.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["image"] = settings["image"].replace("ab", "cd")
    path.write_text(yaml.safe_dump(settings))
    submit("sagemaker")
    assert len(on_sagemaker.started) == 2


def test_names_that_differ_little_are_two_models(project) -> None:
    pipeline = drift_watch(load(project / "a.yaml"))
    models = ["mammo_v1", "mammo-v1", "Mammo-v1", "m" * 60 + "1", "m" * 60 + "2"]
    names = {name_of(of_model(pipeline, model)) for model in models}
    assert len(names) == len(models)
    assert all(len(name) <= 64 for name in names)


def test_what_runs_at_night_is_not_what_somebody_submits_by_day(on_sagemaker, project) -> None:
    path = project.parent / "sagemaker.yaml"
    sources = {name: f"s3://{BUCKET}/intake/{name}" for name in ("scans", "labels", "traffic")}
    for name in sources:
        boto3.client("s3").put_object(Bucket=BUCKET, Key=f"intake/{name}/x", Body=b"x")
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"sources": sources}))
    where = ("--on", "sagemaker", "--environment", "../sagemaker.yaml")
    lightbox("schedule", "a.yaml", *where)

    def scheduled() -> str:
        told = boto3.client("scheduler").get_schedule(Name="lightbox-drift-watch-phantom-finding")
        name = told["Target"]["Arn"].rpartition("/")[2]
        found = boto3.client("sagemaker").describe_pipeline(PipelineName=name)
        return found["PipelineDefinition"]

    before = scheduled()
    lightbox("submit", "a.yaml", *where, "--watch", "--set", "monitoring.minimum_requests=2")
    assert scheduled() == before


def test_each_model_has_pipelines_of_its_own(on_sagemaker, project) -> None:
    other = yaml.safe_load((project / "a.yaml").read_text())
    other["registration"] = {"name": "other"}
    (project / "b.yaml").write_text(yaml.safe_dump(other))
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "another model")
    where = ("--on", "sagemaker", "--environment", "../sagemaker.yaml", "--upload-sources")
    for settings in ("a.yaml", "b.yaml"):
        lightbox("submit", settings, *where)
    names = {request["PipelineName"] for request in on_sagemaker.started}
    assert names == {"model-lifecycle-phantom-finding", "model-lifecycle-other"}


def test_uncommitted_work_is_refused_or_recorded(on_sagemaker, project, home) -> None:
    (project / "a.yaml").write_text((project / "a.yaml").read_text() + "# tried\n")
    with pytest.raises(BadInput, match=r"uncommitted work: a\.yaml"):
        submit("sagemaker", code=None)
    report = json.loads(submit("sagemaker", "--dirty", "--json").stdout)
    assert "-dirty-" in report["name"] and len(report["patch"]) == 64
    patch = home.runs / report["run"] / "work.patch"
    assert b"+# tried" in patch.read_bytes()
    (started,) = on_sagemaker.started
    facts = json.loads(started["PipelineExecutionDescription"])
    assert facts["patch"] == report["patch"]
    key = f"submissions/{facts['token']}/work.patch"
    stored = boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    assert stored == patch.read_bytes()


@pytest.mark.parametrize("engine", ["kubeflow", "sagemaker"])
def test_a_dry_run_sends_nothing(request, engine) -> None:
    server = request.getfixturevalue(f"on_{engine}")
    told = json.loads(submit(engine, "--dry-run", "--json").stdout)
    assert told["engine"] == engine and told["token"] in json.dumps(told)
    assert _count(server) == 0
    assert json.loads(submit(engine, "--json").stdout)["name"] == told["name"]
    submit(engine, "--dry-run")


def test_run_on_is_submit(on_kubeflow) -> None:
    where = ("--on", "kubeflow", "--environment", "../kubeflow.yaml")
    lightbox("run", "a.yaml", *where)
    assert _count(on_kubeflow) == 1
    with pytest.raises(click.UsageError, match="say --on"):
        lightbox("run", "a.yaml", "--again", code=None)


@pytest.mark.parametrize("by", ["run", "engine_id"])
def test_attach_goes_on(on_kubeflow, by) -> None:
    on_kubeflow.play = [Looks("RUNNING", kebab(STEPS[:2]))]
    report = json.loads(submit("kubeflow", "--json").stdout)
    assert (report["outcome"], report["exit_code"]) == ("submitted", None)
    on_kubeflow.play = [
        Looks("RUNNING", kebab(STEPS)),
        Looks("SUCCEEDED", kebab(RELEASED)),
    ]
    lightbox("attach", report[by], "--every", "0.1", "--report", "r.json")
    assert json.loads(Path("r.json").read_text())["outcome"] == "done"
    # A run that an engine took up again is followed again.
    on_kubeflow.play = [Looks("RUNNING", {}), Looks("FAILED", {"ingest": "FAILED"})]
    lightbox("attach", report[by], "--every", "0.1", code=1)


def test_stopping_a_run(on_sagemaker) -> None:
    report = json.loads(submit("sagemaker", "--json").stdout)
    on_sagemaker.play = [
        Frame("Stopping", {"ingest": "Stopping"}),
        Frame("Stopped", {"ingest": "Stopped"}),
    ]
    done = lightbox("attach", report["run"], "--stop", "--every", "0.1", code=1)
    assert on_sagemaker.stopped == [report["engine_id"]]
    assert "interrupted" in done.output


def test_nobody_attaches_to_a_local_run(home, project) -> None:
    with pytest.raises(BadInput, match="no runs here"):
        lightbox("attach", "2026", code=None)


def test_hiccups_are_survived_and_silence_is_told(on_kubeflow, monkeypatch) -> None:
    on_kubeflow.play = [Looks("RUNNING", {}), Looks("SUCCEEDED", kebab(RELEASED))]
    run = json.loads(submit("kubeflow", "--json").stdout)["run"]
    on_kubeflow.refused = [503, 500, 429]
    lightbox("attach", run, "--every", "0.1")
    assert on_kubeflow.refused == []
    monkeypatch.setattr(follow, "SILENCE_S", 0.3)
    on_kubeflow.refused = [503] * 1000
    with pytest.raises(StepFailed, match=f"the run may go on: lightbox attach {run}"):
        lightbox("attach", run, "--every", "0.1", code=None)


def test_a_signal_stops_following_and_nothing_else(on_kubeflow, project) -> None:
    on_kubeflow.play = [Looks("RUNNING", kebab(("ingest",), "RUNNING"))]
    command = [sys.executable, "-m", "pipelines.cli", "submit", "a.yaml", "--on", "kubeflow"]
    command += ["--environment", "../kubeflow.yaml", "--wait", "--every", "0.1"]
    following = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until(lambda: _looked(on_kubeflow))
    following.send_signal(signal.SIGINT)
    _, told = following.communicate(timeout=60)
    assert following.returncode == 130
    (run,) = json.loads(lightbox("runs", "--json").output)
    assert f"the run goes on; `lightbox attach {run['id']}` follows it again" in told
    assert on_kubeflow.ended == []
    assert run["outcome"] == "submitted"


def test_a_schedule(on_kubeflow, project) -> None:
    where = ("a.yaml", "--on", "kubeflow", "--environment", "../kubeflow.yaml")
    done = lightbox("schedule", *where, "--cron", "30 1 * * *", "--json")
    (made,) = json.loads(done.stdout)
    assert (made["name"], made["cron"]) == ("lightbox-drift-watch-phantom-finding", "0 30 1 * * *")
    lightbox("schedule", *where)
    (recurring,) = on_kubeflow.recurring.values()
    assert recurring["trigger"]["cron_schedule"]["cron"] == "0 0 2 * * *"
    assert "monitor-drift" in json.dumps(recurring["pipeline_spec"])
    assert "drift-watch" in lightbox("schedule", *where, "--list").output
    lightbox("schedule", *where, "--remove")
    assert on_kubeflow.recurring == {}


def test_a_schedule_keeps_the_uncommitted_work_that_it_was_placed_with(
    on_kubeflow, project, home
) -> None:
    (project / "a.yaml").write_text((project / "a.yaml").read_text() + "# tried\n")
    where = ("a.yaml", "--on", "kubeflow", "--environment", "../kubeflow.yaml")
    lightbox("schedule", *where, "--dirty")
    (recurring,) = on_kubeflow.recurring.values()
    token = json.loads(recurring["description"])["token"]
    assert b"+# tried" in (home.home / "schedules" / f"{token}.patch").read_bytes()


def test_a_schedule_reads_nothing_of_this_machine(on_sagemaker, project) -> None:
    where = ("a.yaml", "--on", "sagemaker", "--environment", "../sagemaker.yaml")
    with pytest.raises(BadInput, match=r"sources\.traffic: sagemaker starts what is scheduled"):
        lightbox("schedule", *where, code=None)


def test_a_retraining_is_started_once_it_is_asked_for(on_kubeflow, home, tmp_path) -> None:
    done = submit("kubeflow", "--if-requested")
    assert "no retraining is asked for" in done.stderr
    assert on_kubeflow.runs == {}
    before = json.loads(submit("kubeflow", "--json").stdout)

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    register_model("phantom-finding", tmp_path / "model", {}, {})
    policy = load(Path("a.yaml")).retraining.model_dump(mode="json")
    name = digest("retraining request", "drift", policy)
    cause = {"drift_report": "drift", "model_digest": tree_digest(tmp_path / "model")}
    write_json(
        home.requests / f"{name}.json", {"name": name, "status": "requested", "cause": cause}
    )
    # It is another run than the one before, though all three are the same.
    asked = json.loads(submit("kubeflow", "--if-requested", "--json").stdout)
    assert asked["engine_id"] != before["engine_id"]
    facts = json.loads(on_kubeflow.runs[asked["engine_id"]]["description"])
    assert facts["request"] == name
    assert json.loads((home.requests / f"{name}.json").read_text())["run"] == asked["run"]
    submit("kubeflow", "--if-requested")
    assert _count(on_kubeflow) == 2
    # Killed before it was written down: the run that answers it is found again.
    write_json(
        home.requests / f"{name}.json", {"name": name, "status": "requested", "cause": cause}
    )
    assert json.loads(submit("kubeflow", "--if-requested", "--json").stdout) == asked
    assert _count(on_kubeflow) == 2


def test_a_local_run_is_told_in_the_same_way(project, home) -> None:
    lightbox("run", "a.yaml", "--report", "r.json", "--junit", "j.xml", "--json", code=1)
    told = json.loads((project / "r.json").read_text())
    assert (told["engine"], told["outcome"]) == ("local", "failed")
    assert told["steps"][0]["state"] == "failed"
    assert "<failure" in (project / "j.xml").read_text()


def until(true: Callable[[], Any]) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it never happened")


def _looked(server: Kubeflow) -> bool:
    return server.looks > 0


def _count(server: Any) -> int:
    if isinstance(server, Kubeflow):
        return len(server.runs)
    return len({request["ClientRequestToken"] for request in server.started})


def _arn(server: Aws) -> str:
    listed = boto3.client("sagemaker").list_pipeline_executions(
        PipelineName="model-lifecycle-phantom-finding"
    )
    arn: str = listed["PipelineExecutionSummaries"][0]["PipelineExecutionArn"]
    return arn
