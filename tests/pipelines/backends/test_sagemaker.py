import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from small_lifecycle import (
    IMAGE,
    Decision,
    Knobs,
    approve,
    enter,
    evaluate,
    fit,
    small_lifecycle,
    watch,
)

from components.contract import Input, Output, component
from lineage.errors import BadInput
from pipelines.backends.sagemaker import offline
from pipelines.backends.sagemaker.lowering import compile_to, pipeline_request
from pipelines.backends.sagemaker.settings import Instance, SageMakerSettings
from pipelines.graph import Fail, GraphError, Pipeline, Source, Step, When
from pipelines.settings import read_settings

ROOT = Path(__file__).resolve().parents[3]
SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:pseudonym"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
SETTINGS = SageMakerSettings(
    image=IMAGE,
    serving_image=IMAGE,
    role="arn:aws:iam::123456789012:role/lightbox",
    region="eu-west-1",
    bucket="lightbox",
    kms_key=KEY,
    subnets=["subnet-0"],
    security_groups=["sg-0"],
    tracking_uri="https://mlflow.example",
    model_package_group="lightbox",
    instances=[
        Instance(type="ml.m5.xlarge", cpu=4, memory_gib=16),
        Instance(type="ml.g5.4xlarge", cpu=16, memory_gib=64, gpus=1, local_disks=True),
    ],
    secrets={"pseudonym.key": SECRET},
)
EVERY_SECRET = dict.fromkeys(("pseudonym.key", "split.key", "endpoint.token"), SECRET)


def compiled(folder: Path, pipeline: Pipeline | None = None, **changes: Any) -> dict[str, Any]:
    path = folder / "definition.json"
    compile_to(pipeline or small_lifecycle(), SETTINGS.model_copy(update=changes), path)
    definition: dict[str, Any] = json.loads(path.read_text())
    return definition


@pytest.fixture(scope="module")
def definition(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The small lifecycle, compiled once."""
    return compiled(tmp_path_factory.mktemp("small"))


def every_step(definition: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {}
    for step in definition["Steps"]:
        inside = step["Arguments"] if step["Type"] == "Condition" else {}
        for each in [step, *inside.get("IfSteps", []), *inside.get("ElseSteps", [])]:
            assert each["Name"] not in found
            found[each["Name"]] = each
    return found


def references(value: Any) -> Iterator[str]:
    """The steps that a part of a definition reads from."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "Get" and inner.startswith("Steps."):
                yield inner.split(".")[1]
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def started(definition: dict[str, Any], values: dict[str, bool]) -> set[str]:
    """Which steps SageMaker would start, given what each condition reads.

    A step starts once all that it reads from or depends on has run; one within a branch waits
    for its condition as well. A step that needs one that never ran never starts.
    """
    steps, chosen = every_step(definition), {s["Name"] for s in definition["Steps"]}
    ran: set[str] = set()
    while True:
        ready = {
            name
            for name in chosen - ran
            if {*references(conditions_only(steps[name])), *steps[name].get("DependsOn", [])} <= ran
        }
        if not ready:
            return {n for n in ran if steps[n]["Type"] != "Condition"}
        ran |= ready
        for step in (steps[name] for name in ready if steps[name]["Type"] == "Condition"):
            said = step["Arguments"]["Conditions"][0]["LeftValue"]["Std:JsonGet"]["Path"]
            branch = "IfSteps" if values[said] else "ElseSteps"
            chosen |= {inner["Name"] for inner in step["Arguments"][branch]}


def conditions_only(step: dict[str, Any]) -> Any:
    arguments = step["Arguments"]
    return arguments["Conditions"] if step["Type"] == "Condition" else arguments


def test_two_compiles_are_equal_byte_by_byte(tmp_path: Path) -> None:
    compile_to(small_lifecycle(), SETTINGS, tmp_path / "a.json")
    compile_to(small_lifecycle(), SETTINGS, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize(
    ("passed", "approved", "ends"),
    [
        (False, True, {"refused"}),
        (True, False, {"approve", "waiting-for-approval"}),
        (True, True, {"approve", "watch"}),
    ],
)
def test_what_would_start_is_what_the_graph_says(
    definition: dict[str, Any], passed: bool, approved: bool, ends: set[str]
) -> None:
    always = {"take_in", "fit", "evaluate", "enter", "enter-mirror"}
    values = {"passed": passed, "approved": approved}
    assert started(definition, values) == always | ends


def test_conditions_are_never_nested(definition: dict[str, Any]) -> None:
    for step in definition["Steps"]:
        if step["Type"] == "Condition":
            inside = step["Arguments"]["IfSteps"] + step["Arguments"]["ElseSteps"]
            assert all(inner["Type"] != "Condition" for inner in inside)


def test_a_fail_tells_its_reason_after_the_model_was_entered(
    definition: dict[str, Any],
) -> None:
    refused = every_step(definition)["refused"]
    reason = {"PropertyFile": {"Get": "Steps.evaluate.PropertyFiles.values"}, "Path": "reason"}
    assert refused["Arguments"]["ErrorMessage"] == {
        "Std:Join": {"On": ": ", "Values": ["refused", {"Std:JsonGet": reason}]}
    }
    assert refused["DependsOn"] == ["enter", "enter-mirror"]


def test_values_are_kept_where_conditions_look_for_them(definition: dict[str, Any]) -> None:
    judged = every_step(definition)["evaluate"]
    assert judged["PropertyFiles"] == [
        {"PropertyFileName": "values", "OutputName": "values", "FilePath": "values.json"}
    ]
    outputs = {
        o["OutputName"]: o["S3Output"]["LocalPath"]
        for o in judged["Arguments"]["ProcessingOutputConfig"]["Outputs"]
    }
    arguments = judged["Arguments"]["AppSpecification"]["ContainerArguments"]
    assert arguments[-2:] == ["--values-json", f"{outputs['values']}/values.json"]


def test_configs_travel_as_files_for_training_too(tmp_path: Path) -> None:
    knobs = Knobs(note="x" * 10_000)
    training = every_step(compiled(tmp_path, small_lifecycle(config=knobs)))["fit"]["Arguments"]
    assert training["HyperParameters"] == {}
    channel = training["InputDataConfig"][0]
    assert channel["ChannelName"] == "config"
    folder = channel["DataSource"]["S3DataSource"]["S3Uri"].removeprefix("s3://lightbox/configs/")
    text = (tmp_path / "definition.configs" / folder / "config.json").read_text()
    assert Knobs.model_validate_json(text) == knobs


def test_training_and_evaluation_have_no_network_all_else_a_vpc(
    definition: dict[str, Any],
) -> None:
    steps = every_step(definition)
    isolated = {}
    for name, step in steps.items():
        if step["Type"] in ("Processing", "Training"):
            network = step["Arguments"].get("NetworkConfig", step["Arguments"])
            isolated[name] = network["EnableNetworkIsolation"]
            assert network["VpcConfig"] == {"SecurityGroupIds": ["sg-0"], "Subnets": ["subnet-0"]}
    assert {name for name, alone in isolated.items() if alone} == {"fit", "evaluate"}


def test_effects_are_not_cached_and_pure_steps_are(definition: dict[str, Any]) -> None:
    steps = every_step(definition)
    cached = {n for n, s in steps.items() if s.get("CacheConfig", {}).get("Enabled")}
    assert cached == {"take_in", "fit", "evaluate", "watch"}


def test_a_step_gets_the_cheapest_instance_that_is_large_enough(definition: dict[str, Any]) -> None:
    steps = every_step(definition)
    assert steps["fit"]["Arguments"]["ResourceConfig"]["InstanceType"] == "ml.g5.4xlarge"
    cluster = steps["evaluate"]["Arguments"]["ProcessingResources"]["ClusterConfig"]
    assert cluster["InstanceType"] == "ml.m5.xlarge"


def test_only_the_arn_of_a_secret_is_in_the_definition(definition: dict[str, Any]) -> None:
    steps = every_step(definition)
    told = {
        name
        for name, step in steps.items()
        if "LIGHTBOX_SECRET_PSEUDONYM_KEY" in step["Arguments"].get("Environment", {})
    }
    assert told == {"take_in"}
    environment = steps["take_in"]["Arguments"]["Environment"]
    assert environment["LIGHTBOX_SECRET_PSEUDONYM_KEY"] == SECRET


def test_a_source_must_be_said_at_start_unless_it_lies_in_s3(
    tmp_path: Path, definition: dict[str, Any]
) -> None:
    named = definition["Parameters"]
    assert named == [{"Name": name, "Type": "String"} for name in ("scans", "champion")]
    given = compiled(tmp_path, small_lifecycle("s3://in/scans"))["Parameters"]
    assert given[0]["DefaultValue"] == "s3://in/scans"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "registry.example/lightbox:1.0"}, "image: .*pin it as NAME@sha256"),
        ({"serving_image": "registry.example/serve"}, "serving_image: "),
        ({"tracking_uri": "sqlite:///mlflow.db"}, "sqlite reaches no cluster"),
        ({"secrets": {}}, r"take_in reads the secrets \['pseudonym.key'\]"),
        ({"isolated": ["take_in"]}, "take_in reads .* but runs without a network"),
        ({"instances": SETTINGS.instances[:1]}, "none is large enough for fit"),
        ({"sources": {"scans": "gs://in/scans"}}, "sources.scans: gs://in/scans does not start"),
        ({"environment": {"LIGHTBOX_HOME": "/x"}}, r"environment: \['LIGHTBOX_HOME'\] are set"),
        (
            {"environment": {"A": "x" * 257}},
            r"Environment\.A has 257 characters, .* \(take_in, evaluate, ",
        ),
        ({"kms_key": ""}, r"\['kms_key'\] are missing"),
        (
            {"environment": {"A": "https://dynamodb.eu-west-1.amazonaws.com"}},
            r"\['dynamodb'\] are used, but not on the list",
        ),
        ({"region": "x" * 257}, "AWS_DEFAULT_REGION has 257 characters"),
        ({"tags": {"cost#centre": "1"}}, r"Tags\[0\].Key is 'cost#centre'"),
        (
            {"model_package_group": "light box"},
            r"ModelPackageGroupName is 'light box', .*\(enter-mirror\)",
        ),
    ],
)
def test_settings_that_sagemaker_cannot_use_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        compiled(tmp_path, **changes)


class Drawn(NamedTuple):
    note: str


@component(state=("ledgers/*.jsonl",))
def enrol(config: Knobs, scans: Input, cohort: Output) -> None: ...


@component(trains="model", state=("ledgers/*.jsonl",))
def fit_and_enrol(config: Knobs, scans: Input, model: Output) -> None: ...


@component(receipt=lambda **_: True, registers="model")
def enter_with_evidence(  # type: ignore[empty-body]
    config: Knobs, model: Input, metrics: Input, reference: Input, verdict: Input, version: Output
) -> Drawn: ...


@component()
def describe(config: Knobs, scans: Input, workspace: Output) -> None: ...


def arguments(definition: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = every_step(definition)[name]["Arguments"]
    return found


def test_every_job_starts_the_entrypoint_of_the_image(definition: dict[str, Any]) -> None:
    specification = arguments(definition, "evaluate")["AppSpecification"]
    assert specification["ContainerEntrypoint"] == ["python", "-m", "components"]
    # A component that lives elsewhere is named with its module.
    assert specification["ContainerArguments"][:2] == ["small_lifecycle:evaluate", "--config"]
    environment = arguments(definition, "fit")["Environment"]
    assert environment["LIGHTBOX_STEP"] == "small_lifecycle:fit"


def test_an_isolated_job_is_told_of_no_server(definition: dict[str, Any]) -> None:
    assert set(arguments(definition, "evaluate")["Environment"]) == {"LIGHTBOX_CODE_IDENTITY"}
    assert "MLFLOW_TRACKING_URI" not in arguments(definition, "fit")["Environment"]
    networked = arguments(definition, "watch")["Environment"]
    assert networked["MLFLOW_TRACKING_URI"] == "https://mlflow.example"
    assert networked["AWS_DEFAULT_REGION"] == "eu-west-1"


def test_state_is_shared_by_the_job_or_copied_out_of_it(tmp_path: Path) -> None:
    pipeline = Pipeline("p", [Step(enrol, Knobs(), scans=Source("scans", "s3://in/scans"))])
    networked = arguments(compiled(tmp_path, pipeline), "enrol")
    assert networked["Environment"]["LIGHTBOX_STATE"] == "s3://lightbox/workspace"
    outputs = networked["ProcessingOutputConfig"]["Outputs"]
    assert [o["OutputName"] for o in outputs] == ["cohort"]

    isolated = arguments(compiled(tmp_path, pipeline, isolated=["enrol"]), "enrol")
    assert "LIGHTBOX_STATE" not in isolated["Environment"]
    kept = isolated["ProcessingOutputConfig"]["Outputs"][-1]["S3Output"]
    assert isolated["Environment"]["LIGHTBOX_HOME"] == kept["LocalPath"]
    assert (kept["S3Uri"], kept["S3UploadMode"]) == ("s3://lightbox/workspace", "Continuous")


def test_spot_training_keeps_checkpoints_of_its_own_run(tmp_path: Path) -> None:
    told = arguments(compiled(tmp_path, spot=True, spot_wait_minutes=30), "fit")
    assert told["EnableManagedSpotTraining"] is True
    assert told["StoppingCondition"] == {
        "MaxRuntimeInSeconds": 90 * 60,
        "MaxWaitTimeInSeconds": 120 * 60,
    }
    run = {"Get": "Execution.PipelineExecutionId"}
    place = {"Std:Join": {"On": "/", "Values": ["s3://lightbox/checkpoints", run, "fit"]}}
    assert told["CheckpointConfig"] == {"S3Uri": place, "LocalPath": "/opt/ml/checkpoints"}
    assert told["Environment"]["LIGHTBOX_CHECKPOINTS"] == "/opt/ml/checkpoints"


def test_without_spot_nothing_of_it_is_asked_for(definition: dict[str, Any]) -> None:
    told = arguments(definition, "fit")
    assert not {"CheckpointConfig", "EnableManagedSpotTraining"} & told.keys()
    assert told["StoppingCondition"] == {"MaxRuntimeInSeconds": 90 * 60}
    assert told["ResourceConfig"]["InstanceCount"] == 1


def test_training_may_take_several_instances(tmp_path: Path) -> None:
    told = arguments(compiled(tmp_path, training_instances=3), "fit")
    assert told["ResourceConfig"]["InstanceCount"] == 3
    assert told["EnableInterContainerTrafficEncryption"] is True


def test_disks_that_encrypt_themselves_get_no_key(definition: dict[str, Any]) -> None:
    assert "VolumeKmsKeyId" not in arguments(definition, "fit")["ResourceConfig"]
    assert arguments(definition, "fit")["OutputDataConfig"]["KmsKeyId"] == KEY
    judged = arguments(definition, "evaluate")
    assert judged["ProcessingResources"]["ClusterConfig"]["VolumeKmsKeyId"] == KEY
    assert judged["ProcessingOutputConfig"]["KmsKeyId"] == KEY


def test_a_waived_key_network_and_encryption_are_really_left_out(tmp_path: Path) -> None:
    names = ("kms_key", "subnets", "security_groups", "encrypt_between_instances")
    waived = dict.fromkeys(names, "phantoms only")
    less = {"kms_key": "", "subnets": [], "security_groups": [], "encrypt_between_instances": False}
    told = compiled(tmp_path, waivers=waived, **less)
    assert "Kms" not in json.dumps(told) and "VpcConfig" not in json.dumps(told)
    assert arguments(told, "fit")["EnableInterContainerTrafficEncryption"] is False
    network = arguments(told, "evaluate")["NetworkConfig"]
    assert network["EnableInterContainerTrafficEncryption"] is False
    assert network["EnableNetworkIsolation"] is True
    for name in ("fit", "evaluate", "watch"):
        tags = {t["Key"]: t["Value"] for t in arguments(told, name)["Tags"]}
        assert tags == {f"lightbox:without:{n}": "phantoms only" for n in names}


def test_tags_stand_on_jobs_and_pipeline(tmp_path: Path) -> None:
    tags = [{"Key": "cost-centre", "Value": "4711"}, {"Key": "owner", "Value": "radiology"}]
    given = {"tags": {"owner": "radiology", "cost-centre": "4711"}}
    told = compiled(tmp_path, **given)
    jobs = [s for s in every_step(told).values() if s["Type"] in ("Processing", "Training")]
    assert jobs and all(job["Arguments"]["Tags"] == tags for job in jobs)
    settings = SETTINGS.model_copy(update=given)
    assert pipeline_request(small_lifecycle(), settings)["Tags"] == tags


def test_further_variables_reach_every_job(tmp_path: Path) -> None:
    told = compiled(tmp_path, environment={"AWS_USE_FIPS_ENDPOINT": "true"})
    jobs = [s for s in every_step(told).values() if s["Type"] in ("Processing", "Training")]
    values = [job["Arguments"]["Environment"]["AWS_USE_FIPS_ENDPOINT"] for job in jobs]
    assert values == ["true"] * len(jobs)


def test_capacity_is_waited_for_and_only_what_may_be_repeated_is(
    definition: dict[str, Any],
) -> None:
    def policies(name: str) -> dict[str, int]:
        told = every_step(definition)[name]["RetryPolicies"]
        return {kind: p["MaxAttempts"] for p in told for kind in p["ExceptionType"]}

    waiting = {"SageMaker.CAPACITY_ERROR": 5, "SageMaker.RESOURCE_LIMIT": 5}
    assert policies("evaluate") == policies("enter") == waiting
    assert policies("take_in") == waiting | {"SageMaker.JOB_INTERNAL_ERROR": 2}


def test_the_run_is_an_experiment(definition: dict[str, Any]) -> None:
    assert definition["PipelineExperimentConfig"] == {
        "ExperimentName": {"Get": "Execution.PipelineName"},
        "TrialName": {"Get": "Execution.PipelineExecutionId"},
    }


def test_what_a_person_reads_says_what_a_step_does(tmp_path: Path) -> None:
    from pipelines.config import load
    from pipelines.model_lifecycle import model_lifecycle

    pipeline = model_lifecycle(load(ROOT / "configs/phantom.yaml"))
    steps = every_step(
        compiled(tmp_path, pipeline, secrets=EVERY_SECRET, endpoint_url="https://endpoint.example")
    )
    assert steps["deploy_canary"]["DisplayName"] == "deploy canary"
    for step in pipeline.steps():
        assert steps[step.name]["Description"] in (step.component.function.__doc__ or "")
    assert steps["when-gate-passed"]["DisplayName"] == "gate.passed?"
    assert steps["waiting-for-approval"]["Description"].endswith("exit code 4")
    assert {s["Name"] for s in steps.values() if not s.get("Description")} == set()


def test_the_description_of_the_pipeline_says_what_it_goes_without() -> None:
    settings = SETTINGS.model_copy(update={"kms_key": "", "waivers": {"kms_key": "phantoms only"}})
    told = pipeline_request(small_lifecycle(), settings)["PipelineDescription"]
    assert "take_in, fit, evaluate, enter, approve, watch" in told
    assert IMAGE.rpartition("@")[2] in told
    assert "as listed on 20" in told
    assert told.endswith("without kms_key: phantoms only")


def test_the_mirror_shows_the_evidence_that_registering_read(tmp_path: Path) -> None:
    fitted = Step(fit, Knobs(), snapshot=Source("snapshot", "s3://in/snapshot"))
    made = Step(describe, Knobs(), scans=Source("scans", "s3://in/scans"))
    evidence = dict.fromkeys(("metrics", "reference", "verdict"), made["workspace"])
    entered = Step(enter_with_evidence, Knobs(), model=fitted["model"], **evidence)
    told = compiled(tmp_path, Pipeline("p", [fitted, made, entered]))
    package = arguments(told, "enter_with_evidence-mirror")

    def file(source: dict[str, Any]) -> str:
        folder, name = source["S3Uri"]["Std:Join"]["Values"]
        assert folder["Get"].startswith("Steps.describe.ProcessingOutputConfig")
        return str(name)

    quality = package["ModelMetrics"]["ModelQuality"]
    assert file(quality["Statistics"]) == "metrics.json"
    assert file(quality["Constraints"]) == "verdict.json"
    baselines = package["DriftCheckBaselines"]
    assert baselines["ModelQuality"] == quality
    assert file(baselines["ModelDataQuality"]["Statistics"]) == "reference.parquet"
    metadata = package["CustomerMetadataProperties"]
    assert metadata["note"]["Std:JsonGet"]["Path"] == "note"
    version = "Steps.enter_with_evidence.ProcessingOutputConfig.Outputs['version'].S3Output.S3Uri"
    assert metadata["dossier"] == {"Get": version}
    assert metadata["evaluation"]["Get"].startswith("Steps.describe.")
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    [container] = package["InferenceSpecification"]["Containers"]
    assert container["Image"] == IMAGE
    assert container["ModelDataUrl"] == {"Get": "Steps.fit.ModelArtifacts.S3ModelArtifacts"}


def test_a_mirror_has_no_evidence_that_registering_did_not_read(
    definition: dict[str, Any],
) -> None:
    package = arguments(definition, "enter-mirror")
    assert set(package["ModelMetrics"]["ModelQuality"]) == {"Constraints"}
    assert "ModelDataQuality" not in package["DriftCheckBaselines"]
    assert set(package["CustomerMetadataProperties"]) == {"version", "dossier"}


def test_the_mirror_of_a_model_that_no_training_job_made_is_refused(tmp_path: Path) -> None:
    made = Step(describe, Knobs(), scans=Source("scans", ""))
    judged = Step(evaluate, Knobs(), model=made["workspace"], champion=Source("c", ""))
    entered = Step(enter, Knobs(), model=made["workspace"], verdict=judged["verdict"])
    with pytest.raises(GraphError, match="enter registers what describe made"):
        compiled(tmp_path, Pipeline("p", [made, judged, entered]))


def test_a_training_job_that_adds_to_the_workspace_is_refused(tmp_path: Path) -> None:
    fitted = Step(fit_and_enrol, Knobs(), scans=Source("scans", ""))
    with pytest.raises(GraphError, match=r"fit_and_enrol trains, without a network"):
        compiled(tmp_path, Pipeline("p", [fitted]))


@component(state=("ledgers/*.jsonl",))
def describe_and_enrol(config: Knobs, scans: Input, workspace: Output) -> None: ...


def test_an_output_may_not_be_taken_for_the_workspace(tmp_path: Path) -> None:
    described = Step(describe_and_enrol, Knobs(), scans=Source("scans", ""))
    with pytest.raises(GraphError, match="has an output 'workspace', which is taken"):
        compiled(tmp_path, Pipeline("p", [described]), isolated=["describe_and_enrol"])


@component(trains="model")
def fit_and_tell(config: Knobs, scans: Input, model: Output) -> Decision: ...  # type: ignore[empty-body]


@component(trains="model")
def fit_and_draw(config: Knobs, scans: Input, model: Output, plots: Output) -> None: ...


def test_a_reason_that_a_training_job_gives_is_refused(tmp_path: Path) -> None:
    fitted = Step(fit_and_tell, Knobs(), scans=Source("scans", ""))
    with pytest.raises(GraphError, match=r"fit_and_tell\.reason is reported by a training job"):
        compiled(tmp_path, Pipeline("p", [fitted, Fail("refused", fitted["reason"], 3)]))


def test_a_training_job_with_a_second_output_is_refused(tmp_path: Path) -> None:
    fitted = Step(fit_and_draw, Knobs(), scans=Source("scans", ""))
    with pytest.raises(GraphError, match="fit_and_draw trains"):
        compiled(tmp_path, Pipeline("p", [fitted]))


def test_a_nested_branch_on_what_was_known_before_is_refused(tmp_path: Path) -> None:
    judged = Step(evaluate, Knobs(), model=Source("m", ""), champion=Source("c", ""))
    approved = Step(approve, Knobs(), verdict=judged["verdict"])
    watched = Step(watch, Knobs(), approval=approved["approval"])
    inner = When(approved["approved"], then=[watched])
    outer = When(judged["passed"], then=[inner])
    with pytest.raises(GraphError, match="SageMaker cannot nest conditions"):
        compiled(tmp_path, Pipeline("p", [judged, approved, outer]))


def test_equal_outcomes_get_names_of_their_own(tmp_path: Path) -> None:
    judged = Step(evaluate, Knobs(), model=Source("m", ""), champion=Source("c", ""))
    ends = [Fail("refused", judged["reason"], code) for code in (3, 4)]
    branch = When(judged["passed"], then=ends[:1], otherwise=ends[1:])
    assert {"refused", "refused-2"} <= set(
        every_step(compiled(tmp_path, Pipeline("p", [judged, branch])))
    )


def test_the_sdk_checks_each_config_once_and_makes_no_local_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked, kept = [], offline.SageMakerConfig.validate_sagemaker_config
    counting = staticmethod(lambda config=None: checked.append(str(kept(config) or config)))
    monkeypatch.setattr(offline.SageMakerConfig, "validate_sagemaker_config", counting)
    local = offline.sdk_steps.LocalSagemakerClient
    made: list[Any] = []
    monkeypatch.setattr(local, "__init__", lambda self, *_: made.append(self))
    compiled(tmp_path)
    assert checked and len(checked) == len(set(checked))
    assert not made
    assert offline.sdk_steps.LocalSagemakerClient is local


def test_compiling_needs_no_account_no_network_and_leaves_the_process_as_it_was(
    tmp_path: Path,
) -> None:
    program = """
import logging, os, socket, sys
from pathlib import Path
def refuse(*_): raise AssertionError("a connection was tried")
socket.socket.connect = socket.getaddrinfo = refuse
before = dict(os.environ)
from small_lifecycle import small_lifecycle
from pipelines.backends.sagemaker.lowering import compile_to
from pipelines.backends.sagemaker.settings import SageMakerSettings
settings = SageMakerSettings.model_validate_json(sys.argv[1])
compile_to(small_lifecycle(), settings, Path(sys.argv[2]))
assert dict(os.environ) == before
assert logging.getLogger().level == logging.WARNING and not logging.getLogger().handlers
assert not {"torch", "monai"} & set(sys.modules)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, SETTINGS.model_dump_json(), str(tmp_path / "d.json")],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/helpers'}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (tmp_path / "d.json").exists()


def test_the_whole_lifecycle_is_compiled_from_the_shipped_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.config import load
    from pipelines.model_lifecycle import drift_watch, model_lifecycle

    for name in ("LIGHTBOX_IMAGE", "LIGHTBOX_SERVING_IMAGE"):
        monkeypatch.setenv(name, IMAGE)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    settings = read_settings(ROOT / "configs/environments/sagemaker.yaml", SageMakerSettings)
    config = load(ROOT / "configs/phantom.yaml")
    compile_to(drift_watch(config), settings, tmp_path / "drift.json")
    definition = compiled(tmp_path, model_lifecycle(config), **dict(settings))
    steps = every_step(definition)
    assert {s["Name"] for s in steps.values() if s["Type"] == "Fail"} == {
        "refused",
        "waiting-for-approval",
        "rolled-back",
    }
    good = {"passed": True, "approved": True, "released": True, "drifted": False}
    names = {step.name for step in model_lifecycle(config).steps()}
    ran = started(definition, good)
    assert names - ran == {"retrain"}
    assert "refused" in started(definition, good | {"passed": False})
    assert "register" in started(definition, good | {"passed": False})
