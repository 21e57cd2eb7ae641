"""What `show --on` tells of a compiled document is what the document says."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from click.testing import CliRunner
from small_lifecycle import IMAGE, small_lifecycle

from pipelines.backends.tasks import (
    ALWAYS,
    Instances,
    Pod,
    Task,
    compiled,
    kubeflow_tasks,
    sagemaker_tasks,
)
from pipelines.commands.runs import show
from pipelines.config import load
from pipelines.model_lifecycle import drift_watch, model_lifecycle

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "configs" / "environments"
Engine = Literal["kubeflow", "sagemaker"]
ENGINES: tuple[Engine, ...] = ("kubeflow", "sagemaker")


@pytest.fixture(scope="module", autouse=True)
def environment() -> Any:
    """What the shipped environments leave open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTBOX_IMAGE", IMAGE)
        patch.setenv("LIGHTBOX_SERVING_IMAGE", IMAGE)
        patch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def small(environment: None) -> dict[str, dict[str, Task]]:
    """The small lifecycle's tasks, compiled once for each engine."""
    return {
        engine: {
            task.name.replace("-", "_"): task
            for task in compiled(small_lifecycle(), engine, SHIPPED / f"{engine}.yaml")
        }
        for engine in ENGINES
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_each_task_is_told_with_its_branch_and_what_it_reads(small, engine: Engine) -> None:
    tasks = small[engine]
    steps = ["take_in", "fit", "evaluate", "enter", "approve", "watch"]
    assert [name for name in tasks if name in steps] == steps  # in the order of their running
    conditions = {name: tasks[name].condition for name in (*steps, "refused")}
    assert conditions == {
        **dict.fromkeys(("take_in", "fit", "evaluate", "enter"), ""),
        "approve": "evaluate.passed",
        "watch": "approve.approved",
        "refused": "not evaluate.passed",
    }
    read = {o.replace("-", "_") for o in tasks["evaluate"].inputs.values() if "://" not in o}
    assert read == {"fit.model", "champion"}
    assert {o.replace("-", "_") for o in tasks["enter"].inputs.values() if "://" not in o} >= {
        "fit.model",
        "evaluate.verdict",
    }
    assert "snapshot" in tasks["take_in"].outputs


@pytest.mark.parametrize("engine", ENGINES)
def test_how_a_refused_run_ends_and_what_it_waits_for(small, engine: Engine) -> None:
    tasks = small[engine]
    told = {t.outcome for t in tasks.values() if t.kind == "fail"}
    assert told == {"refused", "waiting for approval"}
    # The model is entered first, although the refusal reads nothing of it.
    assert "enter" in tasks["refused"].after
    assert "evaluate.reason" in tasks["refused"].inputs.values()
    assert not any(t.outcome for t in tasks.values() if t.kind != "fail")


@pytest.mark.parametrize("engine", ENGINES)
def test_policies_are_read(small, engine: Engine) -> None:
    tasks = small[engine]
    assert (tasks["take_in"].retries, tasks["watch"].retries) == (2, 0)
    assert tasks["take_in"].cached and not tasks["enter"].cached  # effects never are
    assert tasks["fit"].minutes_limit == 90


def test_a_pod_says_what_it_asks_for(small) -> None:
    tasks = small["kubeflow"]
    assert tasks["fit"].runs_on == Pod(8, 32, 1, "nvidia.com/gpu")
    assert str(tasks["fit"].runs_on) == "8 CPU, 32 GiB, 1 nvidia.com/gpu"
    assert str(tasks["take_in"].runs_on) == "1 CPU, 4 GiB"
    assert tasks["scans"].kind == "importer" and tasks["scans"].runs_on is None


def test_an_instance_and_its_network_are_told(small) -> None:
    tasks = small["sagemaker"]
    machine = tasks["fit"].runs_on
    assert isinstance(machine, Instances)
    assert (machine.type, machine.volume_gib) == ("ml.g5.4xlarge", 100)
    networks = {name: tasks[name].network for name in ("fit", "evaluate", "take_in")}
    assert networks == {"fit": "none", "evaluate": "none", "take_in": "vpc"}
    assert tasks["enter_mirror"].kind == "model package"
    assert "fit.model" in tasks["enter_mirror"].inputs.values()


@pytest.fixture(scope="module")
def definition(environment: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from pipelines.backends.sagemaker import lowering
    from pipelines.backends.sagemaker.settings import SageMakerSettings
    from pipelines.settings import read_settings

    path = tmp_path_factory.mktemp("definition") / "definition.json"
    settings = read_settings(SHIPPED / "sagemaker.yaml", SageMakerSettings)
    lowering.compile_to(small_lifecycle(), settings, path)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_spot_and_several_instances_are_told(definition) -> None:
    changed = json.loads(json.dumps(definition))
    [fit] = [step for step in changed["Steps"] if step["Name"] == "fit"]
    fit["Arguments"] |= {"EnableManagedSpotTraining": True}
    fit["Arguments"]["ResourceConfig"]["InstanceCount"] = 2
    tasks = {task.name: task for task in sagemaker_tasks(json.dumps(changed))}
    assert str(tasks["fit"].runs_on) == "2 x ml.g5.4xlarge spot"


def test_what_is_not_known_is_passed_over(definition) -> None:
    changed = json.loads(json.dumps(definition))
    changed["Steps"].append(
        {"Name": "tell", "Type": "Callback", "Arguments": {"x": {"Get": "Parameters.scans"}}}
    )
    for step in changed["Steps"]:
        step["Novelty"] = {"a": [1]}
    tasks = {task.name: task for task in sagemaker_tasks(json.dumps(changed))}
    assert tasks["tell"].kind == "callback"
    assert list(tasks["tell"].inputs) == ["scans"]
    assert tasks["fit"].kind == "training"


def test_a_value_joined_of_parts_is_one_text() -> None:
    parts = ["s3://b", {"Get": "Execution.PipelineExecutionId"}, {"Get": "Parameters.scans"}]
    step = {
        "Name": "a",
        "Type": "Fail",
        "Arguments": {"ErrorMessage": {"Std:Join": {"On": "/", "Values": parts}}},
    }
    [task] = sagemaker_tasks(json.dumps({"Steps": [step]}))
    assert list(task.inputs) == ["scans"]


def test_what_runs_at_the_end_comes_last_and_says_so() -> None:
    def task(component: str, **more: Any) -> dict[str, Any]:
        return {"componentRef": {"name": component}, **more}

    last = task(
        "last",
        dependentTasks=["within"],
        triggerPolicy={"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"},
    )
    package = {
        "root": {"dag": {"tasks": {"last": last, "within": task("graph")}}},
        "components": {
            "graph": {"dag": {"tasks": {"one": task("one")}}},
            "one": {"executorLabel": "exec-one"},
            "last": {"executorLabel": "exec-last"},
        },
        "deploymentSpec": {"executors": {"exec-one": {"container": {}}}},
    }
    tasks = kubeflow_tasks(yaml.safe_dump(package))
    assert [(t.name, t.condition, t.after) for t in tasks] == [
        ("one", "", ()),
        ("last", ALWAYS, ()),
    ]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("build", [model_lifecycle, drift_watch])
def test_every_step_of_the_real_pipelines_is_listed(build, engine: Engine) -> None:
    pipeline = build(load(Path("configs/phantom.yaml")))
    tasks = compiled(pipeline, engine, SHIPPED / f"{engine}.yaml")
    names = [task.name.replace("-", "_") for task in tasks]
    assert len(set(names)) == len(names)
    assert {step.name for step in pipeline.steps()} <= set(names)
    known = {f"{n}.{o}" for n, t in zip(names, tasks, strict=True) for o in t.outputs}
    for task in tasks:
        for step in pipeline.steps():
            if task.name.replace("-", "_") == step.name:
                assert set(step.component.outputs) <= set(task.outputs)
        if "." in task.condition and engine == "kubeflow":
            assert task.condition.removeprefix("not ").replace("-", "_") in known


@pytest.mark.parametrize(
    ("engine", "machine"), [("kubeflow", "2 CPU, 8 GiB"), ("sagemaker", "ml.m5.xlarge")]
)
def test_the_command_lists_them(engine: str, machine: str) -> None:
    told = CliRunner().invoke(show, ["configs/phantom.yaml", "--on", engine])
    assert told.exception is None
    for words in ("train", machine, "reads ingest.snapshot", "if gate.passed", "at most 240 min"):
        assert words in told.output
    assert "ends the run as “refused”" in told.output
    asked = ["configs/phantom.yaml", "--on", engine, "--watch", "--json"]
    found = json.loads(CliRunner().invoke(show, asked).output)
    assert {"monitor_drift", "retrain"} <= {task["name"].replace("-", "_") for task in found}
