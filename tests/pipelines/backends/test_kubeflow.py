import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from small_lifecycle import IMAGE, Knobs, approve, evaluate, small_lifecycle, take_in

from lineage.errors import BadInput
from pipelines.backends.kubeflow.lowering import compile_to
from pipelines.backends.kubeflow.settings import KubeflowSettings
from pipelines.graph import Fail, GraphError, Pipeline, Source, Step, When
from pipelines.settings import read_settings

ROOT = Path(__file__).resolve().parents[3]
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


def container(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]


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
    assert told["args"] == ["{{$.inputs.parameters['reason']}}"]
    reason = "it's 'quoted' $(exit 0)"
    ran = subprocess.run([*told["command"], reason], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (code, reason + "\n")


def test_a_refused_run_ends_only_after_the_model_was_entered(tmp_path: Path) -> None:
    tasks = compiled(tmp_path)[0]["root"]["dag"]["tasks"]
    assert "enter" in tasks["condition-branches-1"]["dependentTasks"]


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
    task = compiled(tmp_path)[0]["root"]["dag"]["tasks"]["take-in"]
    assert task["inputs"]["parameters"] == {"scans_uri": {"componentInputParameter": "scans"}}


def test_effects_are_not_cached_and_pure_steps_are(tmp_path: Path) -> None:
    spec, _ = compiled(tmp_path)
    tasks = dict(spec["root"]["dag"]["tasks"])
    for body in spec["components"].values():
        tasks |= body.get("dag", {}).get("tasks", {})
    cached = {n for n, t in tasks.items() if t.get("cachingOptions", {}).get("enableCache")}
    assert cached >= {"take-in", "fit", "evaluate", "watch"}
    assert not cached & {"enter", "approve", "refused", "waiting-for-approval"}


def test_hardware_retries_and_secrets_are_carried(tmp_path: Path) -> None:
    spec, kubernetes = compiled(tmp_path)
    resources = container(spec, "fit")["resources"]
    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert resources["resourceMemoryLimit"] == "32Gi"
    assert spec["root"]["dag"]["tasks"]["take-in"]["retryPolicy"]["maxRetryCount"] == 2
    assert kubernetes["exec-fit"]["activeDeadlineSeconds"] == "5400"
    (mounted,) = kubernetes["exec-take-in"]["secretAsVolume"]
    assert (mounted["secretName"], mounted["mountPath"]) == ("keys", "/lightbox/secrets")
    assert "secretAsVolume" not in kubernetes["exec-fit"]


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


def test_a_typo_in_the_settings_is_told_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "kubeflow.yaml"
    path.write_text(yaml.safe_dump(SETTINGS.model_dump() | {"imgae": "x"}))
    with pytest.raises(BadInput, match=r"kubeflow.yaml:4: imgae is not a setting"):
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
            assert json.loads(args[1]) == step.config.model_dump(mode="json")
    assert {"refused", "waiting-for-approval", "rolled-back"} <= {
        name.removeprefix("comp-")
        for name in compiled(tmp_path, model_lifecycle(config), **settings.model_dump())[0][
            "components"
        ]
    }
