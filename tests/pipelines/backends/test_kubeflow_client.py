"""Kubeflow's client against a stub of its API: see `kfp_stub` for what that is and is not."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kfp_stub import Frame, Kubeflow, checked, kubeflow
from small_lifecycle import IMAGE, small_lifecycle

from lineage.errors import BadInput, StepFailed
from pipelines.backends.kubeflow.client import KubeflowEngine
from pipelines.backends.kubeflow.settings import KubeflowSettings
from pipelines.submitting.engine import Order, Unreachable
from pipelines.submitting.identity import Identity

SETTINGS = KubeflowSettings(
    image=IMAGE,
    tracking_uri="https://mlflow.example",
    workspace_claim="workspace",
    secrets={"pseudonym.key": "keys"},
)
URIS = {"scans": "s3://intake/scans", "champion": "s3://models/champion"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubeflow]:
    with kubeflow() as stub:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", stub.url)
        for name in ("TOKEN", "SA_TOKEN_PATH", "NAMESPACE"):
            monkeypatch.delenv(f"KF_PIPELINES_{name}", raising=False)
        yield stub


@pytest.fixture
def engine(server: Kubeflow) -> KubeflowEngine:
    return KubeflowEngine(SETTINGS)


def order(commit: str = "c0ffee", **more: str) -> Order:
    pipeline = small_lifecycle()
    identity = Identity(pipeline.name, commit, "", "c" * 64, {"scans": "a" * 64})
    return Order(pipeline, f"toy-{identity.token[:8]}", identity, URIS, **more)


def test_a_run_carries_what_it_is_made_of(engine, server) -> None:
    wanted = order()
    started = engine.start(wanted)
    (run,) = server.runs.values()
    assert started.id == run["run_id"]
    assert started.url == f"{server.url}/#/runs/details/{started.id}"
    assert json.loads(run["description"]) == wanted.identity.facts()
    assert run["runtime_config"]["parameters"] == URIS
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "small-lifecycle"
    assert "kubernetes" in run["pipeline_spec"]["platform_spec"]["platforms"]
    (experiment,) = server.experiments.values()
    assert experiment["display_name"] == "small-lifecycle"
    assert run["experiment_id"] == experiment["experiment_id"]


def test_a_run_is_found_by_its_token_and_by_nothing_less(engine, server) -> None:
    assert engine.find("small-lifecycle", order().identity.token) is None
    started = engine.start(order())
    engine.start(order(commit="bad"))
    assert engine.find("small-lifecycle", order().identity.token).id == started.id
    # The same name with another description is somebody else's.
    server.runs[started.id]["description"] = "mine"
    assert engine.find("small-lifecycle", order().identity.token) is None


def test_of_two_that_start_the_same_the_second_takes_its_own_back(engine, server) -> None:
    first, second = engine.start(order()), engine.start(order())
    assert second.id == first.id
    assert list(server.runs) == [first.id]
    assert engine.start(order(again="1234")).id != first.id
    assert len(server.runs) == 2


def test_a_started_run_stays_while_lists_do_not_show_it_yet(engine, server) -> None:
    server.hidden.append("id-2")  # id-1 is the experiment
    assert engine.start(order()).id == "id-2"
    assert "id-2" in server.runs


def test_how_a_run_looks(engine, server) -> None:
    id = engine.start(order()).id
    server.play = [
        Frame("RUNNING", {"take-in": "CACHED", "fit": "RUNNING"}),
        Frame("FAILED", {"take-in": "CACHED", "fit": "SUCCEEDED", "refused": "FAILED"}, "no"),
    ]
    look = engine.look(id)
    assert look.state == "running"
    told = {task.name: task for task in look.tasks if not task.name.endswith("-driver")}
    assert {name: task.state for name, task in told.items()} == {
        "take-in": "reused",
        "fit": "running",
    }
    assert told["fit"].started_at and told["fit"].ended_at is None
    look = engine.look(id)
    assert (look.state, look.reason) == ("failed", "no")
    assert [t.name for t in look.tasks if t.state == "failed"] == ["refused"]


@pytest.mark.parametrize("state", ["PENDING", "PAUSED", "CANCELING", "RUNTIME_STATE_UNSPECIFIED"])
def test_only_an_end_is_an_end(engine, server, state) -> None:
    id = engine.start(order()).id
    server.play = [Frame(state, {})]
    assert engine.look(id).state == "running"


def test_stopping(engine, server) -> None:
    id = engine.start(order()).id
    engine.stop(id)
    assert server.ended == [id]
    server.play = [Frame("CANCELED", {"fit": "CANCELED"})]
    assert engine.look(id).state == "stopped"


def test_what_the_server_says_is_told_by_kind(engine, server) -> None:
    id = engine.start(order()).id
    server.refused = [503]
    with pytest.raises(Unreachable, match="503"):
        engine.look(id)
    server.refused = [403]
    with pytest.raises(BadInput, match="KF_PIPELINES_TOKEN"):
        engine.look(id)
    with pytest.raises(StepFailed, match="404") as caught:
        engine.look("nothing")
    assert not isinstance(caught.value, Unreachable)


def test_nobody_there(monkeypatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unreachable):
        KubeflowEngine(SETTINGS).look("id")
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    with pytest.raises(BadInput, match="KF_PIPELINES_ENDPOINT is not set"):
        KubeflowEngine(SETTINGS).look("id")


def test_tokens(server, monkeypatch, tmp_path: Path) -> None:
    server.token = "first"
    with pytest.raises(BadInput):
        KubeflowEngine(SETTINGS).start(order())
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "first")
    KubeflowEngine(SETTINGS).start(order())
    # A service account's token lies in a file and changes while we follow.
    monkeypatch.delenv("KF_PIPELINES_TOKEN")
    file = tmp_path / "token"
    file.write_text("first")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    engine = KubeflowEngine(SETTINGS)
    id = engine.start(order()).id
    file.write_text("second")
    server.token = "second"
    assert engine.look(id).id == id


def test_nothing_is_printed(engine, server, capfd) -> None:
    engine.start(order())
    assert capfd.readouterr() == ("", "")


def test_there_is_nowhere_to_upload_to(engine, tmp_path) -> None:
    with pytest.raises(BadInput, match="names no bucket to upload to"):
        engine.upload(tmp_path, "a" * 64)


def test_a_schedule_is_placed_once_and_changed_in_place(engine, server) -> None:
    wanted = Order(**{**vars(order()), "name": "lightbox-watch-toy"})
    made = engine.schedule(wanted, "30 1 * * 7")
    assert (made.name, made.cron) == ("lightbox-watch-toy", "0 30 1 * * SUN")
    (recurring,) = server.recurring.values()
    assert recurring["trigger"]["cron_schedule"]["cron"] == "0 30 1 * * SUN"
    assert recurring["mode"] == "ENABLE"
    engine.schedule(wanted, "30 1 * * 7")
    assert list(server.recurring.values()) == [recurring]
    engine.schedule(wanted, "0 2 * * *")
    (changed,) = engine.schedules()
    assert (changed.cron, changed.target) == ("0 0 2 * * *", "small-lifecycle")
    recurring = next(iter(server.recurring.values()))
    recurring["mode"] = "DISABLE"  # somebody switched it off; asking for it switches it on
    assert [each.enabled for each in engine.schedules()] == [False]
    engine.schedule(wanted, "0 2 * * *")
    assert [each.enabled for each in engine.schedules()] == [True]
    assert engine.unschedule(wanted.name) and not engine.unschedule(wanted.name)
    assert server.recurring == {}


def test_the_stub_says_nothing_that_the_api_does_not_know() -> None:
    checked({"run_id": "1", "state": "FAILED"}, "V2beta1Run")
    for wrong in ({"status": "FAILED"}, {"state": "Failed"}):
        with pytest.raises(AssertionError):
            checked(wrong, "V2beta1Run")
