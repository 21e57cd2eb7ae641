"""AWS on loopback: moto's server, and in front of it what moto does not have.

moto keeps pipelines, executions, buckets and schedules, but runs nothing: its executions are
Succeeded from the start, and it lists no steps. So the steps' states come from a play that a test
writes; every answer is checked against botocore's own model of the API. Start keeps its promise
that one token is one execution, and Update numbers the versions, as the API's reference says.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from moto.moto_api._internal.models import moto_api_backend
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Request, Response

MODEL = botocore.session.get_session().get_service_model("sagemaker")
BEGAN = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Frame:
    """How an execution looks at one moment: its status, and each step's."""

    status: str
    steps: dict[str, str | dict[str, Any]]  # a status, or members of the API's own answer
    reason: str = ""


@dataclass
class Aws:
    """What tests see of the server."""

    url: str = ""
    play: list[Frame] = field(default_factory=list)  # one frame per listing; the last one stays
    refused: list[int] = field(default_factory=list)  # statuses of the next answers, before others
    started: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._tokens: dict[str, str] = {}
        self._versions = 0
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if not target.startswith("SageMaker."):
            return self._moto(environ, start_response)
        with self._lock:
            return self._answer(target.partition(".")[2], environ)(environ, start_response)

    def _answer(self, operation: str, environ: dict[str, Any]) -> Response:
        request = Request(environ)
        asked = json.loads(request.get_data(cache=True) or b"{}")
        if self.refused:
            body = {"__type": "InternalFailure", "message": "not now"}
            return Response(json.dumps(body), self.refused.pop(0), content_type=JSON)
        match operation:
            case "ListPipelineExecutionSteps":
                return _json(operation, {"PipelineExecutionSteps": self._steps()})
            case "StopPipelineExecution":
                self.stopped.append(asked["PipelineExecutionArn"])
                return _json(operation, {"PipelineExecutionArn": asked["PipelineExecutionArn"]})
            case "StartPipelineExecution" if asked["ClientRequestToken"] in self._tokens:
                arn = self._tokens[asked["ClientRequestToken"]]
                return _json(operation, {"PipelineExecutionArn": arn})
        status, told = self._ask_moto(environ, request)
        if status == 200 and operation == "StartPipelineExecution":
            self.started.append(asked)
            self._tokens[asked["ClientRequestToken"]] = told["PipelineExecutionArn"]
        if status == 200 and operation == "UpdatePipeline":
            self._versions += 1
            told["PipelineVersionId"] = self._versions
        if status == 200 and operation == "DescribePipelineExecution" and self.play:
            told["PipelineExecutionStatus"] = self.play[0].status
            told["FailureReason"] = self.play[0].reason
        return Response(json.dumps(told), status, content_type=JSON)

    def _ask_moto(self, environ: dict[str, Any], request: Request) -> tuple[int, dict[str, Any]]:
        body = request.get_data()
        environ = {**environ, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        chunks, status, _ = run_wsgi_app(self._moto, environ, buffered=True)
        return int(status.split()[0]), json.loads(b"".join(chunks) or b"{}")

    def _steps(self) -> list[dict[str, Any]]:
        frame = self.play.pop(0) if len(self.play) > 1 else self.play[0]
        steps = []
        for i, (name, told) in enumerate(frame.steps.items()):
            began = BEGAN + timedelta(minutes=i)
            step = {"StepName": name, "StartTime": began, "AttemptCount": 1}
            step |= {"StepStatus": told} if isinstance(told, str) else told
            if step["StepStatus"] in ("Succeeded", "Failed", "Stopped"):
                step["EndTime"] = began + timedelta(seconds=30)
            steps.append(step)
        return steps


JSON = "application/x-amz-json-1.1"


def _json(operation: str, answer: dict[str, Any]) -> Response:
    """An answer that the API's model allows."""
    report = ParamValidator().validate(answer, MODEL.operation_model(operation).output_shape)
    assert not report.has_errors(), report.generate_report()
    return Response(json.dumps(answer, default=datetime.timestamp), content_type=JSON)


@contextmanager
def aws(patch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """A fresh account on an ephemeral port, which boto3 takes for AWS."""
    stub = Aws()
    server = make_server("127.0.0.1", 0, stub, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        moto_api_backend.reset()
        for name, value in {
            "AWS_ENDPOINT_URL": stub.url,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
