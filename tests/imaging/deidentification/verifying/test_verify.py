"""The check of what was written: it finds each rule that failed, and nothing where none did."""

import base64
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_traps import ROOT_UID, put, radiograph, under
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset

from imaging.deidentification import deidentify, encoding, profile, spellings
from imaging.deidentification.policy import DeidentificationPolicy
from imaging.deidentification.pseudonyms import Pseudonyms
from imaging.deidentification.verifying import identities, verify
from imaging.deidentification.verifying.verify import Leak
from imaging.reading import dicom
from imaging.reading.pixels import pixel_digest, scale_picture, stored_picture

NAMES = Pseudonyms(b"k" * 32)
DEFAULT = DeidentificationPolicy()
CODES = "DeidentificationMethodCodeSequence"
Spoil = Callable[[Dataset], None]


def leaks_of(
    source: Dataset,
    path: Path,
    spoil: Spoil = lambda target: None,
    damage: Callable[[bytes], bytes] = bytes,
    policy: DeidentificationPolicy = DEFAULT,
    judged_by: DeidentificationPolicy | None = None,
) -> list[Leak]:
    """Clean a file by a policy, spoil what came of it, and check it."""
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, source, enforce_file_format=True)
    parsed = dicom.parse(buffer.getvalue())
    stored = dicom.stored_pixels(parsed)
    digest = pixel_digest(dicom.as_seen(parsed, stored))
    before = identities.describe(parsed, digest, policy)
    mention = spellings.mention(before.identifiers)
    target = deidentify.deidentify(parsed, stored, NAMES, mention, policy)
    pseudonym = str(target.PatientID)
    spoil(target)
    file = path / "written.dcm"
    file.write_bytes(damage(encoding.encode(target)))
    judge = judged_by or policy
    if judged_by:
        before = identities.describe(parsed, digest, judged_by)
    return verify.verify(file, before, pseudonym, deidentify.method(judge), judge)


def several_dates(**attributes: Any) -> Dataset:
    return radiograph(SeriesDate="20190305", AcquisitionDateTime="20190604101559", **attributes)


def drop(keyword: str) -> Spoil:
    return lambda target: delattr(target, keyword)


def change(keyword: str, value: Any) -> Spoil:
    return lambda target: setattr(target, keyword, value)


def one_code_more(target: Dataset) -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "113106", "DCM", "x"
    target[CODES].value.append(item)


def other_pixels(target: Dataset) -> None:
    target.PixelData = target["PixelData"].value[:-1] + b"\x01"


def private(target: Dataset) -> None:
    target.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", "x")


nested = ("SharedFunctionalGroupsSequence",) * 3
SPOILERS: dict[str, tuple[Spoil, Leak]] = {
    "institution": (put("InstitutionName", "LO", "Doom"), Leak("attributes", "InstitutionName")),
    "nested name": (
        under(*nested, hide=put("PatientName", "PN", "Quernstein")),
        Leak("attributes", "PatientName"),
    ),
    "nested comment": (
        under(*nested, hide=put("PatientComments", "LT", "x")),
        Leak("attributes", "PatientComments"),
    ),
    "name as a code": (put("BodyPartExamined", "CS", "QUERNSTEIN"), Leak("strings", "PatientName")),
    "patient's number": (put("SequenceName", "SH", "MRN-7651234"), Leak("strings", "PatientID")),
    "number as bytes": (put(0x00209057, "UL", 7651234), Leak("strings", "InStackPositionNumber")),
    "uid": (put("StudyInstanceUID", "UI", f"{ROOT_UID}.2"), Leak("attributes", "StudyInstanceUID")),
    "uid elsewhere": (put("FiducialUID", "UI", f"{ROOT_UID}.2"), Leak("attributes", "FiducialUID")),
    "date": (put("StudyDate", "DA", "20190305"), Leak("table", "StudyDate")),
    "date elsewhere": (put("SequenceName", "SH", "20190305"), Leak("strings", "StudyDate")),
    "date moved by itself": (put("SeriesDate", "DA", "19130305"), Leak("dates", "SeriesDate")),
    "time": (put("StudyTime", "TM", "101559"), Leak("table", "StudyTime")),
    "age": (put("PatientAge", "AS", "097Y"), Leak("attributes", "PatientAge")),
    "url": (put("RetrieveURL", "UR", "https://x/"), Leak("attributes", "RetrieveURL")),
    "free text": (put("SequenceName", "SH", "any"), Leak("attributes", "SequenceName")),
    "meaning": (put("CodeMeaning", "LO", "any"), Leak("attributes", "CodeMeaning")),
    "bytes": (put("ICCProfile", "OB", b"any "), Leak("attributes", "ICCProfile")),
    "private": (private, Leak("attributes", "00110010")),
    "unknown code": (put(0x00180003, "CS", "X"), Leak("attributes", "00180003")),
    "overlay": (put(0x60000010, "US", 1), Leak("attributes", "60000010")),
    "pixels": (other_pixels, Leak("pixels", "PixelData")),
    "no pixels": (drop("PixelData"), Leak("pixels", "PixelData")),
    "no marker": (drop("PatientIdentityRemoved"), Leak("markers", "PatientIdentityRemoved")),
    "no method": (drop("DeidentificationMethod"), Leak("markers", "DeidentificationMethod")),
    "no codes": (drop(CODES), Leak("markers", CODES)),
    "a code too many": (one_code_more, Leak("markers", CODES)),
    "dates said to be true": (
        change("LongitudinalTemporalInformationModified", "UNMODIFIED"),
        Leak("markers", "LongitudinalTemporalInformationModified"),
    ),
    "other letters": (
        put("SpecificCharacterSet", "CS", "ISO_IR 100"), Leak("markers", "SpecificCharacterSet")
    ),
    "file meta": (
        lambda target: target.file_meta.add_new(0x00020016, "AE", "H"),
        Leak("file_meta", "00020016"),
    ),
    "another program": (
        lambda target: setattr(target.file_meta, "ImplementationClassUID", "1.2.3"),
        Leak("file_meta", "ImplementationClassUID"),
    ),
    "another class": (
        lambda target: setattr(target.file_meta, "MediaStorageSOPClassUID", f"{ROOT_UID}.2"),
        Leak("file_meta", "MediaStorageSOPClassUID"),
    ),
    "another instance": (
        lambda target: setattr(target.file_meta, "MediaStorageSOPInstanceUID", "2.25.1"),
        Leak("file_meta", "MediaStorageSOPInstanceUID"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILERS)
def test_the_check_finds_a_rule_that_failed(name: str, tmp_path: Path) -> None:
    spoil, leak = SPOILERS[name]
    leaks = leaks_of(several_dates(), tmp_path, spoil)
    assert leak in leaks
    assert "Quernstein" not in str(leaks)


def test_without_a_failure_there_is_no_leak(tmp_path: Path) -> None:
    assert leaks_of(several_dates(), tmp_path) == []


def test_text_may_be_denied_only_after_masking(tmp_path: Path) -> None:
    source = radiograph()
    del source.BurnedInAnnotation
    spoiled = leaks_of(source, tmp_path, put("BurnedInAnnotation", "CS", "NO"))
    assert spoiled == [Leak("markers", "BurnedInAnnotation")]


WRITTEN = {
    "backwards": "nietsnreuq",
    "in one word": "adalbertquernstein",
    "year first": "2019-03-05",
    "day first": "5.3.2019",
    "month first": "03/05/2019",
    "in words": "5th Mar 2019",
    "American": "March 5, 2019",
    "no zeros": "0007651234",
    "wide": "\0".join("Quernstein"),
    "hexadecimal": b"MRN-7651234".hex(),
    "base64": base64.b64encode(b"x: Quernstein^Adalbert").decode(),
    "within base64": base64.b64encode(b"of MRN-7651234, again").decode(),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_an_identity_is_found_however_it_is_spelled(how: str, tmp_path: Path) -> None:
    leaks = leaks_of(radiograph(), tmp_path, put("SoftwareVersions", "LO", WRITTEN[how]))
    assert {leak.check for leak in leaks} == {"strings"}


def test_a_name_in_its_own_letters_is_found(tmp_path: Path) -> None:
    source = radiograph(
        SpecificCharacterSet="GB18030", PatientName="Wang^XiaoDong=\u738b^\u5c0f\u4e1c"
    )
    spoil = put("SoftwareVersions", "LO", "1.2 \u5c0f\u4e1c")
    assert leaks_of(source, tmp_path, spoil) == [Leak("strings", "PatientName")]


def test_a_name_is_known_in_the_letters_that_its_bytes_are(tmp_path: Path) -> None:
    source = radiograph()  # which names no character set
    put("PatientName", "PN", "M\u00fchlqvist".encode())(source)
    for text in ("1.2 M\u00fchlqvist", "M\u00dcHLQVIST 1.2"):
        spoil = put("SoftwareVersions", "LO", text)
        assert leaks_of(source, tmp_path, spoil) == [Leak("strings", "PatientName")]


@pytest.mark.parametrize(
    "name",
    [
        "Ray^Uid^Basic^Patient",
        "Lightbox^Modified",
        "Li^Na",
        "Code^Value",
        "Chest",
        "Iso^Ir",
        "Anonymized",
    ],
)
def test_a_name_that_we_write_ourselves_is_no_leak(name: str, tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    noise = np.random.default_rng(1).integers(0, 2**16, 4096, dtype=np.uint16)
    table.add_new("LUTData", "OW", noise.tobytes())
    source = radiograph(
        PatientName=name, PatientID="17", AccessionNumber="1", VOILUTSequence=[table]
    )
    source.BodyPartExamined, source.ConvolutionKernel = "CHEST", "XRAY"
    assert leaks_of(source, tmp_path) == []


@pytest.mark.parametrize("number", ["113100", "113107", "113108", "DCM", "YES", "1.2.840.10008"])
def test_a_number_that_we_write_ourselves_is_no_leak_but_is_one_elsewhere(
    number: str, tmp_path: Path
) -> None:
    for attributes in ({"PatientID": number}, {"AccessionNumber": number}):
        source = radiograph(**attributes)
        assert leaks_of(source, tmp_path) == []
        (name,) = attributes
        leaks = leaks_of(source, tmp_path, change("PatientOrientation", [number, "F"]))
        assert Leak("strings", name) in leaks


def test_digits_of_a_measure_are_nobodys_number(tmp_path: Path) -> None:
    source = radiograph(PatientID="703125", PixelSpacing=["0.703125", ".703125"])
    assert leaks_of(source, tmp_path) == []


def test_what_is_no_number_is_nobodys_name(tmp_path: Path) -> None:
    source = radiograph(PatientName="Nan^Li", DiffusionBValue=float("nan"))
    assert leaks_of(source, tmp_path) == []


def test_uids_may_be_kept_beside_what_is_none_and_is_replaced(tmp_path: Path) -> None:
    source = radiograph()
    put("DeviceUID", "UI", ["1.2.3", "Quernstein"])(source)
    assert leaks_of(source, tmp_path, policy=DeidentificationPolicy(retain=("uids",))) == []


def test_what_the_check_cannot_read_is_not_clean(tmp_path: Path) -> None:
    def garble(data: bytes) -> bytes:
        start = data.index(b"\x18\x00\x73\x90FD\x08\x00")  # a double, so eight bytes
        return data[: start + 6] + b"\x04\x00Jane" + data[start + 16 :]

    leaks = leaks_of(radiograph(), tmp_path, change("AcquisitionDuration", 1.0), garble)
    assert Leak("attributes", "00189073") in leaks


@pytest.mark.parametrize("lack", [MemoryError, RecursionError])
def test_what_could_not_be_read_for_lack_of_room_is_neither_clean_nor_a_leak(
    lack: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a name that nobody looks for might stay, or one large file would end the run."""
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, radiograph(PatientSize="1.83"), enforce_file_format=True)
    path = tmp_path / "file.dcm"
    path.write_bytes(buffer.getvalue())
    source = dicom.parse(buffer.getvalue())
    before = identities.describe(source, "")
    real = Dataset.__getitem__

    def getitem(self: Dataset, tag: Any) -> Any:
        if tag == 0x00101020:
            raise lack
        return real(self, tag)

    monkeypatch.setattr(Dataset, "__getitem__", getitem)
    with pytest.raises(lack):
        identities.describe(source, "")
    with pytest.raises(lack):
        verify.verify(path, before, "", [])


def test_text_where_a_sequence_should_be_holds_no_items() -> None:
    source = radiograph()
    for tag in (0x00120064, 0x00080300):
        source.add_new(tag, "LO", "113100")
    assert identities.describe(source, "").codes == ()


def test_every_rule_of_the_table_is_checked(tmp_path: Path) -> None:
    """Without cleaning, the check names every attribute of the table that holds a value."""
    mark = "Zqxjkv"
    by_vr = {
        "AS": "047Y", "DA": "20190305", "DT": "20190305101500", "TM": "101559",
        "UI": "1.2.826.0.1.3680043.9.99", "DS": "1.5", "IS": "15", "US": 15, "FD": 1.5, "FL": 1.5,
        "OB": b"mark", "OW": b"mark", "UN": b"mark",
    }  # fmt: skip
    full, rows = Dataset(), profile.table()
    for tag in rows:
        if tag >> 16 >= 8 and tag in DicomDictionary:
            vr = DicomDictionary[tag][0].split(" or ")[0]
            inner = Dataset()
            inner.PatientName = mark
            code = "YES" if rows[tag]["retain_patient_characteristics"] == "K" else "ZQXJKV"
            value = code if vr == "CS" else by_vr.get(vr, mark)
            put(tag, vr, [inner] if vr == "SQ" else value)(full)
    assert len(full) > 500
    source = radiograph()
    source.SharedFunctionalGroupsSequence = [full]
    leaks = leaks_of(source, tmp_path, change("SharedFunctionalGroupsSequence", [full]))
    kept = {e.keyword for e in full if rows[int(e.tag)]["retain_patient_characteristics"] == "K"}
    entered = {  # sequences that need not go; what is in them is judged
        e.keyword
        for e in full
        if e.VR == "SQ" and rows[int(e.tag)]["basic_profile_2026c"] not in "XZ"
    }
    assert {e.keyword for e in full} - {leak.attribute for leak in leaks} - kept - entered == set()


def retained(place: str, vr: str, value: Any) -> Callable[[], Dataset]:
    def made() -> Dataset:
        source = several_dates()
        put(place, vr, value)(source)
        return source

    return made


def with_private() -> Dataset:
    source = several_dates()
    source.private_block(0x0019, "MAKER", create=True).add_new(0x10, "DS", "1.5")
    return source


def declared_safe() -> Dataset:
    source, item = with_private(), Dataset()
    item.PrivateGroupReference, item.PrivateCreatorReference = 0x0019, "MAKER"
    item.BlockIdentifyingInformationStatus = "SAFE"
    source.PrivateDataElementCharacteristicsSequence = [item]
    return source


OPTIONS: dict[str, tuple[dict[str, Any], Callable[[], Dataset]]] = {
    "dates full": ({"dates": "full"}, several_dates),
    "dates removed": ({"dates": "removed"}, several_dates),
    "uids": ({"retain": ["uids"]}, several_dates),
    "device": ({"retain": ["device_identity"]}, retained("DeviceSerialNumber", "LO", "SN 4471")),
    "institution": (
        {"retain": ["institution_identity"]}, retained("InstitutionName", "LO", "Mount Doom")
    ),
    "no characteristics": ({"retain": []}, several_dates),
    "old ages": ({"ages_above_89": "kept"}, retained("PatientAge", "AS", "097Y")),
    "words": ({"descriptors": ["chest", "PA"]}, retained("SeriesDescription", "LO", "Chest pa Zq")),
    "private": ({"safe_private": {"MAKER": ["(0019,xx10)"]}}, with_private),
    "declared": ({"declared_safe_private": True}, declared_safe),
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_what_an_option_keeps_is_no_leak_under_it_and_one_without_it(
    option: str, tmp_path: Path
) -> None:
    settings, made = OPTIONS[option]
    policy = DeidentificationPolicy(**settings)
    assert leaks_of(made(), tmp_path, policy=policy) == []
    leaks = leaks_of(made(), tmp_path, policy=policy, judged_by=DEFAULT)
    beyond_markers = {leak.check for leak in leaks} - {"markers"}
    assert beyond_markers or option in ("dates removed", "no characteristics")


def test_words_beside_the_allowed_ones_are_leaks(tmp_path: Path) -> None:
    policy = DeidentificationPolicy(descriptors=["chest"])
    spoil = put("SeriesDescription", "LO", "chest other")
    leaks = leaks_of(radiograph(), tmp_path, spoil, policy=policy)
    assert leaks == [Leak("attributes", "SeriesDescription")]


def test_earlier_codes_have_to_stay(tmp_path: Path) -> None:
    earlier = Dataset()
    earlier.CodeValue, earlier.CodingSchemeDesignator = "113103", "DCM"
    earlier.CodeMeaning = "Clean Graphics Option"
    source = radiograph(**{CODES: [earlier]})
    assert leaks_of(source, tmp_path) == []
    spoil: Spoil = lambda target: target[CODES].value.pop(0)  # noqa: E731
    assert leaks_of(source, tmp_path, spoil) == [Leak("markers", CODES)]


def picture(path: Path, colour: bool = False, **extra: Any) -> str:
    """Write a PNG; the digest of its pixels."""
    grey = np.arange(48, dtype=np.uint8).reshape(8, 6)
    Image.fromarray(np.stack([grey, grey, 255 - grey], -1) if colour else grey).save(path, **extra)
    return pixel_digest(scale_picture(stored_picture(path.read_bytes(), colour=True)))


@pytest.mark.parametrize("colour", [False, True])
def test_a_picture_holds_pixels_only(colour: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    digest = picture(path, colour)
    assert verify.verify_picture(path, digest) == []
    assert verify.verify_picture(path, "0" * 64) == [Leak("pixels", "IDAT")]
    path.write_bytes(path.read_bytes() + b"Jane")
    assert verify.verify_picture(path, digest) == [Leak("attributes", "bytes behind the PNG")]
    said = PngInfo()
    said.add_text("Author", "Jane")
    picture(path, colour, pnginfo=said)
    assert verify.verify_picture(path, digest) == [Leak("attributes", "PNG chunk tEXt")]
