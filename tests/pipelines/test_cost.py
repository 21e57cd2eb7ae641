"""The estimate of a run: its times, its prices, and what it says of both."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from small_lifecycle import IMAGE
from toys import Settings, read

from lineage.errors import BadInput
from pipelines.backends import local
from pipelines.backends.sagemaker.settings import SageMakerSettings
from pipelines.backends.tasks import ALWAYS, Instances, Pod, Task
from pipelines.commands.cost import cost
from pipelines.cost import Prices, Spread, estimate, measured, runs_of, totals
from pipelines.graph import Pipeline, Source, Step
from pipelines.runs import Run, RunFolder, StepState
from pipelines.settings import read_settings

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "configs" / "lists" / "prices.yaml"
PRICES = Prices.model_validate(
    {
        "as_of": "2026-01-01",
        "source": "made up",
        "currency": "EUR",
        "sagemaker": {
            "region": "eu-central-1",
            "instances": {"ml.a": {"on_demand": 3.6, "spot": 1.8}},
            "storage_gib_month": 0,
            "startup_s": 100,
            "least_billed_s": 1,
        },
        "kubeflow": {
            "region": "eu-central-1",
            "cpu": {"on_demand": 36, "spot": 18},
            "memory_gib": {"on_demand": 3.6, "spot": 1.8},
            "gpu": {"on_demand": 360, "spot": 180},
            "startup_s": 0,
            "least_billed_s": 60,
        },
    }
)


def job(name: str = "fit", kind: str = "training", **more: Any) -> Task:
    return Task(name, kind, **{"runs_on": Instances("ml.a"), "minutes_limit": 10.0, **more})


def spread(*values: float) -> Spread:
    return Spread(*values) if len(values) == 3 else Spread(values[0], values[0], values[0])


def near(found: Spread, wanted: Spread) -> bool:
    pairs = zip(vars(found).values(), vars(wanted).values(), strict=True)
    return all(a == pytest.approx(b) for a, b in pairs)


def test_time_and_start_up_times_the_price() -> None:
    [found] = estimate([job()], {"fit": [400.0]}, PRICES)
    assert near(found.billed_s, spread(500))
    assert near(found.on_demand, spread(0.5))  # 3.6 an hour is 0.001 a second
    assert near(found.spot, spread(0.25))
    assert (found.measurements, found.basis, found.bound) == (1, "1 run", False)


def test_several_measurements_make_an_interval() -> None:
    [found] = estimate([job()], {"fit": [900.0, 100.0, 200.0]}, PRICES)
    assert near(found.billed_s, spread(200, 300, 1000))
    assert near(found.on_demand, spread(0.2, 0.3, 1.0))
    assert found.measurements == 3


def test_what_was_never_measured_counts_with_its_limit_and_says_so() -> None:
    [found] = estimate([job()], {"other": [1.0]}, PRICES)
    assert near(found.billed_s, spread(700))
    assert (found.measurements, found.basis, found.bound) == (0, "time limit", True)
    [unknown] = estimate([job(minutes_limit=None)], {}, PRICES)
    assert (unknown.basis, unknown.bound) == ("start-up", False)
    assert near(unknown.billed_s, spread(100))


def test_only_training_has_spot() -> None:
    [found] = estimate([job(kind="processing")], {}, PRICES)
    assert found.spot == found.on_demand


def test_every_instance_and_its_volume_is_paid() -> None:
    stored = PRICES.sagemaker.model_copy(update={"storage_gib_month": 730.0})
    prices = PRICES.model_copy(update={"sagemaker": stored})
    machine = Instances("ml.a", count=2, volume_gib=10)
    [found] = estimate([job(runs_on=machine)], {"fit": [3500.0]}, prices)
    assert near(found.on_demand, spread(2 * (3.6 + 10)))
    assert near(found.spot, spread(2 * (1.8 + 10)))  # a volume knows no spot


def test_an_instance_without_a_price_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match=r"no price for ml\.b; .*ml\.a"):
        estimate([job(runs_on=Instances("ml.b"))], {}, PRICES)


def test_a_pod_pays_for_what_it_asks_for_and_for_the_shortest_time() -> None:
    pod = Pod(cpu=2, memory_gib=10, gpus=1, gpu_resource="nvidia.com/gpu")
    # Kubernetes knows the step `deploy_canary` as deploy-canary.
    task = job("deploy-canary", kind="container", runs_on=pod)
    [found] = estimate([task], {"deploy_canary": [1.0]}, PRICES)
    assert near(found.billed_s, spread(60))
    assert near(found.on_demand, spread((2 * 36 + 10 * 3.6 + 360) / 60))
    assert near(found.spot, spread((2 * 18 + 10 * 1.8 + 180) / 60))
    assert found.measurements == 1


def test_what_an_engine_does_by_itself_costs_nothing() -> None:
    tasks = [Task("when", "condition"), job("refused", kind="fail"), Task("scans", "importer")]
    assert estimate(tasks, {}, PRICES) == []


def test_totals_of_the_ways_a_run_can_take() -> None:
    tasks = [
        job("a", cached=True),
        job("b"),
        job("c", condition="a.passed"),
        job("d", condition=ALWAYS),
    ]
    times = {"a": [900.0], "b": [0.0], "c": [1900.0], "d": [100.0]}
    every, none, repeated = totals(estimate(tasks, times, PRICES))
    assert near(every.on_demand, spread(1.0 + 0.1 + 2.0 + 0.2))
    assert near(none.on_demand, spread(1.0 + 0.1 + 0.2))
    assert near(repeated.on_demand, spread(0.1 + 2.0 + 0.2))
    assert near(every.spot, spread((1.0 + 0.1 + 2.0 + 0.2) / 2))
    assert not every.bound
    del times["c"]
    assert [way.bound for way in totals(estimate(tasks, times, PRICES))] == [True, False, True]


def run(name: str, *steps: StepState) -> Run:
    return Run(name, "p", "c.yaml", "", 1, "2026-01-01T00:00:00.000+00:00", [*steps])


def test_an_execution_is_counted_once_however_often_it_was_reused() -> None:
    runs = [
        run("3", StepState("fit", "ran", seconds=3.0), StepState("gate", "failed", seconds=9.0)),
        run("2", StepState("fit", "reused", seconds=0.01, made_by="1", made_seconds=2.0)),
        run("1", StepState("fit", "ran", seconds=2.0), StepState("gate", "skipped")),
    ]
    assert measured(runs) == {"fit": [3.0, 2.0]}


def toy(folder: Path, text: str) -> Pipeline:
    settings = Settings(journal=str(folder / "journal"), text=text)
    return Pipeline("toy", [Step(read, settings, source=Source("source", str(folder)))])


def test_runs_of_other_settings_tell_nothing(home, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("x")
    done = local.run(toy(tmp_path, "a"), home, lambda source: Path(source.uri))
    assert [found.id for found in runs_of(toy(tmp_path, "a"), home)] == [done.id]
    assert measured(runs_of(toy(tmp_path, "a"), home))["read"] == [done.step("read").seconds]
    assert runs_of(toy(tmp_path, "b"), home) == []


def test_the_shipped_prices_know_every_instance_of_the_shipped_environment() -> None:
    prices = read_settings(SHIPPED, Prices)
    text = (ROOT / "configs" / "environments" / "sagemaker.yaml").read_text()
    instances = {instance["type"] for instance in yaml.safe_load(text)["instances"]}
    assert instances <= prices.sagemaker.instances.keys()
    for price in (*prices.sagemaker.instances.values(), prices.kubeflow.cpu, prices.kubeflow.gpu):
        assert 0 < price.spot < price.on_demand
    assert "as known in" in SHIPPED.read_text()


@pytest.fixture
def shipped(home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTBOX_IMAGE", IMAGE)
    monkeypatch.setenv("LIGHTBOX_SERVING_IMAGE", IMAGE)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.chdir(ROOT)


def asked(*more: str) -> Any:
    return CliRunner().invoke(cost, ["configs/phantom.yaml", *more])


@pytest.mark.parametrize("engine", ["kubeflow", "sagemaker"])
def test_the_command_says_what_its_figures_rest_on(engine: str, shipped, home) -> None:
    told = asked("--on", engine)
    assert told.exception is None
    assert "≤ " in told.output and "time limit" in told.output
    assert "none measured" in told.output
    assert "not counted: retries" in told.output
    assert ("beware: the run takes place in" in told.output) == (engine == "sagemaker")

    past = run("20260101-000000-aaaa", StepState("train", "ran", seconds=60.0))
    folder = RunFolder(home.runs / past.id)
    folder.begin(past)
    past.outcome = "done"
    folder.end(past)
    found = json.loads(asked("--on", engine, "--from", "20260101", "--json").output)
    tasks = {task["task"]: task for task in found["tasks"]}
    assert tasks["train"]["measurements"] == 1
    assert tasks["ingest"]["measurements"] == 0
    billed = tasks["train"]["billed_s"]["middle"]
    startup = getattr(read_settings(SHIPPED, Prices), engine).startup_s
    assert billed == 60 + startup
    ways = {way["way"]: way["on_demand"]["middle"] for way in found["totals"]}
    assert ways["every branch"] > ways["no branch"] > ways["repeated"] > 0


def test_a_price_list_of_ones_own_is_used(shipped, home, tmp_path: Path) -> None:
    values = yaml.safe_load(SHIPPED.read_text()) | {"currency": "CHF"}
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(values))
    assert "CHF" in asked("--on", "kubeflow", "--prices", str(own)).output
    values["sagemaker"]["instances"] = {"ml.other": {"on_demand": 1, "spot": 1}}
    own.write_text(yaml.safe_dump(values))
    refused = asked("--on", "sagemaker", "--prices", str(own))
    assert isinstance(refused.exception, BadInput)
    assert "no price for ml.m5.xlarge" in str(refused.exception)


def test_the_region_is_that_of_the_settings(shipped, home, tmp_path: Path) -> None:
    assert "region" in SageMakerSettings.model_fields
    text = (ROOT / "configs" / "environments" / "sagemaker.yaml").read_text()
    there = tmp_path / "there.yaml"
    there.write_text(text.replace("region: eu-central-1", "region: us-east-1"))
    told = asked("--on", "sagemaker", "--environment", str(there))
    assert told.exception is None and "beware" not in told.output
