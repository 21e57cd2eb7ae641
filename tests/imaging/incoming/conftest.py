"""An archive that runs, phantoms to send to it, and a proxy that spoils its answers."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pydicom
import pytest
from orthanc import SENDER, USER, Orthanc, orthanc
from senders import associated

from imaging.phantom import SCANNERS, write_cohort

Spoil = Callable[["Proxy", httpx.Response], bool]


@pytest.fixture(scope="session")
def running_archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as served:
        yield served


@pytest.fixture
def archive(running_archive: Orthanc, monkeypatch: pytest.MonkeyPatch) -> Orthanc:
    """Orthanc with nothing in it, and the right to ask it."""
    running_archive.empty()
    monkeypatch.setenv("LIGHTBOX_DICOMWEB_USER", USER)
    monkeypatch.setenv("LIGHTBOX_DICOMWEB_PASSWORD", running_archive.password)
    return running_archive


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Radiographs, compressed and not; their labels lie beside their folder."""
    folder = tmp_path_factory.mktemp("cohort") / "scans"
    write_cohort(folder, seed=5, patients=40, scanners=SCANNERS)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def send(port: int, files: list[Path], called: str = "ANY-SCP") -> list[int]:
    """Send files by C-STORE; the status of each, 0 being success."""
    from pynetdicom import AE

    entity = AE(SENDER)
    for file in files:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        context = (header.SOPClassUID, header.file_meta.TransferSyntaxUID)
        if context not in [
            (c.abstract_syntax, c.transfer_syntax[0]) for c in entity.requested_contexts
        ]:
            entity.add_requested_context(*context)
    association = associated(entity, port, ae_title=called)
    assert association.is_established
    answers = [association.send_c_store(file) for file in files]
    association.release()
    return [answer.get("Status", -1) for answer in answers]


@pytest.fixture(scope="session")
def sent() -> Callable[..., list[int]]:
    return send


class Proxy(BaseHTTPRequestHandler):
    """Hands on what an archive answers, or spoils it."""

    target = ""
    spoil: Spoil = staticmethod(lambda handler, answer: False)
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        headers = {
            k: v for k, v in self.headers.items() if k.lower() in ("accept", "authorization")
        }
        answer = httpx.get(self.target + self.path, headers=headers, timeout=30)
        if not self.spoil(self, answer):
            self.hand_on(answer.status_code, answer.content, answer.headers["content-type"])

    def hand_on(self, status: int, body: bytes, kind: str = "", **headers: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def spoiled() -> Iterator[Callable[[str, Spoil], str]]:
    """Put a proxy before an address; the proxy's address."""
    servers = []

    def start(address: str, spoil: Spoil) -> str:
        scheme, _, rest = address.removeprefix("dicomweb+").partition("://")
        host, _, path = rest.partition("/")
        handler = type(
            "Spoiling", (Proxy,), {"target": f"{scheme}://{host}", "spoil": staticmethod(spoil)}
        )
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"dicomweb+http://127.0.0.1:{server.server_port}/{path}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def certificate(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A certificate for localhost that nobody else has signed, and its key; parameter: its days."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=getattr(request, "param", 1)))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    private = (form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "tls.pem").write_bytes(made.public_bytes(form))
    (tmp_path / "tls.key").write_bytes(key.private_bytes(*private))
    return tmp_path / "tls.pem", tmp_path / "tls.key"
