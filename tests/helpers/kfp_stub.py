"""Kubeflow Pipelines' API (v2beta1) on loopback, as far as runs and recurring runs need it.

It executes nothing: how a run fares comes from a play that a test writes. Every request and every
answer is read with the models that kfp's own client was generated from, and holds no member that
they do not know. Tasks look as the server reports them: with drivers, groups and the pod within
each task, without error texts (see kubeflow/pipelines#14007), and with 1970 for what is to come.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import kfp_server_api as api
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

NEVER = "1970-01-01T00:00:00Z"
BEGAN = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)
PREFIX = "/apis/v2beta1/"


@dataclass(frozen=True)
class Frame:
    """How a run looks at one moment: its state, and each task's."""

    state: str
    tasks: dict[str, str]
    error: str = ""


@dataclass
class Kubeflow:
    """What tests see of the server."""

    url: str = ""
    token: str = ""  # who does not bear it is sent away
    play: list[Frame] = field(default_factory=list)  # one frame per look; the last one stays
    refused: list[int] = field(default_factory=list)  # statuses of the next answers, before others
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)  # runs that one listing does not show yet
    made: int = 0
    looks: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        with self._lock:
            return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if self.refused:
            return Response('{"error": "not now"}', self.refused.pop(0))
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return Response('{"error": "who are you"}', 401)
        kind, _, id = request.path.removeprefix(PREFIX).partition("/")
        body = json.loads(request.get_data() or b"{}")
        match request.method, kind, id:
            case "GET", "experiments", "":
                found = self._chosen(self.experiments, request)
                return _json({"experiments": found}, "V2beta1ListExperimentsResponse")
            case "POST", "experiments", "":
                made = self._make(self.experiments, "experiment_id", body, "V2beta1Experiment")
                return _json(made, "V2beta1Experiment")
            case "GET", "runs", "":
                found = self._chosen(self.runs, request)
                shown = [run for run in found if run["run_id"] not in self.hidden]
                return _json(
                    {"runs": [_brief(r) for r in reversed(shown)]}, "V2beta1ListRunsResponse"
                )
            case "POST", "runs", "":
                made = self._make(self.runs, "run_id", {**body, "state": "PENDING"}, "V2beta1Run")
                return _json(_brief(made), "V2beta1Run")
            case "GET", "runs", _ if id in self.runs:
                return _json(self._look(self.runs[id]), "V2beta1Run")
            case "DELETE", "runs", _ if id in self.runs:
                del self.runs[id]
                return _json({}, "object")
            case "POST", "runs", _ if id.endswith(":terminate"):
                self.ended.append(id.removesuffix(":terminate"))
                return _json({}, "object")
            case "GET", "recurringruns", "":
                found = self._chosen(self.recurring, request)
                return _json({"recurringRuns": found}, "V2beta1ListRecurringRunsResponse")
            case "POST", "recurringruns", "":
                made = self._make(self.recurring, "recurring_run_id", body, "V2beta1RecurringRun")
                return _json(made, "V2beta1RecurringRun")
            case "DELETE", "recurringruns", _ if id in self.recurring:
                del self.recurring[id]
                return _json({}, "object")
        return Response('{"error": "not found"}', 404)

    def _make(
        self, where: dict[str, dict[str, Any]], key: str, body: dict[str, Any], model: str
    ) -> dict[str, Any]:
        checked(body, model)
        self.made += 1
        at = (BEGAN + timedelta(seconds=self.made)).isoformat().replace("+00:00", "Z")
        where[f"id-{self.made}"] = made = {**body, key: f"id-{self.made}", "created_at": at}
        return made

    def _chosen(self, where: dict[str, dict[str, Any]], request: Request) -> list[dict[str, Any]]:
        """What a filter asks for; see the API's filter.proto."""
        found = list(where.values())
        told = json.loads(request.args.get("filter") or "{}")
        for predicate in told.get("predicates", []):
            key, value = predicate["key"], predicate["stringValue"]
            fits = {
                "EQUALS": lambda text, value=value: text == value,
                "IS_SUBSTRING": lambda text, value=value: value in text,
            }[predicate["operation"]]
            found = [each for each in found if fits(each[key])]
        return found

    def _look(self, run: dict[str, Any]) -> dict[str, Any]:
        self.looks += 1
        if not self.play:
            return _brief(run)
        frame = self.play.pop(0) if len(self.play) > 1 else self.play[0]
        told = {**_brief(run), "state": frame.state, "run_details": {"task_details": _tasks(frame)}}
        if frame.error:
            told["error"] = {"code": 2, "message": frame.error}
        return told


def _brief(run: dict[str, Any]) -> dict[str, Any]:
    """The API leaves the package out where a version of a pipeline stands for it; so do we."""
    return {key: value for key, value in run.items() if key != "pipeline_spec"}


def _tasks(frame: Frame) -> list[dict[str, Any]]:
    """A group of all, and for each task its driver, itself, and the pod within."""
    found = [_task("root", frame.state, 0), _task("root-driver", "SUCCEEDED", 0)]
    for i, (name, state) in enumerate(frame.tasks.items(), 1):
        cached = state == "CACHED"
        task = _task(name, "SUCCEEDED" if cached else state, i)
        if not name.endswith("-driver"):
            found.append(_task(f"{name}-driver", "SUCCEEDED", i))
        found.append(task)
        inside = _task("executor", "SKIPPED" if cached else state, i, f"executor-{i}")
        found.append({**inside, "parent_task_id": task["task_id"]})
    if any(state == "FAILED" for state in frame.tasks.values()):
        for group in ("condition-1", "if: not passed", "run: model lifecycle"):
            found.append(_task(group, "FAILED", len(found)))
    return found


def _task(name: str, state: str, minute: int, id: str = "") -> dict[str, Any]:
    began = BEGAN + timedelta(minutes=minute)
    ended = began + timedelta(seconds=30)
    return {
        "task_id": id or f"task-{name}",
        "display_name": name,
        "state": state,
        "create_time": began.isoformat(),
        "start_time": began.isoformat(),
        "end_time": NEVER if state in ("PENDING", "RUNNING") else ended.isoformat(),
    }


def _json(answer: dict[str, Any], model: str) -> Response:
    checked(answer, model)
    return Response(json.dumps(answer), content_type="application/json")


def checked(value: Any, kind: str) -> None:
    """Read it with kfp's model, and refuse a member that the model does not have."""
    if kind == "object":
        return
    reader = api.ApiClient(api.Configuration())
    reader.deserialize(SimpleNamespace(data=json.dumps(value)), kind)
    _known(value, kind)


def _known(value: Any, kind: str) -> None:
    if kind.startswith("list["):
        for each in value:
            _known(each, kind[5:-1])
    elif (model := getattr(api, kind, None)) and isinstance(value, dict) and model.openapi_types:
        names = {told: name for name, told in model.attribute_map.items()}
        assert value.keys() <= names.keys(), (kind, value.keys() - names.keys())
        for key, inner in value.items():
            _known(inner, model.openapi_types[names[key]])
    elif model and not model.openapi_types:
        assert value in model.allowable_values, (kind, value)


@contextmanager
def kubeflow(token: str = "") -> Iterator[Kubeflow]:
    """An empty server on an ephemeral port."""
    stub = Kubeflow(token=token)
    server = make_server("127.0.0.1", 0, stub, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
