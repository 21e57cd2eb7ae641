"""Against a real Orthanc; its answers are spoiled by a proxy where an archive should be ill."""

import itertools
import json
import os
import ssl
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pydicom
import pytest
import requests
from dicomweb_client import DICOMwebClient
from orthanc import USER

from imaging.incoming import dicomweb
from imaging.incoming.dicomweb import DicomWeb
from imaging.incoming.mirror import Again, mirror, patiently, state_beside
from imaging.incoming.remote import open_origin
from lineage.errors import BadInput, StepFailed


def fetch(address: str, folder: Path):
    return mirror(open_origin(address), address, folder, state_beside(folder, "fetched"))


def instances(folder: Path | list[Path]) -> dict[str, pydicom.Dataset]:
    files = folder.iterdir() if isinstance(folder, Path) else folder
    found = [pydicom.dcmread(file) for file in files]
    return {str(dataset.SOPInstanceUID): dataset for dataset in found}


def test_every_instance_comes_as_the_archive_keeps_it(archive, phantoms, sent, tmp_path) -> None:
    assert set(sent(archive.dicom_port, phantoms)) == {0}
    change = fetch(archive.address, tmp_path / "scans")
    assert (len(change.new), change.kept, change.gone) == (len(phantoms), 0, ())
    before, after = instances(phantoms), instances(tmp_path / "scans")
    assert before == after
    syntaxes = {uid: d.file_meta.TransferSyntaxUID for uid, d in before.items()}
    assert syntaxes == {uid: d.file_meta.TransferSyntaxUID for uid, d in after.items()}
    assert len(set(syntaxes.values())) == 2
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "scans").iterdir())
    with archive.client() as client:  # byte by byte what its own interface gives
        for file in client.get("/instances").json()[:5]:
            kept = client.get(f"/instances/{file}/file").content
            assert kept in [path.read_bytes() for path in (tmp_path / "scans").iterdir()]


def test_only_what_is_new_comes_and_what_is_gone_goes(archive, phantoms, tmp_path) -> None:
    """Stored by another client, over STOW-RS."""
    session = requests.Session()
    session.auth = (USER, archive.password)
    other = DICOMwebClient(archive.address.removeprefix("dicomweb+"), session)
    other.store_instances([pydicom.dcmread(file) for file in phantoms[:10]])
    fetch(archive.address, tmp_path / "scans")
    looks = {file: file.stat() for file in (tmp_path / "scans").iterdir()}
    other.store_instances([pydicom.dcmread(file) for file in phantoms[10:14]])
    with archive.client() as client:
        gone = client.get("/instances").json()[0]
        client.delete(f"/instances/{gone}").raise_for_status()
    change = fetch(archive.address, tmp_path / "scans")
    assert (len(change.gone), change.kept) in ((1, 9), (0, 10))  # an old one, or a new one
    left = {file: look for file, look in looks.items() if file.exists()}
    assert {file: file.stat().st_ino for file in left} == {f: s.st_ino for f, s in left.items()}
    assert len(list((tmp_path / "scans").iterdir())) == 13


def test_a_study_a_series_and_a_query_are_addresses(archive, phantoms, sent, tmp_path) -> None:
    sent(archive.dicom_port, phantoms)
    one = pydicom.dcmread(phantoms[0])
    study = f"{archive.address}/studies/{one.StudyInstanceUID}"
    known = instances(phantoms).values()
    of_study = {d.SOPInstanceUID for d in known if d.StudyInstanceUID == one.StudyInstanceUID}
    of_day = {d.SOPInstanceUID for d in known if d.StudyDate == one.StudyDate}
    for number, (address, expected) in enumerate(
        {
            study: of_study,
            f"{study}/series/{one.SeriesInstanceUID}": of_study,
            f"{archive.address}?StudyDate={one.StudyDate}&Modality=DX": of_day,
            f"{archive.address}?SOPInstanceUID={one.SOPInstanceUID}": {one.SOPInstanceUID},
        }.items()
    ):
        fetch(address, tmp_path / f"{number}")
        assert instances(tmp_path / f"{number}").keys() == expected
    with pytest.raises(BadInput, match="finds no instance"):
        fetch(f"{archive.address}?Modality=XX", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_small_pages_are_asked_for_until_none_is_left(
    archive, phantoms, sent, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(dicomweb, "PAGE", 7)
    sent(archive.dicom_port, phantoms[:30])
    assert len(fetch(archive.address, tmp_path / "scans").new) == 30


def test_an_archive_that_cuts_off_its_answers_loses_no_scan(
    archive, phantoms, sent, spoiled, tmp_path
) -> None:
    """Orthanc is set to answer with 50 instances, and says nothing of the others."""
    sent(archive.dicom_port, phantoms)
    root = archive.address.removeprefix("dicomweb+")
    with archive.client() as client:
        found = client.get(f"{root}/instances", params={"limit": 1000}).json()
        assert len(found) < len(phantoms)
    assert len(fetch(archive.address, tmp_path / "scans").new) == len(phantoms)

    def always_short(proxy, answer) -> bool:
        if "/instances?" not in proxy.path:
            return False
        proxy.hand_on(200, json.dumps(answer.json()[1:]).encode(), "application/dicom+json")
        return True

    with pytest.raises(StepFailed, match=r"counts \d instances in a series, and lists \d"):
        fetch(spoiled(archive.address, always_short), tmp_path / "short")
    assert not (tmp_path / "short").exists()


def test_the_archive_says_itself_that_it_holds_back(archive, phantoms, sent, spoiled) -> None:
    sent(archive.dicom_port, phantoms[:3])

    def warned(proxy, answer) -> bool:
        kind = answer.headers["content-type"]
        proxy.hand_on(200, answer.content, kind, warning='299 archive "there are more"')
        return True

    with pytest.raises(StepFailed, match="holds back a part"):
        DicomWeb(spoiled(archive.address, warned)).listing()


def test_an_offset_that_is_not_heeded_is_noticed(archive, phantoms, sent, spoiled) -> None:
    sent(archive.dicom_port, phantoms[:3])
    first = {}

    def same_page(proxy, answer) -> bool:
        if "/instances?" not in proxy.path:
            return False
        proxy.hand_on(200, first.setdefault("page", answer.content), "application/dicom+json")
        return True

    with pytest.raises(Again, match="pages overlap"):
        DicomWeb(spoiled(archive.address, same_page)).listing()


def busy(proxy, answer) -> bool:
    proxy.hand_on(503, b"", "", retry_after="0")
    return True


def too_many(proxy, answer) -> bool:
    proxy.hand_on(429, b"", "", retry_after=formatdate(usegmt=True))
    return True


def reset(proxy, answer) -> bool:
    proxy.close_connection = True
    return True


def truncated(proxy, answer) -> bool:
    """With the length that was announced, or without any."""
    proxy.send_response(200)
    proxy.send_header("content-type", answer.headers["content-type"])
    proxy.send_header("content-length", str(len(answer.content)))
    proxy.end_headers()
    proxy.wfile.write(answer.content[: len(answer.content) // 2])
    proxy.close_connection = True
    return True


def truncated_in_good_form(proxy, answer) -> bool:
    half = answer.content[: len(answer.content) // 2]
    proxy.hand_on(200, half, answer.headers["content-type"])
    return True


FAULTS = (busy, too_many, reset, truncated, truncated_in_good_form)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_that_passes_costs_no_scan(
    archive, phantoms, sent, spoiled, tmp_path, monkeypatch, fault
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)  # short pauses
    sent(archive.dicom_port, phantoms[:8])
    counter = itertools.count()

    def now_and_then(proxy, answer) -> bool:
        wado = "/instances/" in proxy.path
        return wado and next(counter) % 3 == 0 and fault(proxy, answer)

    fetch(spoiled(archive.address, now_and_then), tmp_path / "scans")
    assert instances(tmp_path / "scans") == instances(phantoms[:8])
    assert next(counter) > 8
    assert not list(state_beside(tmp_path / "scans", "fetched").glob("*.part"))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_that_stays_stores_nothing_of_that_scan(
    archive, phantoms, sent, spoiled, tmp_path, monkeypatch, fault
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)
    sent(archive.dicom_port, phantoms[:8])
    ill = str(pydicom.dcmread(phantoms[0]).SOPInstanceUID)

    def one(proxy, answer) -> bool:
        return f"/instances/{ill}" in proxy.path and fault(proxy, answer)

    address = spoiled(archive.address, one)
    with pytest.raises(StepFailed, match="1 of 8 files did not come"):
        fetch(address, tmp_path / "scans")
    assert instances(tmp_path / "scans").keys() == instances(phantoms[1:8]).keys()


def test_another_instance_than_asked_for_and_endless_ones_are_refused(
    archive, phantoms, sent, spoiled, tmp_path, monkeypatch
) -> None:
    sent(archive.dicom_port, phantoms[:2])
    first = {}

    def same_instance(proxy, answer) -> bool:
        if "/instances/" not in proxy.path:
            return False
        kind = answer.headers["content-type"]
        proxy.hand_on(200, *first.setdefault("answer", (answer.content, kind)))
        return True

    with pytest.raises(StepFailed, match="another instance came"):
        fetch(spoiled(archive.address, same_instance), tmp_path / "same")

    def two_parts(proxy, answer) -> bool:
        if "/instances/" not in proxy.path:
            return False
        body, kind = answer.content, answer.headers["content-type"]
        twice = body.rstrip().removesuffix(b"--") + b"\r\n" + body[body.find(b"Content-") :]
        proxy.hand_on(200, twice, kind)
        return True

    with pytest.raises(StepFailed, match="several parts"):
        fetch(spoiled(archive.address, two_parts), tmp_path / "two")
    monkeypatch.setattr(dicomweb, "MAX_INSTANCE_BYTES", 1000)
    with pytest.raises(StepFailed, match="an instance is larger than"):
        fetch(archive.address, tmp_path / "large")
    assert not list((tmp_path / "large").iterdir())


def test_who_may_not_ask_is_told_how_to(archive, monkeypatch) -> None:
    monkeypatch.setenv("LIGHTBOX_DICOMWEB_PASSWORD", "wrong")
    with pytest.raises(BadInput, match="answers 401: say who asks by LIGHTBOX_DICOMWEB_TOKEN"):
        DicomWeb(archive.address).listing()
    with pytest.raises(BadInput, match="DICOMweb root"):
        monkeypatch.setenv("LIGHTBOX_DICOMWEB_PASSWORD", archive.password)
        DicomWeb(archive.address.replace("dicom-web", "app")).listing()


def test_nobody_listens(monkeypatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)
    origin = DicomWeb("dicomweb+http://127.0.0.1:9/dicom-web")
    with pytest.raises(
        StepFailed, match=r"127\.0\.0\.1:9/dicom-web: ConnectError \(.*refused\), 6 times in a row"
    ):
        patiently(origin.listing)


class Guarded(BaseHTTPRequestHandler):
    """A server of tokens that expire at once, and an archive that takes the newest only."""

    asked: list[str]
    tokens: itertools.count

    def do_POST(self) -> None:
        told = self.rfile.read(int(self.headers["content-length"]))
        assert told == b"grant_type=client_credentials"
        self.asked.append(self.headers["authorization"])
        body = json.dumps({"access_token": f"t{next(self.tokens)}", "expires_in": 1}).encode()
        self.answer(200, body)

    def do_GET(self) -> None:
        self.asked.append(self.headers["authorization"])
        self.answer(200, b"[]")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def guarded():
    handler = type("Handler", (Guarded,), {"asked": [], "tokens": itertools.count()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, handler.asked
    server.shutdown()
    server.server_close()


def test_tokens_given_and_tokens_for_a_secret(guarded, monkeypatch) -> None:
    port, asked = guarded
    address = f"dicomweb+http://127.0.0.1:{port}"
    monkeypatch.setenv("LIGHTBOX_DICOMWEB_TOKEN", "abc")
    with pytest.raises(BadInput, match="no instance"):
        DicomWeb(address).listing()
    assert set(asked) == {"Bearer abc"}
    asked.clear()
    monkeypatch.setenv("LIGHTBOX_DICOMWEB_TOKEN_URL", f"http://127.0.0.1:{port}/token")
    monkeypatch.setenv("LIGHTBOX_DICOMWEB_CLIENT_ID", "me")
    monkeypatch.setenv("LIGHTBOX_DICOMWEB_CLIENT_SECRET", "hidden")
    with pytest.raises(BadInput, match="no instance"):
        DicomWeb(address).listing()
    assert asked == ["Basic bWU6aGlkZGVu", "Bearer t0", "Basic bWU6aGlkZGVu", "Bearer t1"]
    monkeypatch.setenv("LIGHTBOX_DICOMWEB_TOKEN_URL", "http://tokens.example.org/token")
    with pytest.raises(BadInput, match="must be https"):
        DicomWeb(address).listing()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("dicomweb+https://me:hidden@pacs.example.org/rs", "a password in an address is read"),
        ("dicomweb+http://pacs.example.org/rs", "http sends scans and passwords for all to read"),
        ("dicomweb+https://pacs.example.org/rs?limit=5", "limit is for us to say"),
        ("dicomweb+https://pacs.example.org/rs?StudyDte=2024", "key 1 .*; did you mean StudyDate"),
        (
            "dicomweb+https://pacs.example.org/rs?Rows=5&hidden",
            "key 2 of the query is no attribute",
        ),
        ("dicomweb+https://pacs.example.org/rs?0010,0020=hidden", "key 1 of the query is no"),
        ("dicomweb+https://pacs.example.org/rs?patientid=hidden", "did you mean PatientID"),
        ("dicomweb+https:///rs", "expected dicomweb"),
        ("gopher://pacs.example.org/rs", "gopher://… is no address that scans are read from"),
    ],
)
def test_addresses_that_are_refused(address: str, told: str) -> None:
    with pytest.raises(BadInput, match=told) as refused:
        open_origin(address)
    assert "hidden" not in str(refused.value)


def test_plain_http_elsewhere_is_for_a_person_to_allow(monkeypatch) -> None:
    monkeypatch.setenv("LIGHTBOX_DICOMWEB_PLAIN", "1")
    assert DicomWeb("dicomweb+http://pacs.example.org/rs").searched == "http://pacs.example.org/rs"


def test_a_certificate_of_nobody_is_refused_and_named_it_is_taken(certificate, monkeypatch) -> None:
    pem, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("H", (Guarded,), {"asked": []}))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"dicomweb+https://localhost:{server.server_port}/rs"
    try:
        with pytest.raises(BadInput, match="SSL_CERT_FILE"):
            DicomWeb(address).listing()
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        with pytest.raises(BadInput, match="no instance"):
            DicomWeb(address).listing()
    finally:
        server.shutdown()
        server.server_close()


def test_messages_do_not_repeat_the_query() -> None:
    origin = DicomWeb("dicomweb+https://pacs.example.org/rs?PatientID=MRN-7")
    assert origin.place == "pacs.example.org/rs"
    assert origin.identifying() == ["PatientID"]
    nested = DicomWeb("dicomweb+https://pacs.example.org/rs?RequestAttributesSequence.00080050=7")
    assert nested.identifying() == ["00080050"]
    assert os.environ.get("LIGHTBOX_DICOMWEB_TOKEN") is None
