"""Shared by all tests: a workspace of their own, and the shared real data where it is at hand."""

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from lineage import telemetry
from lineage.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
telemetry.off()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Where tests run side by side, a file's run in one process, for they share fixtures.

    So do all that start containers: an engine that one has started ends with it. (xdist's own
    groups have no effect since pytest 9.2 gives nodes their names in another way.)
    """

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            containers = ("tests/conformance/", "tests/containers/")
            return "containers" if file.startswith(containers) else str(file)

    return Scheduling(config, log)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty workspace that `lineage.workspace.workspace()` answers with."""
    monkeypatch.setenv("LIGHTBOX_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Workspace(tmp_path / "home")


@pytest.fixture
def nested(tmp_path: Path) -> Iterator[Path]:
    """The deepest of 1,100 folders, each within the other: more than Python calls itself."""
    deepest = f"{tmp_path}{'/f' * 1100}"  # not by a Path, which calls itself for each part
    subprocess.run(["mkdir", "-p", deepest], check=True)
    yield Path(deepest)
    subprocess.run(["rm", "-r", tmp_path / "f"], check=True)  # pytest calls itself, too


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real radiographs and odd DICOM, kept beside the repository; never part of it."""
    path = Path(os.environ.get("LIGHTBOX_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"LIGHTBOX_TEST_DATA: {path} does not exist, and CI must not skip")
        pytest.skip("LIGHTBOX_TEST_DATA is not at hand")
    return path


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """AWS's services as moto plays them, on loopback; its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty AWS account that boto3 speaks to by real HTTP; the server's address."""
    import boto3
    import httpx

    for name, value in {
        "AWS_ENDPOINT_URL": moto_server,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    httpx.post(f"{moto_server}/moto-api/reset").raise_for_status()
    boto3.DEFAULT_SESSION = None  # it would remember another test's settings
    return moto_server
