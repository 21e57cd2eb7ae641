"""An endpoint that shares no disk with those who use it: a real server, spoken to by its URL."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tiny_models import make_model

from lineage.digest import tree_digest
from lineage.errors import BadInput, StepFailed
from lineage.workspace import Workspace
from serving.local_endpoint import LocalEndpoint
from serving.remote_endpoint import RemoteEndpoint, endpoint_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEndpoint]:
    endpoint = LocalEndpoint(Workspace(tmp_path_factory.mktemp("elsewhere")), "chest")
    endpoint.start()
    yield endpoint
    endpoint.stop()


@pytest.fixture
def remote(server: LocalEndpoint) -> RemoteEndpoint:
    return RemoteEndpoint(server.base_url(), server.bearer())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def test_a_model_is_sent_once_and_served(remote, server, model) -> None:
    digest = tree_digest(model)
    for _ in range(2):  # to send it again does no harm
        remote.deploy("a", model, digest, "1", 1.0)
    assert remote.served() == {digest: 1.0} == server.served()
    assert [variant.name for variant in remote.state()] == ["a"]
    kept = server.folder / "models"
    assert [path.name for path in kept.iterdir()] == [digest]
    remote.remove("a")


def test_files_of_another_digest_are_not_kept(remote, server, model) -> None:
    with pytest.raises(StepFailed, match="not of that digest; nothing was kept"):
        remote.deploy("b", model, "0" * 64, "1", 1.0)
    assert not (server.folder / "models" / ("0" * 64)).exists()
    assert not list((server.folder / "models").glob(".*"))


def hostile(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, target
        tar.addfile(entry)
    return packed.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        b"no tar",
        hostile("../outside"),
        hostile("/tmp/lightbox-outside"),
        hostile("link", tarfile.SYMTYPE, "/etc/passwd"),
        hostile("device", tarfile.CHRTYPE),
    ],
)
def test_a_hostile_body_leaves_nothing(remote, server, body: bytes) -> None:
    answer = httpx.put(
        f"{remote.url}/models/{'1' * 64}",
        content=body,
        headers={"Authorization": f"Bearer {remote.bearer()}"},
    )
    assert answer.status_code == 422
    assert not list((server.folder / "models").glob(".*"))
    assert not (server.folder / "models" / ("1" * 64)).exists()
    assert not Path("/tmp/lightbox-outside").exists()


def test_nobody_without_the_token_sends_a_model(remote) -> None:
    assert httpx.put(f"{remote.url}/models/{'1' * 64}", content=b"").status_code == 401
    assert RemoteEndpoint(remote.url, "0" * 64).served() is None


def test_a_name_that_is_no_digest_is_no_path(remote) -> None:
    answer = httpx.put(
        f"{remote.url}/models/..%2f..%2fx",
        content=b"",
        headers={"Authorization": f"Bearer {remote.bearer()}"},
    )
    assert answer.status_code in (404, 422)


def test_the_variable_decides_where(home, monkeypatch) -> None:
    assert isinstance(endpoint_of(home, "chest"), LocalEndpoint)
    monkeypatch.setenv("LIGHTBOX_ENDPOINT_URL", "http://127.0.0.1:9/")
    found = endpoint_of(home, "chest")
    assert isinstance(found, RemoteEndpoint)
    assert (found.url, found.served()) == ("http://127.0.0.1:9", None)
    assert found.bearer() not in repr(found)
    monkeypatch.setenv("LIGHTBOX_ENDPOINT_URL", "file:///etc/passwd")
    with pytest.raises(BadInput, match="no URL of http or https"):
        endpoint_of(home, "chest")
