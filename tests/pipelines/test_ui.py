"""MLflow's real server, really started, asked over the loopback interface, and stopped."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from lineage.errors import BadInput
from pipelines.cli import cli
from pipelines.ui import is_server, serve, without_password
from registry.mlflow_registry import register_model


@pytest.fixture
def registered(home, tmp_path: Path):
    for name in ("model", "verdict"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.json").write_text('{"said": "pass"}')
    tags = {"verdict": "pass", "reason": "good"}
    return register_model("toy", tmp_path / "model", tags, {"verdict": tmp_path / "verdict"})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_shows_the_workspace_to_one_browser_until_it_is_stopped(registered, number) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "ui", "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        told = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/\?key=\S+", told)[0]
        with httpx.Client(base_url=address.partition("?")[0], trust_env=False, timeout=60) as one:
            assert one.get("/").status_code == one.get("/?key=guess").status_code == 401
            assert one.get(address).headers["location"] == "/#/experiments"
            assert "<title>MLflow</title>" in one.get("/").text

            found = one.get("/ajax-api/2.0/mlflow/registered-models/search").json()
            assert [model["name"] for model in found["registered_models"]] == ["toy"]
            asked = {"path": "assessment-1/verdict/verdict.json", "run_uuid": registered.run_id}
            assert one.get("/get-artifact", params=asked).json() == {"said": "pass"}

            # What runs commands here, or tells somebody elsewhere.
            for route in ("assistant/config", "assistant/sessions"):
                assert one.get(f"/ajax-api/3.0/mlflow/{route}").status_code == 404
            told = one.get("/ajax-api/3.0/mlflow/ui-telemetry").json()
            assert told["disable_ui_telemetry"] is True

            # Another site's name that leads here, another site's page, a frame around ours.
            cookie = {"cookie": "; ".join(f"{k}={v}" for k, v in one.cookies.items())}
            assert one.get("/", headers={"host": "evil.example", **cookie}).status_code == 403
            search = "/api/2.0/mlflow/registered-models/create"
            foreign = {"origin": "http://evil.example"}
            assert one.post(search, json={"name": "x"}, headers=foreign).status_code == 403
            assert one.get("/").headers["x-frame-options"] == "DENY"

            assert httpx.get(address, trust_env=False).status_code == 401  # the key is used up
        threads = Path(f"/proc/{process.pid}/task").glob("*/children")
        assert not any(
            children.read_text() for children in threads
        )  # so nothing can be left behind, not even by kill -9
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
    assert process.stderr.read() == ""
    port = int(address.split(":")[2].partition("/")[0])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_before_the_first_run_there_is_nothing_to_show(home) -> None:
    with pytest.raises(BadInput, match="`lightbox run CONFIG` changes that"):
        serve(home, 0, browser=False, tell=print)
    assert not home.home.exists()


def test_a_port_that_is_taken(registered, home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(BadInput, match=r"port \d+: Address already in use; .* --port"):
            serve(home, other.getsockname()[1], browser=False, tell=print)


def test_a_server_s_address_is_told_without_its_password(home, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ada:geheim@ml.example:8443/a?token=geheim")
    told = CliRunner().invoke(cli, ["ui"], standalone_mode=False).output
    assert told == "MLflow runs elsewhere: https://ml.example:8443/a\n"


def test_what_counts_as_a_server() -> None:
    assert is_server("arn:aws:sagemaker:eu-central-1:1:mlflow-tracking-server/x")
    assert not is_server("sqlite:////w/mlflow.db") and not is_server("postgresql://u:p@db/mlflow")
    assert without_password("postgresql://u:p@db/mlflow") == "postgresql://db/mlflow"
