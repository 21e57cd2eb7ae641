"""`lightbox deidentify` and the audited way back, on drawn scans."""

import hashlib
import json
import stat
import subprocess
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from imaging.deidentification import ocr
from lineage.errors import BadInput
from lineage.workspace import Workspace
from pipelines.commands.deidentify import deidentify, reidentify
from registry import audit_log

NAME, MRN, UID = "Quernstein^Adalbert", "MRN-0012345", "1.2.826.0.1.3680043.9.7"


def scan(path: Path, number: int) -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = ComputedRadiographyImageStorage, "CR"
    dataset.SOPInstanceUID = f"{UID}.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{UID}.9.1", f"{UID}.9.2"
    dataset.PatientName, dataset.PatientID, dataset.PatientSex = NAME, MRN, "F"
    dataset.StudyDate, dataset.AccessionNumber = "20190305", ""
    dataset.Rows = dataset.Columns = 8
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes((i * 7 + number) % 256 for i in range(64))
    dataset["PixelData"].VR = "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for number in (1, 2):
        scan(folder / f"Quernstein_{number}.dcm", number)
    (folder / "readme").write_text("no image")
    return folder


def done(command: object, *words: str | Path) -> Result:
    result = CliRunner().invoke(command, [str(word) for word in words], standalone_mode=False)  # type: ignore[arg-type]
    if result.exception:
        raise result.exception
    return result


def test_a_folder_comes_out_clean_with_a_page(home: Workspace, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = done(deidentify, scans, out)
    assert "2 of 3 files de-identified and checked, 1 held back" in told.output
    assert "Not Safe Harbor: `dates: modified`" in told.output
    assert "A key was made, and only you can read it" in told.output
    key = home.home / "secrets" / "pseudonym.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    written = sorted(out.rglob("*.dcm"))
    assert len(written) == 2
    assert written[0].stem == pydicom.dcmread(written[0]).SOPInstanceUID
    page = (out / "deidentification.html").read_text()
    assert "2 of 3 files are de-identified" in page and "not_an_image" in page
    assert "Text in the pixels was masked in 0 files." in page
    assert home.fingerprint("pseudonym.key") in page  # tells which deliveries can be joined
    sums = hashlib.sha256((out / "SHA256SUMS").read_bytes()).hexdigest()
    (entry,) = audit_log.entries(f"delivery:{sums}")
    assert sums in page and entry.action == "deidentified" and entry.new["written"] == 2
    for path in out.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for secret in ("Quernstein", MRN, UID, "20190305", key.read_text()):
            assert secret not in path.name and secret.encode() not in content


def test_whoever_gets_the_files_can_tell_that_none_was_changed(
    home: Workspace, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done(deidentify, scans, out)
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    said = subprocess.run(check, cwd=out, capture_output=True, text=True)
    assert said.returncode == 0 and said.stdout.count(": OK") == len(list(out.rglob("*.dcm"))) == 2
    next(out.rglob("*.dcm")).write_bytes(b"another")
    assert subprocess.run(check, cwd=out, capture_output=True).returncode == 1


def test_machines_read_what_was_done_to_each_attribute(
    home: Workspace, scans: Path, tmp_path: Path
) -> None:
    home.secret("pseudonym.key")
    facts = json.loads(done(deidentify, scans, tmp_path / "out", "--json").stdout)
    assert (facts["found"], facts["written"], facts["held"]) == (3, 2, {"not_an_image": 1})
    assert facts["done"]["PatientName"] == {"replaced": 2}
    assert facts["done"]["Modality"] == {"kept": 2}
    assert "AccessionNumber" not in facts["done"]
    assert set(facts["checks"].values()) == {0}
    assert facts == json.loads((tmp_path / "out" / "deidentification.json").read_text())
    again = json.loads(done(deidentify, scans, tmp_path / "out", "--json").stdout)
    assert again == facts  # nothing was written twice, nothing is another


def test_text_in_pictures_that_was_not_looked_for_is_spoken_of(
    home: Workspace, scans: Path, tmp_path: Path
) -> None:
    Image.new("L", (64, 64)).save(scans / "export.png")
    told = done(deidentify, scans, tmp_path / "out")
    sentence = "1 pictures and volumes without a header"
    assert f"{sentence} were written anew" in told.output
    assert sentence in (tmp_path / "out" / "deidentification.html").read_text()
    policy = tmp_path / "policy.yaml"
    policy.write_text("text_in_pixels: {ocr: true}\n")
    searched = done(deidentify, scans, tmp_path / "searched", "--policy", policy)
    assert "without a header" not in searched.output


def test_nothing_written_is_no_success(home: Workspace, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme").write_text("no image")
    for words in ((), ("--json",)):
        told = done(deidentify, tmp_path / "in", tmp_path / "out", *words)
        assert told.return_value == 1
        assert "not_an_image" in told.output


def test_a_dry_run_writes_nothing(home: Workspace, scans: Path, tmp_path: Path) -> None:
    told = done(deidentify, scans, tmp_path / "out", "--dry-run")
    assert "3 files would be looked at" in told.output and "113100" in told.output
    assert not (tmp_path / "out").exists() and not home.home.exists()


def test_bad_input_is_told_in_a_sentence(home: Workspace, scans: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="OUT lies in IN"):
        done(deidentify, scans, scans / "out")
    with pytest.raises(BadInput, match="IN lies in OUT"):
        done(deidentify, scans, tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(BadInput, match="OUT holds 1 file"):
        done(deidentify, scans, tmp_path / "full")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no file"):
        done(deidentify, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(BadInput, match="is no folder"):
        done(deidentify, scans / "readme", tmp_path / "out")
    with pytest.raises(BadInput, match="OUT cannot be made"):
        done(deidentify, scans, tmp_path / "full" / "letter.txt")
    with pytest.raises(BadInput, match="--key: cannot be read"):
        done(deidentify, scans, tmp_path / "out", "--key", tmp_path / "nowhere")
    assert not home.has_secret("pseudonym.key")


def test_a_folder_that_cannot_be_written_is_not_taken_for_the_workspace(
    home: Workspace, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path / "out")
    with pytest.raises(BadInput, match="OUT cannot be written"):
        done(deidentify, scans, tmp_path / "out")
    assert not home.has_secret("pseudonym.key")


def test_no_key_is_made_where_the_text_detector_is_not_installed(
    home: Workspace, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imaging.deidentification.ocr.find_spec", lambda name: None)
    monkeypatch.setattr("imaging.deidentification.ocr._detector", ocr._detector.__wrapped__)
    policy = tmp_path / "policy.yaml"
    policy.write_text("text_in_pixels: {ocr: true}\n")
    for dry in ((), ("--dry-run",)):
        with pytest.raises(BadInput, match="pip install 'lightbox-mlops\\[ocr\\]'"):
            done(deidentify, scans, tmp_path / "out", "--policy", policy, *dry)
    assert not home.has_secret("pseudonym.key") and not (tmp_path / "out").exists()


def test_no_key_is_made_beside_a_crosswalk_under_another(
    home: Workspace, scans: Path, tmp_path: Path, key_file: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("pseudonyms: random\n")
    words = (deidentify, scans, tmp_path / "out", "--policy", policy)
    done(*words, "--key", key_file)
    with pytest.raises(BadInput, match=r"crosswalk.sqlite: made under a key that is not here"):
        done(*words)
    assert not home.has_secret("pseudonym.key")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dates: moved", ":1: dates: expected 'removed', 'modified' or 'full'"),
        ("datse: full", ":1: datse is not a setting; did you mean 'dates'?"),
        ("text_in_pixels: {actoin: mask}", "did you mean 'action'?"),
        ("dates: removed\ndates: full", ":2: dates is given twice"),
        ("retain: uids", "retain: expected a list"),
        ("basis: safe_harbor", "safe_harbor is refused. `dates: modified`"),
        ("text_in_pixels: {devices: [{}]}", "a rule that names nothing"),
        ("descriptors: [T2 w]", ":1: descriptors.0: expected one word of letters and digits"),
        (
            'safe_private: {"A\\\\B": []}',
            ":1: safe_private.A\\B: expected a private creator as files have it",
        ),
        ("safe_private: {A: [(0018,xx01)]}", "safe_private.A.0: expected an odd group"),
        ("{", ":1: expected"),
        ("", "expected sections"),
    ],
)
def test_a_mistake_in_a_policy_is_told_with_its_place(
    home: Workspace, scans: Path, tmp_path: Path, text: str, told: str
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(text)
    with pytest.raises(BadInput) as caught:
        done(deidentify, scans, tmp_path / "out", "--policy", policy)
    assert str(policy) in str(caught.value) and told in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("ab" * 32)
    path.chmod(0o600)
    return path


def test_the_same_key_gives_the_same_codes(
    home: Workspace, scans: Path, tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = set()
    for name in ("one", "other"):
        monkeypatch.setenv("LIGHTBOX_HOME", str(tmp_path / name / "home"))
        done(deidentify, scans, tmp_path / name / "out", "--key", key_file)
        codes |= {pydicom.dcmread(p).PatientID for p in (tmp_path / name / "out").rglob("*.dcm")}
    assert len(codes) == 1


@pytest.mark.parametrize("drawn", [True, False])
def test_the_way_back_is_recorded_before_it_is_answered(
    home: Workspace, scans: Path, tmp_path: Path, drawn: bool
) -> None:
    policy, among = tmp_path / "policy.yaml", tmp_path / "ids.txt"
    policy.write_text(f"pseudonyms: {'random' if drawn else 'hmac'}\n")
    among.write_text(f"MRN-1\n{MRN}\n")
    done(deidentify, scans, tmp_path / "out", "--policy", policy)
    code = pydicom.dcmread(next((tmp_path / "out").rglob("*.dcm"))).PatientID
    way = () if drawn else ("--among", among)
    told = done(reidentify, code, "--reason", "incidental finding", "--json", *way)
    assert json.loads(told.stdout) == {code: MRN}
    (entry,) = audit_log.entries(f"pseudonym:{code}")
    assert (entry.action, entry.reason) == ("reidentified", "incidental finding")
    assert MRN not in str(entry)
    missing = CliRunner().invoke(
        reidentify, ["0" * 16, "--reason", "x", *map(str, way)], standalone_mode=False
    )
    assert missing.return_value == 1 and "not found" in missing.output
    assert ("--among" in missing.output) == drawn
    if not drawn:
        with pytest.raises(BadInput, match="derived names tell no way back"):
            done(reidentify, code, "--reason", "x")


def test_no_answer_without_a_reason_a_key_or_a_pseudonym(home: Workspace) -> None:
    with pytest.raises(BadInput, match="--reason is empty"):
        done(reidentify, "0" * 16, "--reason", " ")
    with pytest.raises(BadInput, match="there is no pseudonym key here"):
        done(reidentify, "0" * 16, "--reason", "x")
    with pytest.raises(BadInput, match="1 of these are no pseudonyms") as caught:
        done(reidentify, MRN, "--reason", "x")
    assert MRN not in str(caught.value) and not home.audit_log.exists()


def test_a_log_that_cannot_be_written_tells_no_name(
    home: Workspace, scans: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("pseudonyms: random\n")
    done(deidentify, scans, tmp_path / "out", "--policy", policy)
    code = pydicom.dcmread(next((tmp_path / "out").rglob("*.dcm"))).PatientID
    home.audit_log.write_bytes(b"no database at all")
    result = CliRunner().invoke(reidentify, [code, "--reason", "x"])
    assert result.exit_code != 0 and MRN not in result.output
