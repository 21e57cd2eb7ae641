"""A real archive on loopback: Orthanc with its DICOMweb plugin, as Debian packages them."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
USER, SENDER = "reader", "SENDER"
START_S = 60


@dataclass(frozen=True)
class Orthanc:
    """Where it listens, and who may ask."""

    http_port: int
    dicom_port: int
    password: str

    @property
    def address(self) -> str:
        """Its DICOMweb root, as settings name it."""
        return f"dicomweb+http://127.0.0.1:{self.http_port}/dicom-web"

    def client(self) -> httpx.Client:
        """Of its own REST API."""
        base = f"http://127.0.0.1:{self.http_port}"
        return httpx.Client(base_url=base, auth=(USER, self.password), timeout=60)

    def empty(self) -> None:
        """Remove all that is in it."""
        with self.client() as client:
            for study in client.get("/studies").raise_for_status().json():
                client.delete(f"/studies/{study}").raise_for_status()


@contextmanager
def orthanc(folder: Path, most_answers: int = 50) -> Iterator[Orthanc]:
    """Run one with an empty archive, and end it; without it CI fails, and others skip.

    It answers with that many instances at most (0: all), and says nothing of the others.
    """
    if not shutil.which("Orthanc") or not Path(PLUGIN).exists():
        if os.environ.get("CI") == "true":
            pytest.fail("Orthanc is not installed, see .ci/orthanc, and CI must not skip")
        pytest.skip("Orthanc is not installed; .ci/orthanc does it")
    password = os.urandom(12).hex()
    served = Orthanc(_free_port(), _free_port(), password)
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [PLUGIN],
        "RemoteAccessAllowed": False,
        "HttpPort": served.http_port,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: password},
        "DicomPort": served.dicom_port,
        "DicomAlwaysAllowStore": False,
        "DicomModalities": {"sender": [SENDER, "127.0.0.1", 104]},
        "DicomCheckModalityHost": True,
        "LimitFindInstances": most_answers,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "HttpsVerifyPeers": True,
        "ConcurrentJobs": 1,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            ["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait(served, process, folder / "orthanc.log")
        yield served
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(served: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            with served.client() as client:
                client.get("/dicom-web/studies").raise_for_status()
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    pytest.fail(f"Orthanc did not start:\n{log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
