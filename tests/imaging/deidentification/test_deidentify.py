from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from imaging import dicom
from imaging.deidentification import deidentify, profile, verify
from imaging.deidentification.pseudonyms import Pseudonyms
from imaging.pixels import pixel_digest
from imaging.reasons import SetAside

KEY = b"k" * 32
NAMES = Pseudonyms(KEY)
CODES = "DeidentificationMethodCodeSequence"
OLD_UID = "1.2.826.0.1.3680043.9.7.2"
MARK = "ZQXJKV"  # nothing that a standard would say
BY_VR = {
    "AE": MARK, "AS": "047Y", "CS": MARK, "DA": "20190305", "DT": "20190305101500", "LO": MARK,
    "LT": MARK, "OB": MARK.encode(), "PN": MARK, "SH": MARK, "ST": MARK, "TM": "101559", "UC": MARK,
    "UI": "1.2.826.0.1.3680043.9.99", "UN": MARK.encode(), "UR": MARK, "UT": MARK, "DS": "1.5",
    "IS": "15", "US": 15,
}  # fmt: skip
Made = Callable[..., Dataset]


def process(  # type: ignore[no-untyped-def]
    source: Dataset,
    tmp_path: Path,
    spoil: Callable[[Dataset], None] | None = None,
    damage: Callable[[bytes], bytes] = bytes,
):
    """As the examiner does it: clean, write, check.

    `spoil` stands for a rule that failed, `damage` for a writer that did.
    """
    parsed = dicom.parse(deidentify.encode(source))
    stored = dicom.stored_pixels(parsed)
    before = verify.describe(parsed, pixel_digest(dicom.as_seen(parsed, stored)))
    target = deidentify.deidentify(parsed, stored, NAMES, verify.mention(before.identifiers))
    pseudonym = str(target.PatientID)
    if spoil:
        spoil(target)
    path = tmp_path / "written.dcm"
    path.write_bytes(damage(deidentify.encode(target)))
    leaks = verify.verify(path, before, pseudonym, deidentify.method())
    return pydicom.dcmread(path), leaks, path.read_bytes()


def nest(item: Dataset, levels: int) -> list[Dataset]:
    """Sequences that stay, inside each other, around an item."""
    for _ in range(levels):
        outer = Dataset()
        outer.SharedFunctionalGroupsSequence = [item]
        item = outer
    return [item]


def everything_in_the_table() -> Dataset:
    """One element for each line of Table E.1-1 that pydicom knows."""
    full = Dataset()
    for tag in profile.table():
        if tag >> 16 >= 8 and tag in DicomDictionary:
            vr = DicomDictionary[tag][0].split(" or ")[0]
            inner = Dataset()
            inner.PatientName = inner.PatientComments = MARK
            kept_code = vr == "CS" and profile.table()[tag].characteristics == "K"
            full.add_new(tag, vr, [inner] if vr == "SQ" else "YES" if kept_code else BY_VR[vr])
    return full


@pytest.mark.parametrize("levels", [0, 1, 5])
def test_nothing_of_the_whole_table_survives(
    dicom_dataset: Made, tmp_path: Path, levels: int
) -> None:
    source = dicom_dataset(PatientAge="047Y")
    full = everything_in_the_table()
    assert len(full) > 500
    if levels:
        source.SharedFunctionalGroupsSequence = nest(full, levels)
    else:
        kept = {
            "SOPClassUID",
            "SOPInstanceUID",
            "PatientID",
            "PatientAge",
            "PatientSex",
            "EthnicGroup",
        }
        source.update({e.tag: e for e in full if e.keyword not in kept})
    written, leaks, data = process(source, tmp_path)
    assert leaks == []
    assert written.PatientAge == "047Y"
    for gone in (MARK.encode(), b"20190305", b"101559", b"3680043.9.99"):
        assert gone not in data


def test_what_the_table_does_not_list(dicom_dataset: Made, tmp_path: Path) -> None:
    source, item = dicom_dataset(), Dataset()
    for place in (source, item):
        block = place.private_block(0x0011, "MAKER", create=True)
        block.add_new(1, "LO", MARK)
        place.add_new(0x50000010, "US", 1)  # curves
        place.add_new(0x50003000, "OW", MARK.encode())
        place.add_new(0x60000010, "US", 1)  # overlays
        place.add_new(0x60003000, "OW", MARK.encode())
        place.add_new(0x00081190, "UR", f"https://{MARK}/")  # RetrieveURL
        place.add_new(0x00080002, "LO", MARK)  # no such attribute
        place.add_new(0x00081030, "UN", MARK.encode())  # StudyDescription, its VR lost
        place.add_new(0x00400008, "PN", MARK)  # a known tag in a wrong VR
        place.add_new(0x00180020, "CS", f"{MARK} {MARK} {MARK}")  # longer than a code
        place.add_new(0x00080104, "LO", MARK)  # CodeMeaning
        place.add_new(0x00189506, "SH", MARK)  # free text of another attribute
        place.NameOfPhysiciansReadingStudy = MARK
        place.add_new(0x04000561, "SQ", [Dataset()])  # OriginalAttributesSequence
        place[0x04000561].value[0].PatientName = MARK
        place.add_new(0xFFFAFFFA, "SQ", [Dataset()])  # DigitalSignaturesSequence
        place.add_new(0xFFFCFFFC, "OB", MARK.encode())  # padding
    source.SharedFunctionalGroupsSequence = nest(item, 2)
    written, leaks, data = process(source, tmp_path)
    assert leaks == []
    assert MARK.encode() not in data
    groups = {element.tag.group for element in written.iterall()}
    assert groups <= {0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0028, 0x0040, 0x5200, 0x7FE0}


def test_what_must_stay_stays(dicom_dataset: Made, tmp_path: Path) -> None:
    source = dicom_dataset(KVP="120", PixelSpacing=["0.2", "0.2"], BodyPartExamined="CHEST")
    view = Dataset()
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = "R-10206", "SRT", MARK
    source.ViewCodeSequence = [view]
    written, leaks, data = process(source, tmp_path)
    assert leaks == []
    same = ("SOPClassUID", "Modality", "KVP", "PixelSpacing", "BodyPartExamined", "PatientSex",
            "PatientAge", "Manufacturer", "ManufacturerModelName", "Rows", "PixelData")  # fmt: skip
    assert {n: written[n].value for n in same} == {n: source[n].value for n in same}
    assert written.ViewCodeSequence[0].CodeValue == "R-10206"
    assert MARK.encode() not in data


def test_markers_meta_and_preamble(dicom_dataset: Made, tmp_path: Path) -> None:
    source = dicom_dataset()
    source.preamble = b"MZ" + bytes(126)
    source.file_meta.SourceApplicationEntityTitle = "HOSPITAL"
    written, leaks, data = process(source, tmp_path)
    assert leaks == []
    assert data[:132] == bytes(128) + b"DICM"
    assert b"HOSPITAL" not in data
    assert written.file_meta.MediaStorageSOPInstanceUID == written.SOPInstanceUID
    codes = [
        (i.CodeValue, i.CodingSchemeDesignator) for i in written.DeidentificationMethodCodeSequence
    ]
    assert codes == [("113100", "DCM"), ("113107", "DCM"), ("113108", "DCM")]
    assert written.PatientIdentityRemoved == "YES"
    assert written.LongitudinalTemporalInformationModified == "MODIFIED"
    assert all(len(line) <= 64 for line in written.DeidentificationMethod)
    assert written.PatientID == written.PatientName == NAMES.patient("MRN-0012345")


def test_the_source_is_left_as_it_was(dicom_dataset: Made, tmp_path: Path) -> None:
    source = dicom_dataset()
    before = deidentify.encode(source)
    process(source, tmp_path)
    assert deidentify.encode(source) == before


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.from_regex(r"\A[12]\.[0-9]{1,9}(\.[1-9][0-9]{0,8}){1,5}\Z"), min_size=2, unique=True
    )
)
def test_uids_are_one_to_one_and_need_the_key(uids: list[str]) -> None:
    mapped = [NAMES.uid(u) for u in uids]
    assert len(set(mapped)) == len(uids)
    assert mapped == [Pseudonyms(KEY).uid(f"{u}\0") for u in uids]
    assert all(u.startswith("2.25.") and len(u) <= 64 for u in mapped)
    assert set(mapped).isdisjoint(Pseudonyms(b"x" * 32).uid(u) for u in uids)


def test_standard_uids_stay_and_forgeries_under_their_root_do_not() -> None:
    assert NAMES.uid("1.2.840.10008.1.2.1") == "1.2.840.10008.1.2.1"
    assert NAMES.uid("1.2.840.10008.1.2.1.0012345").startswith("2.25.")


def test_dates_move_together_per_patient(dicom_dataset: Made, tmp_path: Path) -> None:
    def moved(**attributes: Any) -> Dataset:
        return process(dicom_dataset(**attributes), tmp_path)[0]

    first = moved(StudyDate="20190305", AcquisitionDateTime="20190604073000.5+0100")
    second = moved(StudyDate="20190404", SOPInstanceUID="1.2.826.0.1.3680043.9.8")
    days = [date(int(d[:4]), int(d[4:6]), int(d[6:8])) for d in (first.StudyDate, second.StudyDate)]
    assert (days[1] - days[0]).days == 30
    acquired = first.AcquisitionDateTime
    assert (date(int(acquired[:4]), int(acquired[4:6]), int(acquired[6:])) - days[0]).days == 91
    assert first.StudyTime == ""
    other = moved(PatientID="MRN-9912345")
    assert other.StudyDate != first.StudyDate


@pytest.mark.parametrize("nonsense", ["20191399", "yesterday", "2019", "00010101"])
def test_what_is_no_date_is_emptied(dicom_dataset: Made, tmp_path: Path, nonsense: str) -> None:
    source = dicom_dataset()
    source.add_new("StudyDate", "DA", nonsense)
    assert process(source, tmp_path)[0].StudyDate == ""


@pytest.mark.parametrize(
    ("age", "kept"),
    [("089Y", "089Y"), ("090Y", "090Y"), ("103Y", "090Y"), ("018M", "018M"), ("old", None)],
)
def test_ages_over_89_are_one_group(
    dicom_dataset: Made, tmp_path: Path, age: str, kept: str | None
) -> None:
    assert process(dicom_dataset(PatientAge=age), tmp_path)[0].get("PatientAge") == kept


def test_a_code_that_repeats_the_name_holds_the_file_back(
    dicom_dataset: Made, tmp_path: Path
) -> None:
    with pytest.raises(SetAside) as caught:
        process(dicom_dataset(BodyPartExamined="QUERNSTEIN"), tmp_path)
    assert caught.value.reason == "residual_identity"


def test_a_maker_called_like_the_hospital_is_emptied(dicom_dataset: Made, tmp_path: Path) -> None:
    written, leaks, _ = process(dicom_dataset(InstitutionName="ALDEBARAN"), tmp_path)
    assert (written.Manufacturer, leaks) == ("", [])


def test_short_names_are_no_false_alarm(dicom_dataset: Made, tmp_path: Path) -> None:
    source = dicom_dataset(PatientName="Ray^Uid^Basic^Patient", PatientID="17", AccessionNumber="1")
    source.ConvolutionKernel = "XRAY"
    assert process(source, tmp_path)[1] == []


def spoilers() -> dict[str, tuple[Callable[[Dataset], None], str, str]]:
    """Each a rule that failed, with the check and the attribute that must name it."""

    def put(keyword: str, value: Any, levels: int = 0) -> Callable[[Dataset], None]:
        def spoil(target: Dataset) -> None:
            place = target
            if levels:
                place = Dataset()
                target.SharedFunctionalGroupsSequence = nest(place, levels)
            place.add_new(tag_for_keyword(keyword), dictionary_VR(keyword), value)

        return spoil

    def private(target: Dataset) -> None:
        target.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", "x")

    def overlay(target: Dataset) -> None:
        target.add_new(0x60000010, "US", 1)

    def pixels(target: Dataset) -> None:
        target.PixelData = target.PixelData[:-1] + b"\x01"

    def drop(keyword: str) -> Callable[[Dataset], None]:
        return lambda target: delattr(target, keyword)

    return {
        "institution": (put("InstitutionName", "Mount Doom"), "attributes", "InstitutionName"),
        "nested name": (put("PatientName", "Quernstein^Adalbert", 3), "attributes", "PatientName"),
        "nested comment": (put("PatientComments", "any", 2), "table", "PatientComments"),
        "bytes": (put("BodyPartExamined", "QUERNSTEIN"), "strings", "PatientName"),
        "patient id": (put("SequenceName", "MRN-0012345"), "strings", "PatientID"),
        "uid": (put("StudyInstanceUID", OLD_UID), "table", "StudyInstanceUID"),
        "uid elsewhere": (put("FiducialUID", OLD_UID), "attributes", "FiducialUID"),
        "date": (put("StudyDate", "20190305"), "table", "StudyDate"),
        "date elsewhere": (put("SequenceName", "20190305"), "strings", "StudyDate"),
        "time": (put("StudyTime", "101500"), "table", "StudyTime"),
        "age": (put("PatientAge", "097Y"), "attributes", "PatientAge"),
        "url": (put("RetrieveURL", "https://x/"), "attributes", "RetrieveURL"),
        "free text": (put("SequenceName", "any"), "attributes", "SequenceName"),
        "private": (private, "attributes", "00110010"),
        "overlay": (overlay, "attributes", "60000010"),
        "pixels": (pixels, "pixels", "PixelData"),
        "marker": (drop("PatientIdentityRemoved"), "markers", "PatientIdentityRemoved"),
        "codes": (drop(CODES), "markers", CODES),
        "preamble": (lambda t: setattr(t, "preamble", b"MZ" + bytes(126)), "file_meta", "preamble"),
        "meta": (lambda t: t.file_meta.add_new(0x00020016, "AE", "H"), "file_meta", "00020016"),
    }  # fmt: skip


@pytest.mark.parametrize("name", spoilers())
def test_the_check_finds_a_rule_that_failed(dicom_dataset: Made, tmp_path: Path, name: str) -> None:
    spoil, check, attribute = spoilers()[name]
    _, leaks, _ = process(dicom_dataset(StudyTime="101500"), tmp_path, spoil)
    assert verify.Leak(check, attribute) in leaks
    assert "Quernstein" not in str(leaks)


def test_what_the_check_cannot_read_is_not_clean(dicom_dataset: Made, tmp_path: Path) -> None:
    def time(target: Dataset) -> None:
        target.AcquisitionDuration = 1.0  # a double, so eight bytes

    def garble(data: bytes) -> bytes:
        start = data.index(b"\x18\x00\x73\x90FD\x08\x00")
        return data[: start + 6] + b"\x04\x00Jane" + data[start + 16 :]

    _, leaks, _ = process(dicom_dataset(), tmp_path, time, garble)
    assert verify.Leak("attributes", "00189073") in leaks


def test_every_rule_of_the_table_is_checked(dicom_dataset: Made, tmp_path: Path) -> None:
    """Without cleaning, the check names every attribute of the table that holds a value."""
    source = dicom_dataset()
    full = everything_in_the_table()

    def uncleaned(target: Dataset) -> None:
        target.SharedFunctionalGroupsSequence = [full]

    source.SharedFunctionalGroupsSequence = [full]
    _, leaks, _ = process(source, tmp_path, uncleaned)
    named = {leak.attribute for leak in leaks}
    kept = {e.keyword for e in full if profile.table()[int(e.tag)].characteristics == "K"}
    optional = {e.keyword for e in full if profile.table()[int(e.tag)].action not in ("X", "Z")}
    sequences = {e.keyword for e in full if e.VR == "SQ"} & optional  # judged by what is in them
    bare = {e.keyword for e in full if isinstance(e.value, bytes)}  # dummies of these are absent
    assert {e.keyword for e in full} - named - kept - sequences - bare == set()


def test_policy_digest_names_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    before = profile.policy_digest()
    monkeypatch.setattr(profile, "KEPT_TEXT", profile.KEPT_TEXT | {"SequenceName"})
    assert profile.policy_digest() != before


def test_an_instance_without_a_class_cannot_be_written(dicom_dataset: Made) -> None:
    source = dicom_dataset()
    parsed = dicom.parse(deidentify.encode(source))
    del parsed.SOPClassUID
    with pytest.raises(SetAside) as caught:
        deidentify.deidentify(parsed, dicom.stored_pixels(parsed), NAMES, verify.mention({}))
    assert caught.value.reason == "incomplete_header"


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("M\u00fchlqvist^\u00c4nne", {"Manufacturer": "M\u00dcHLQVIST MED"}),
        ("M\u00fchlqvist^\u00c4nne", {"ManufacturerModelName": "Muehlqvist"}),
        ("M\u00fchlqvist^\u00c4nne", {"SoftwareVersions": ["1.2", "MUHLQVIST"]}),
        ("S\u00f8rensen^\u00c5se", {"Manufacturer": "Soerensen"}),
        ("Mu\u0308hlqvist", {"Manufacturer": "m\u00fchlqvist"}),
    ],
)
def test_a_name_in_other_letters_is_still_that_name(
    dicom_dataset: Made, tmp_path: Path, told: str, kept: dict[str, Any]
) -> None:
    source = dicom_dataset(SpecificCharacterSet="ISO_IR 192", PatientName=told, **kept)
    written, leaks, _ = process(source, tmp_path)
    assert leaks == []
    assert not written[next(iter(kept))].value


@pytest.mark.parametrize(
    ("mrn", "tag", "vr", "number"),
    [
        ("7651234", 0x00189073, "FD", 7651234.0),
        ("7651234", 0x00180060, "DS", "7651234.0"),
        ("0007651234", 0x00181151, "IS", "7651234"),
        ("MRN-7651234", 0x00181151, "IS", "7651234"),
        ("765-12-34", 0x00209057, "UL", 7651234),
    ],
)
def test_an_identifier_written_as_a_number_holds_the_file_back(
    dicom_dataset: Made, tmp_path: Path, mrn: str, tag: int, vr: str, number: Any
) -> None:
    source = dicom_dataset(PatientID=mrn)
    source.add_new(tag, vr, number)
    with pytest.raises(SetAside) as caught:
        process(source, tmp_path)
    assert caught.value.reason == "residual_identity"


def test_the_check_finds_an_identifier_in_binary_numbers(
    dicom_dataset: Made, tmp_path: Path
) -> None:
    def spoil(target: Dataset) -> None:
        target.add_new(0x00209057, "UL", 7651234)

    _, leaks, _ = process(dicom_dataset(PatientID="7651234"), tmp_path, spoil)
    assert leaks == [verify.Leak("strings", "InStackPositionNumber")]


def test_a_name_in_a_table_of_bytes_costs_that_file_only(
    dicom_dataset: Made, tmp_path: Path
) -> None:
    table = Dataset()
    table.LUTDescriptor = [5, 0, 16]
    table.add_new(0x00283006, "OW", b"Quernstein")
    with pytest.raises(SetAside) as caught:
        process(dicom_dataset(VOILUTSequence=[table]), tmp_path)
    assert caught.value.reason == "residual_identity"
