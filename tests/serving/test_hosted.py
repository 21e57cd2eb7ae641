"""What SageMaker asks of a hosting container, over HTTP, of a process started as it starts one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from http.client import HTTPConnection

import httpx
import pytest
from tiny_models import make_model, png

from imaging.reading.pixels import PNG, decode
from lineage.digest import tree_digest
from serving import app
from serving.predictor import Predictor


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("hosted") / "model")


@contextmanager
def hosted(model, digest, **variables):
    """The process, its address and what it says, in an empty folder of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LIGHTBOX_")}
    environment |= {"SAGEMAKER_BIND_TO_PORT": str(port), **variables}
    if digest is not None:
        environment["LIGHTBOX_MODEL_DIGEST"] = digest
    process = subprocess.Popen(
        [sys.executable, "-m", "components", "serve", "--model", str(model)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def ready(process, address):
    """A client, once it answers."""
    client = httpx.Client(base_url=address, trust_env=False, timeout=60)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        try:
            assert client.get("/ping").status_code == 200
            return client
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"it never answered: {process.communicate(timeout=5)[0]}")


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    """Where the client's server may leave something."""
    return tmp_path_factory.mktemp("tmp")


@pytest.fixture(scope="module")
def client(model, temporary):
    with hosted(model, tree_digest(model), TMPDIR=str(temporary)) as (process, address):
        yield ready(process, address)


def ask(client, data, media_type=PNG):
    return client.post("/invocations", content=data, headers={"Content-Type": media_type})


def test_answers_without_a_token_and_says_which_model_answered(client, model):
    reply = ask(client, png(3))
    assert reply.status_code == 200
    assert reply.json()["score"] == pytest.approx(
        Predictor.load(model).predict(decode(png(3), PNG))
    )
    digest = tree_digest(model)
    assert reply.json()["model_digest"] == reply.headers["X-Model-Digest"] == digest


def test_nobody_manages_it_by_http(client):
    routes = ["GET /state", "PUT /shares", "PUT /variants/a", "DELETE /variants/a", "POST /stop"]
    for route in [*routes, "GET /docs", "GET /openapi.json"]:
        method, path = route.split()
        assert client.request(method, path).status_code == 404, route
    assert ask(client, png(1)).status_code == 200


def test_the_door_s_rules_are_those_of_the_endpoint(client):
    assert ask(client, b"a,b\n1,2\n", "text/csv").status_code == 415
    assert ask(client, b"GIF89a").status_code == 400
    announcing = HTTPConnection(client.base_url.host, client.base_url.port)
    announcing.putrequest("POST", "/invocations")
    announcing.putheader("Content-Type", PNG)
    announcing.putheader("Content-Length", str(app.MAX_BODY_BYTES + 1))
    announcing.endheaders()
    assert announcing.getresponse().status == 413
    announcing.close()


def test_what_the_registry_did_not_record_is_never_opened(tmp_path, model):
    changed = make_model(tmp_path / "model")
    (changed / "model.json").write_text("{ not even JSON")
    with hosted(changed, tree_digest(model)) as (process, _):
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and "changed after it was recorded" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("digest", [None, "latest"])
def test_without_a_digest_it_refuses_to_guess(model, digest):
    with hosted(model, digest) as (process, _):
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and said.startswith("LIGHTBOX_MODEL_DIGEST must be")


def test_numbers_are_not_kept_by_default(client, temporary):
    assert ask(client, png(5)).status_code == 200
    assert [p.name for p in temporary.glob("lightbox-*/*")] == ["state.json"]


def test_numbers_are_kept_where_somebody_wants_them_and_it_ends_when_told(tmp_path, model):
    folder = tmp_path / "captured"
    variables = {"TMPDIR": str(tmp_path), "LIGHTBOX_CAPTURE_FOLDER": str(folder)}
    with hosted(model, tree_digest(model), **variables) as (process, address):
        answered = ask(ready(process, address), png(5)).json()
        (file,) = folder.iterdir()
        (line,) = map(json.loads, file.read_text().splitlines())
        assert (line["request_id"], line["score"]) == (answered["request_id"], answered["score"])
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "")
    assert not list(tmp_path.glob("lightbox-*"))
