"""The endpoint over real HTTP: one server process for all tests of this file."""

import json
from contextlib import suppress
from http.client import HTTPConnection
from io import BytesIO

import httpx
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from tiny_models import SIZE, make_model, png

from imaging.manifest import HEADER_FIELDS, STATISTICS
from imaging.reading.pixels import DICOM, PNG, decode
from lineage.digest import tree_digest
from lineage.workspace import Workspace
from serving import app
from serving.config import TOKEN
from serving.local_endpoint import LocalEndpoint
from serving.predictor import Predictor

SECRET = "Zebedee"  # stands for all that must never come out


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Workspace(tmp_path_factory.mktemp("app") / "home")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    made = {"v1": make_model(folder / "1"), "v2": make_model(folder / "2", breaks_above=0.7)}
    return {name: (path, tree_digest(path)) for name, path in made.items()}


@pytest.fixture(scope="module")
def server(place):
    """The endpoint and a client that holds the token."""
    endpoint = LocalEndpoint(place, "chest")
    address = endpoint.start()
    token = place.secret(TOKEN).hex()
    with httpx.Client(
        base_url=f"http://{address.host}:{address.port}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
        trust_env=False,
    ) as client:
        yield client
    endpoint.stop()


@pytest.fixture
def served(server, models):
    """v1 alone serves."""
    path, digest = models["v1"]
    wanted = {"directory": str(path), "digest": digest, "version": "1", "share": 1.0}
    assert server.put("/variants/v1", json=wanted).status_code == 200
    assert server.delete("/variants/v2").status_code == 200
    return server


def ask(client, data, media_type=PNG, **headers):
    return client.post("/invocations", content=data, headers={"Content-Type": media_type} | headers)


def lines(place):
    files = sorted((place.endpoint("chest") / "captured").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def scan(**values):
    """A DICOM file full of identities."""
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    data.PatientName, data.PatientID, data.AccessionNumber = f"{SECRET}^Ann", SECRET, SECRET
    data.Modality, data.Manufacturer = "DX", "Acme"
    data.ManufacturerModelName, data.ViewPosition = f"{SECRET}^Ann", "PA"
    data.Rows = data.Columns = SIZE
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 7, 0, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelSpacing = [0.2, 0.2]
    data.PixelData = bytes(range(SIZE * SIZE))
    for name, value in values.items():
        setattr(data, name, value)
    file = BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_only_ping_is_open(server):
    bare = httpx.Client(base_url=server.base_url, trust_env=False)
    routes = ["GET /state", "PUT /shares", "PUT /variants/a", "DELETE /variants/a", "POST /stop"]
    for route in [*routes, "POST /invocations", "GET /docs", "GET /nothing"]:
        method, path = route.split()
        for token in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "wrong"}):
            assert bare.request(method, path, headers=token).status_code == 401, route
    assert bare.get("/ping").status_code in (200, 503)


def test_ping_says_whether_a_model_is_loaded(served):
    assert served.get("/ping").status_code == 200
    assert served.delete("/variants/v1").json()["variants"] == []
    assert served.get("/ping").status_code == 503
    assert ask(served, png(1)).status_code == 503


@pytest.mark.parametrize(("data", "media_type"), [(png(3), PNG), (scan(), DICOM)])
def test_answers_as_the_model_does_offline(served, models, data, media_type):
    path, digest = models["v1"]
    reply = ask(served, data, media_type)
    told = reply.json()
    offline = Predictor.load(path).predict(decode(data, media_type))
    assert reply.status_code == 200 and reply.headers["X-Model-Digest"] == digest
    assert told["score"] == pytest.approx(offline, abs=1e-7)
    assert told["label"] == ("nodule" if offline >= 0.5 else "normal")
    assert (told["variant"], told["model_digest"], told["threshold"]) == ("v1", digest, 0.5)


def test_captures_numbers_and_no_identity(served, place):
    before = len(lines(place))
    request_id = "7d9f6d0e-5b4a-4c3f-8e0a-0d6f1f4c9a11"
    told = ask(served, scan(), DICOM, **{"X-Request-Id": request_id}).json()
    (line,) = lines(place)[before:]
    fields = ["at", "request_id", "variant", "model_digest", "score", "latency_ms", "error", "tag"]
    assert list(line) == list(dict.fromkeys([*fields, *STATISTICS, *HEADER_FIELDS]))
    assert line["request_id"] == told["request_id"] == request_id
    assert (line["score"], line["error"], line["tag"]) == (told["score"], None, "live")
    assert (line["modality"], line["manufacturer"], line["rows"]) == ("DX", "Acme", SIZE)
    assert line["pixel_spacing_mm"] == pytest.approx(0.2)
    assert line["intensity_mean"] == pytest.approx(np.mean(range(64)) / 255, abs=1e-6)
    assert line["model_name"] is None  # spelt as a person's name
    assert SECRET not in json.dumps(line)
    assert ask(served, png(2), **{"X-Lightbox-Tag": "replay"}).status_code == 200
    assert lines(place)[-1]["tag"] == "replay"


def test_names_what_made_the_image_as_the_manifest_does(served, place):
    ask(served, scan(ManufacturerModelName="Wren 3 "), DICOM)
    assert lines(place)[-1]["scanner"] == "Acme Wren 3"
    assert lines(place)[-1]["bits_stored"] == 8
    ask(served, png(1))
    assert lines(place)[-1]["scanner"] is None
    assert (lines(place)[-1]["columns"], lines(place)[-1]["bits_stored"]) == (SIZE, 8)
    ask(served, scan(Manufacturer=None, PixelSpacing=None, ImagerPixelSpacing=[0.4, 0.4]), DICOM)
    assert lines(place)[-1]["scanner"] is None  # a name as the only part
    assert lines(place)[-1]["pixel_spacing_mm"] == pytest.approx(0.4)


def test_a_decoder_that_may_abort_is_not_used_on_strangers_images(served):
    jpeg_lossless = scan_of("1.2.840.10008.1.2.4.70")
    reply = ask(served, jpeg_lossless, DICOM)
    assert reply.status_code == 400 and "No decoder" in reply.json()["sentence"]


def scan_of(syntax):
    data = pydicom.dcmread(BytesIO(scan()))
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8" + bytes(30)])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    file = BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_bad_images_are_the_callers_fault_and_are_captured(served, place):
    good = scan()
    bad = [
        (b"", PNG),
        (b"GIF89a", PNG),
        (png(1)[:60], PNG),
        (png(1), DICOM),
        (good[:-20], DICOM),
        (good[:300], DICOM),
        (scan(SamplesPerPixel=3), DICOM),
        (scan(Rows=60000, Columns=60000), DICOM),
        (scan(PixelSpacing=None, RescaleSlope=None, Rows=0), DICOM),
        (scan(SpecificCharacterSet=SECRET, Rows=SIZE * 2), DICOM),
    ]
    before = len(lines(place))
    for data, media_type in bad:
        reply = ask(served, data, media_type)
        assert reply.status_code == 400, reply.text
        assert reply.json()["error"] == "bad_input" and reply.json()["sentence"].endswith(".")
        assert SECRET not in reply.text
    assert [line["error"] for line in lines(place)[before:]] == ["bad_input"] * len(bad)
    assert SECRET not in (place.endpoint("chest") / "server.log").read_text()


def test_what_is_wrong_at_the_door_is_told(served):
    assert ask(served, png(1), "text/plain").status_code == 415
    assert ask(served, png(1), **{"X-Request-Id": "ACC-12345"}).status_code == 400
    assert ask(served, png(1), **{"X-Lightbox-Tag": "test"}).status_code == 400
    mebibyte = bytes(2**20)
    chunked = (mebibyte for _ in range(app.MAX_BODY_BYTES // 2**20 + 2))
    with suppress(httpx.WriteError):  # it may hang up before it is told everything
        assert ask(served, chunked).status_code == 413
    announcing = HTTPConnection(served.base_url.host, served.base_url.port)
    announcing.putrequest("POST", "/invocations")
    for name, value in (*served.headers.items(), ("Content-Type", PNG)):
        announcing.putheader(name, value)
    announcing.putheader("Content-Length", str(app.MAX_BODY_BYTES + 1))
    announcing.endheaders()
    assert announcing.getresponse().status == 413
    announcing.close()
    assert ask(served, png(1)).status_code == 200


def test_a_failing_model_is_an_error_that_names_no_value(served, models, place):
    path, digest = models["v2"]
    wanted = {"directory": str(path), "digest": digest, "version": "2", "share": 1.0}
    assert served.put("/variants/v2", json=wanted).status_code == 200
    bright = scan(PixelData=b"\xf0" * SIZE * SIZE)
    reply = ask(served, bright, DICOM)
    assert reply.status_code == 500 and reply.json()["error"].startswith("failed:")
    assert (reply.headers["X-Variant"], reply.headers["X-Model-Digest"]) == ("v2", digest)
    assert lines(place)[-1]["error"] == reply.json()["error"]
    (v2,) = [v for v in served.get("/state").json()["variants"] if v["name"] == "v2"]
    assert v2["errors"] == 1


def test_what_cannot_be_recorded_is_not_answered(served, place):
    captured, aside = place.endpoint("chest") / "captured", place.endpoint("chest") / "aside"
    captured.rename(aside)
    captured.write_text("a file where the folder must be")
    reply = ask(served, png(1))
    captured.unlink()
    aside.rename(captured)
    assert reply.status_code == 503 and "score" not in reply.json()
    assert ask(served, png(1)).status_code == 200


def test_shares_always_sum_to_one(served, models):
    path, digest = models["v2"]
    wanted = {"directory": str(path), "digest": digest, "version": "2", "share": 0.25}
    assert shares(served.put("/variants/v2", json=wanted)) == {"v1": 0.75, "v2": 0.25}
    for wrong in ({"v1": 1.0}, {"v1": 0.9, "v2": 0.2}, {"v1": 1.5, "v2": -0.5}, {"v3": 1.0}, {}):
        assert served.put("/shares", json=wrong).status_code == 409
    assert served.delete("/variants/v1").status_code == 409
    assert shares(served.get("/state")) == {"v1": 0.75, "v2": 0.25}
    moved = served.put("/shares", json={"v1": 0.0, "v2": 1.0})
    assert shares(moved) == {"v1": 0.0, "v2": 1.0}
    assert shares(served.delete("/variants/v1")) == {"v2": 1.0}
    alone = served.put("/variants/v2", json=wanted)
    assert alone.status_code == 409 and "share must be 1" in alone.json()["sentence"]


@pytest.mark.parametrize("text", ['{"v1": NaN}', '{"v1": NaN, "v2": 1}', '{"v1": "P"}', "[", "[]"])
def test_shares_that_are_none_are_refused_and_not_repeated(served, text):
    reply = served.put("/shares", content=text.encode())
    assert reply.status_code in (409, 422) and "P" not in reply.json()["sentence"]
    assert shares(served.get("/state")) == {"v1": 1.0}


def test_a_share_just_above_one_can_be_restored(served):
    assert shares(served.put("/shares", json={"v1": 1.0000009})) == {"v1": 1.0}


def test_settings_have_no_room_for_a_large_body(served, models):
    path, digest = models["v2"]
    wanted = {"directory": str(path), "digest": digest, "version": "2", "share": float("nan")}
    reply = served.put("/variants/v2", content=json.dumps(wanted).encode())
    assert reply.status_code == 422 and "finite" in reply.json()["sentence"]
    for place in ("/variants/v2", "/shares"):
        assert served.put(place, content=(b" " * 2**16 for _ in range(3))).status_code == 413


def shares(reply):
    assert reply.status_code == 200, reply.text
    return {v["name"]: v["share"] for v in reply.json()["variants"]}


def test_the_same_image_or_request_meets_the_same_model(served, models):
    path, digest = models["v2"]
    wanted = {"directory": str(path), "digest": digest, "version": "2", "share": 0.5}
    served.put("/variants/v2", json=wanted)
    met = {seed: ask(served, png(seed)).json()["variant"] for seed in range(20)}
    assert set(met.values()) == {"v1", "v2"}
    assert met == {seed: ask(served, png(seed)).json()["variant"] for seed in range(20)}
    fixed = {"X-Request-Id": "7d9f6d0e-5b4a-4c3f-8e0a-0d6f1f4c9a11"}
    assert len({ask(served, png(s), **fixed).json()["variant"] for s in range(10)}) == 1


def test_routing_holds_shares_and_only_adds_to_a_growing_one(models):
    def routed(share):
        wanted = app.Wanted(directory=".", digest="0" * 64, version="1", share=share)
        other = wanted.model_copy(update={"share": 1 - share})
        table = (app.Loaded("v1", other, None), app.Loaded("v2", wanted, None))
        return {k for k in range(20_000) if app._route(table, f"request {k}").name == "v2"}

    small, large = routed(0.1), routed(0.5)
    assert len(small) / 20_000 == pytest.approx(0.1, abs=0.01)
    assert len(large) / 20_000 == pytest.approx(0.5, abs=0.015)
    assert small < large and routed(0.0) == set() and len(routed(1.0)) == 20_000
