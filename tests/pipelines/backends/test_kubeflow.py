import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from pydantic import ValidationError
from small_lifecycle import IMAGE, Knobs, approve, evaluate, small_lifecycle, take_in

from components.contract import Input, Output, component
from lineage.code import ROOT
from lineage.errors import BadInput
from pipelines.backends.kubeflow.lowering import check, compile_to
from pipelines.backends.kubeflow.settings import KubeflowSettings, Toleration
from pipelines.graph import Fail, GraphError, Pipeline, Source, Step, When
from pipelines.settings import read_settings

SETTINGS = KubeflowSettings(
    image=IMAGE,
    tracking_uri="https://mlflow.example",
    workspace_claim="lightbox",
    secrets={"pseudonym.key": "keys"},
)


def compiled(
    folder: Path, pipeline: Pipeline | None = None, **changes: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The package's pipeline spec and its Kubernetes part, each accepted by kfp's own protobuf."""
    path = folder / "package.yaml"
    compile_to(pipeline or small_lifecycle(), SETTINGS.model_copy(update=changes), path)
    spec, platform = yaml.safe_load_all(path.read_text())
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def every_task(spec: dict[str, Any]) -> dict[str, Any]:
    """Of all levels, by name."""
    tasks = dict(spec["root"]["dag"]["tasks"])
    for body in spec["components"].values():
        tasks |= body.get("dag", {}).get("tasks", {})
    return tasks


def container(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]


def environment_of(spec: dict[str, Any], name: str) -> dict[str, str]:
    return {pair["name"]: pair["value"] for pair in container(spec, name)["env"]}


def guarded(spec: dict[str, Any]) -> dict[str, str]:
    """For each task in a branch: the nearest condition that it hangs on."""
    components = spec["components"]
    return {
        task: body["triggerPolicy"]["condition"]
        for parent in components.values()
        for body in parent.get("dag", {}).get("tasks", {}).values()
        if "triggerPolicy" in body
        for task in components[body["componentRef"]["name"]]["dag"]["tasks"]
    }


def test_two_compiles_are_equal_byte_by_byte(tmp_path: Path) -> None:
    compile_to(small_lifecycle(), SETTINGS, tmp_path / "a.yaml")
    compile_to(small_lifecycle(), SETTINGS, tmp_path / "b.yaml")
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()


def test_each_side_of_a_branch_hangs_on_its_own_condition(tmp_path: Path) -> None:
    found = guarded(compiled(tmp_path)[0])
    passed = "inputs.parameter_values['pipelinechannel--evaluate-passed_value'] == true"
    approved = "inputs.parameter_values['pipelinechannel--approve-approved_value'] == true"
    assert found["approve"] == passed
    assert found["refused"] == f"!({passed})"
    assert found["watch"] == approved
    assert found["waiting-for-approval"] == f"!({approved})"


@pytest.mark.parametrize(("name", "code"), [("refused", 3), ("waiting-for-approval", 4)])
def test_a_fail_prints_the_reason_and_exits_with_its_code(
    tmp_path: Path, name: str, code: int
) -> None:
    told = container(compiled(tmp_path)[0], name)
    reason = "--it's 'quoted' $(exit 0)"
    given = {"{{$.inputs.parameters['reason']}}": reason, "{{$.inputs.parameters['run']}}": "r-1"}
    words = told["command"] + told["args"]
    for placeholder, value in given.items():
        words = [word.replace(placeholder, value) for word in words]
    home = tmp_path / "home"
    ran = subprocess.run(
        [sys.executable, *words[1:]],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"LIGHTBOX_HOME": str(home)},
    )
    assert (ran.returncode, ran.stderr) == (code, reason + "\n")
    kept = json.loads((home / "endings/r-1.json").read_text())
    assert (kept["outcome"], kept["reason"]) == (name.replace("-", " "), reason)


def test_a_refused_run_ends_only_after_the_model_was_entered(tmp_path: Path) -> None:
    tasks = compiled(tmp_path)[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    (branches,) = (task for name, task in tasks.items() if "branches" in name)
    assert "enter" in branches["dependentTasks"]


def test_the_last_task_runs_however_the_others_ended_and_is_told_how(tmp_path: Path) -> None:
    spec, _ = compiled(tmp_path)
    tasks = spec["root"]["dag"]["tasks"]
    assert set(tasks) == {"exit-handler-1", "record-the-ending"}
    last = tasks["record-the-ending"]
    assert last["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    status = last["inputs"]["parameters"]["status"]
    assert status == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}
    assert (
        "--status={{$.inputs.parameters['status']}}" in container(spec, "record-the-ending")["args"]
    )


def test_the_config_arrives_as_it_was_and_starts_no_placeholder(tmp_path: Path) -> None:
    args = container(compiled(tmp_path)[0], "take-in")["args"]
    text = args[args.index("--config") + 1]
    assert "$" not in text
    assert "{{" not in text
    assert Knobs.model_validate_json(text) == Knobs()


def test_what_a_source_is_must_be_said_at_launch_unless_a_cluster_can_reach_it(
    tmp_path: Path,
) -> None:
    inputs = compiled(tmp_path)[0]["root"]["inputDefinitions"]["parameters"]
    assert inputs == {n: {"parameterType": "STRING"} for n in ("champion", "scans")}
    spec, _ = compiled(
        tmp_path, small_lifecycle("s3://in/scans"), sources={"champion": "s3://models/champion"}
    )
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert inputs["scans"]["defaultValue"] == "s3://in/scans"
    assert inputs["champion"]["defaultValue"] == "s3://models/champion"


def test_another_place_of_a_source_is_another_cache_key(tmp_path: Path) -> None:
    (uri,) = every_task(compiled(tmp_path)[0])["take-in"]["inputs"]["parameters"].items()
    assert uri == ("scans_uri", {"componentInputParameter": "pipelinechannel--scans"})


def test_effects_are_not_cached_and_pure_steps_are(tmp_path: Path) -> None:
    tasks = every_task(compiled(tmp_path)[0])
    cached = {n for n, t in tasks.items() if t.get("cachingOptions", {}).get("enableCache")}
    assert cached >= {"take-in", "fit", "evaluate", "watch"}
    assert not cached & {"enter", "approve", "refused", "waiting-for-approval", "record-the-ending"}


def test_hardware_and_retries_are_carried(tmp_path: Path) -> None:
    spec, pods = compiled(tmp_path)
    resources = container(spec, "fit")["resources"]
    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert resources["resourceMemoryLimit"] == "32Gi"
    assert pods["exec-fit"]["activeDeadlineSeconds"] == "5400"
    (shared,) = pods["exec-fit"]["emptyDirMounts"]
    assert (shared["mountPath"], shared["sizeLimit"]) == ("/dev/shm", "8192Mi")
    retry = every_task(spec)["take-in"]["retryPolicy"]
    assert retry["maxRetryCount"] == 2
    assert (retry["backoffDuration"], retry["backoffFactor"]) == ("60s", 2.0)


def test_every_pod_is_unprivileged_and_placed(tmp_path: Path) -> None:
    taint = Toleration(key="team", value="imaging")
    gpu = Toleration(key="nvidia.com/gpu", operator="Exists")
    _, pods = compiled(
        tmp_path,
        run_as_user=4711,
        image_pull_secrets=["registry"],
        node_selector={"zone": "a"},
        tolerations=[taint],
        gpu_node_selector={"gpu": "h200"},
        gpu_tolerations=[gpu],
    )
    for pod in pods.values():
        assert pod["securityContext"] == {"runAsUser": "4711", "runAsNonRoot": True}
        assert pod["imagePullPolicy"] == "IfNotPresent"
        assert pod["imagePullSecret"][0]["secretName"] == "registry"
        assert pod["nodeSelector"]["labels"]["zone"] == "a"
        assert pod["tolerations"][0]["key"] == "team"
    assert pods["exec-fit"]["nodeSelector"]["labels"] == {"zone": "a", "gpu": "h200"}
    assert [t["key"] for t in pods["exec-fit"]["tolerations"]] == ["team", "nvidia.com/gpu"]


def test_only_steps_with_something_to_keep_see_the_workspace(tmp_path: Path) -> None:
    spec, pods = compiled(tmp_path)
    mounted = {name.removeprefix("exec-") for name, pod in pods.items() if "pvcMount" in pod}
    ours = {"refused", "waiting-for-approval", "record-the-ending"}
    assert mounted == {"take-in", "enter", "approve"} | ours
    told = {
        name
        for name in mounted | {"fit", "evaluate", "watch"}
        if "LIGHTBOX_HOME" in environment_of(spec, name)
    }
    assert told == mounted


def test_only_steps_that_train_or_act_are_told_of_mlflow(tmp_path: Path) -> None:
    spec, _ = compiled(tmp_path)
    names = ("take-in", "fit", "evaluate", "enter", "approve", "watch")
    told = {n for n in names if "MLFLOW_TRACKING_URI" in environment_of(spec, n)}
    assert told == {"fit", "enter", "approve"}


@pytest.mark.parametrize(
    ("holder", "secret", "key"),
    [("keys", "keys", "pseudonym.key"), ("keys/hex", "keys", "hex")],
)
def test_a_secret_comes_as_the_variable_that_the_workspace_reads(
    tmp_path: Path, holder: str, secret: str, key: str
) -> None:
    _, pods = compiled(tmp_path, secrets={"pseudonym.key": holder})
    (taken,) = pods["exec-take-in"]["secretAsEnv"]
    assert taken["secretName"] == secret
    assert taken["keyToEnv"] == [{"secretKey": key, "envVar": "LIGHTBOX_SECRET_PSEUDONYM_KEY"}]
    assert "secretAsEnv" not in pods["exec-fit"]


def test_secrets_of_several_kubernetes_secrets_reach_one_step(tmp_path: Path) -> None:
    @component(secrets=("a.key", "b.key"))
    def both(config: Knobs, scans: Input, found: Output) -> None: ...

    pipeline = Pipeline("p", [Step(both, Knobs(), scans=Source("scans", ""))])
    _, pods = compiled(tmp_path, pipeline, secrets={"a.key": "one", "b.key": "two"})
    taken = {s["secretName"]: s["keyToEnv"][0]["envVar"] for s in pods["exec-both"]["secretAsEnv"]}
    assert taken == {"one": "LIGHTBOX_SECRET_A_KEY", "two": "LIGHTBOX_SECRET_B_KEY"}


def test_a_step_is_shown_in_words_and_started_by_name(tmp_path: Path) -> None:
    spec, _ = compiled(tmp_path)
    assert spec["pipelineInfo"]["displayName"] == "small lifecycle"
    assert every_task(spec)["take-in"]["taskInfo"]["name"] == "take in"
    told = container(spec, "take-in")
    assert told["command"] == ["python", "-m", "components"]
    assert told["args"][0] == "small_lifecycle:take_in"


def test_what_kubeflow_draws_is_declared_as_what_it_is(tmp_path: Path) -> None:
    @component()
    def measure(config: Knobs, model: Input, metrics: Output, report: Output) -> None: ...

    pipeline = Pipeline("p", [Step(measure, Knobs(), model=Source("model", ""))])
    spec, _ = compiled(tmp_path, pipeline)
    made = spec["components"]["comp-measure"]["outputDefinitions"]["artifacts"]
    assert {name: about["artifactType"]["schemaTitle"] for name, about in made.items()} == {
        "metrics": "system.Dataset",
        "metrics_numbers": "system.Metrics",
        "metrics_roc": "system.ClassificationMetrics",
        "report": "system.Dataset",
        "report_page": "system.HTML",
    }
    assert container(spec, "measure")["args"][-2:] == ["--executor-input", "{{$}}"]


def test_variables_of_the_settings_reach_every_step_and_never_take_the_place_of_ours(
    tmp_path: Path,
) -> None:
    spec, _ = compiled(tmp_path, environment={"TZ": "UTC"})
    for name in ("take-in", "fit", "refused", "record-the-ending"):
        assert environment_of(spec, name)["TZ"] == "UTC"
    for name in ("LIGHTBOX_HOME", "MLFLOW_TRACKING_URI"):
        with pytest.raises(ValidationError, match=f"{name} is set by the pipeline itself"):
            KubeflowSettings(**SETTINGS.model_dump() | {"environment": {name: "x"}})
    with pytest.raises(ValidationError, match="use secrets:"):
        KubeflowSettings(**SETTINGS.model_dump() | {"environment": {"LIGHTBOX_SECRET_X": "0"}})


def test_the_root_user_is_refused() -> None:
    with pytest.raises(ValidationError, match="run_as_user"):
        KubeflowSettings(**SETTINGS.model_dump() | {"run_as_user": 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "registry.example/lightbox:1.0"}, "image: .*pin it as NAME@sha256"),
        ({"tracking_uri": "sqlite:///mlflow.db"}, "sqlite reaches no cluster"),
        ({"secrets": {}}, r"take_in reads the secrets \['pseudonym.key'\]"),
        ({"sources": {"scans": "/data/scans"}}, "sources.scans: /data/scans does not start"),
    ],
)
def test_settings_that_no_cluster_can_use_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        compiled(tmp_path, **changes)


def test_a_release_needs_a_service_that_outlives_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.config import load
    from pipelines.model_lifecycle import model_lifecycle

    monkeypatch.setenv("LIGHTBOX_IMAGE", IMAGE)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    released = model_lifecycle(load(ROOT / "configs/phantom.yaml"))
    settings = read_settings(ROOT / "configs/environments/kubeflow.yaml", KubeflowSettings)
    path = tmp_path / "package.yaml"
    with pytest.raises(BadInput, match="endpoint_url: deploy_canary sends models"):
        compile_to(released, settings.model_copy(update={"endpoint_url": ""}), path)
    spec, _ = compiled(tmp_path, released, **settings.model_dump())
    pods = spec["deploymentSpec"]["executors"]
    told = {
        name
        for name, pod in pods.items()
        for variable in pod.get("container", {}).get("env", [])
        if variable["name"] == "LIGHTBOX_ENDPOINT_URL"
    }
    assert told == {"exec-deploy-canary"}


def test_an_effect_below_a_branch_is_refused_by_name(tmp_path: Path) -> None:
    judged = Step(evaluate, Knobs(), model=Source("m", ""), champion=Source("c", ""))
    late = Step(approve, Knobs(), verdict=judged["verdict"])
    branch = When(judged["passed"], then=[], otherwise=[Fail("refused", judged["reason"], 3)])
    with pytest.raises(GraphError, match="approve stands below a branch"):
        compiled(tmp_path, Pipeline("p", [judged, branch, late]))


def test_what_stands_below_a_fail_is_refused(tmp_path: Path) -> None:
    judged = Step(evaluate, Knobs(), model=Source("m", ""), champion=Source("c", ""))
    never = Step(take_in, Knobs(), scans=Source("scans", ""))
    with pytest.raises(GraphError, match="below Fail 'refused' never runs"):
        compiled(tmp_path, Pipeline("p", [judged, Fail("refused", judged["reason"], 3), never]))


@pytest.mark.parametrize("names", [("Take in", "take-in"), ("importer", "other")])
def test_names_that_kubeflow_would_change_are_refused(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    steps = [Step(take_in, Knobs(), name, scans=Source("scans", "")) for name in names]
    with pytest.raises(GraphError, match=r"step '.+' would be named like .+; rename it"):
        compiled(tmp_path, Pipeline("p", steps))


def test_a_name_that_would_stand_twice_is_refused(tmp_path: Path) -> None:
    @component()
    def doubled(config: Knobs, report: Output, report_page: Output) -> None: ...

    with pytest.raises(GraphError, match=r"doubled: .*\['report_page'\] would stand twice"):
        compiled(tmp_path, Pipeline("p", [Step(doubled, Knobs())]))


def test_a_package_that_the_schema_does_not_know_is_refused(tmp_path: Path) -> None:
    compile_to(small_lifecycle(), SETTINGS, tmp_path / "package.yaml")
    package = (tmp_path / "package.yaml").read_text()
    check(package)
    for word in ("triggerPolicy", "activeDeadlineSeconds", "resourceMemoryLimit", "platforms:"):
        with pytest.raises(BadInput, match="does not know this package"):
            check(package.replace(word, f"x{word}"))


def test_a_package_may_have_any_name(tmp_path: Path) -> None:
    compile_to(small_lifecycle(), SETTINGS, tmp_path / "package")
    compile_to(small_lifecycle(), SETTINGS, tmp_path / "package.yaml")
    assert (tmp_path / "package").read_bytes() == (tmp_path / "package.yaml").read_bytes()


def test_a_typo_in_the_settings_is_told_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "kubeflow.yaml"
    path.write_text(yaml.safe_dump(SETTINGS.model_dump() | {"imgae": "x"}))
    with pytest.raises(BadInput, match=r"kubeflow.yaml:\d+: imgae is not a setting"):
        read_settings(path, KubeflowSettings)


def test_the_whole_lifecycle_is_compiled_from_the_shipped_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.config import load
    from pipelines.model_lifecycle import drift_watch, model_lifecycle

    monkeypatch.setenv("LIGHTBOX_IMAGE", IMAGE)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    settings = read_settings(ROOT / "configs/environments/kubeflow.yaml", KubeflowSettings)
    config = load(ROOT / "configs/phantom.yaml")
    for pipeline in (model_lifecycle(config), drift_watch(config)):
        spec, _ = compiled(tmp_path, pipeline, **settings.model_dump())
        for step in pipeline.steps():
            args = container(spec, step.name.replace("_", "-"))["args"]
            assert json.loads(args[args.index("--config") + 1]) == step.config.model_dump(
                mode="json"
            )
    assert {"refused", "waiting-for-approval", "rolled-back"} <= {
        name.removeprefix("comp-")
        for name in compiled(tmp_path, model_lifecycle(config), **settings.model_dump())[0][
            "components"
        ]
    }
