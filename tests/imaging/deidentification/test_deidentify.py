"""Each rule of the cleaning, seen in what is written; the checker has tests of its own."""

import base64
import json
import re
import struct
from collections.abc import Callable
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from imaging.deidentification import deidentify, encoding, profile, spellings
from imaging.deidentification.policy import CID_7050, DeidentificationPolicy
from imaging.deidentification.pseudonyms import Pseudonyms
from imaging.deidentification.verifying import identities, verify
from imaging.reading import dicom
from imaging.reading.pixels import pixel_digest
from imaging.reasons import SetAside

NAMES = Pseudonyms(b"k" * 32)
DEFAULT = DeidentificationPolicy()
MARK = "ZQXJKV"  # nothing that a standard or a dictionary of names would say
BY_VR = {
    "AE": MARK, "AS": "047Y", "CS": MARK, "DA": "20190305", "DT": "20190305101500", "LO": MARK,
    "LT": MARK, "OB": MARK.encode(), "PN": MARK, "SH": MARK, "ST": MARK, "TM": "101559", "UC": MARK,
    "UI": "1.2.826.0.1.3680043.9.99", "UN": MARK.encode(), "UR": MARK, "UT": MARK, "DS": "1.5",
    "IS": "15", "US": 15,
}  # fmt: skip
DAYS = ("20190305", "2019-03-05")
Made = Callable[..., Dataset]


class Cleaned(NamedTuple):
    written: Dataset
    leaks: list[verify.Leak]
    data: bytes


Clean = Callable[..., Cleaned]


@pytest.fixture
def clean(tmp_path: Path, encoded: Callable[[Dataset], bytes]) -> Clean:
    """As the examiner does it: read, clean, write, check."""

    def clean(
        source: Dataset,
        policy: DeidentificationPolicy = DEFAULT,
        stored: NDArray[Any] | None = None,
        masked: bool = False,
    ) -> Cleaned:
        parsed = dicom.parse(encoded(source))
        if stored is None:
            stored = dicom.stored_pixels(parsed)
        before = identities.describe(parsed, pixel_digest(dicom.as_seen(parsed, stored)), policy)
        mention = spellings.mention(before.identifiers, before.spelled)
        target = deidentify.deidentify(parsed, stored, NAMES, mention, policy, masked)
        path = tmp_path / "written.dcm"
        path.write_bytes(encoding.encode(target))
        method = deidentify.method(policy)
        leaks = verify.verify(path, before, str(target.PatientID), method, policy)
        return Cleaned(pydicom.dcmread(path), leaks, path.read_bytes())

    return clean


def nest(item: Dataset, levels: int) -> list[Dataset]:
    """Sequences that stay, inside each other, around an item."""
    for _ in range(levels):
        outer = Dataset()
        outer.SharedFunctionalGroupsSequence = [item]
        item = outer
    return [item]


def inside(*path: str, **attributes: Any) -> Dataset:
    """An item inside items of these sequences, the outermost first."""
    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    for sequence in reversed(path):
        outer = Dataset()
        setattr(outer, sequence, [item])
        item = outer
    return item


def everything_in_the_table() -> Dataset:
    """One element for each line of Table E.1-1 that pydicom knows."""
    full = Dataset()
    for tag, line in profile.table().items():
        if tag >> 16 >= 8 and tag in DicomDictionary:
            vr = DicomDictionary[tag][0].split(" or ")[0]
            inner = Dataset()
            inner.PatientName = inner.PatientComments = MARK
            kept_code = vr == "CS" and line["retain_patient_characteristics"] == "K"
            full.add_new(tag, vr, [inner] if vr == "SQ" else "YES" if kept_code else BY_VR[vr])
    return full


# D1: the table at every depth


@pytest.mark.parametrize("levels", [0, 1, 5, 20])
def test_nothing_of_the_whole_table_survives(
    dicom_dataset: Made, clean: Clean, levels: int
) -> None:
    source = dicom_dataset(PatientAge="047Y")
    full = everything_in_the_table()
    assert len(full) > 500
    if levels:
        source.SharedFunctionalGroupsSequence = nest(full, levels)
    else:
        kept = {"SOPClassUID", "SOPInstanceUID", "PatientID", "PatientAge", "PatientSex",
                "EthnicGroup"}  # fmt: skip
        source.update({e.tag: e for e in full if e.keyword not in kept})
    written, leaks, data = clean(source)
    assert leaks == []
    assert written.PatientAge == "047Y"
    for gone in (MARK.encode(), b"20190305", b"101559", b"3680043.9.99"):
        assert gone not in data


def test_per_frame_groups_stay_and_are_cleaned(dicom_dataset: Made, clean: Clean) -> None:
    pixels = np.arange(3 * 48, dtype=np.uint16).reshape(3, 8, 6)
    source = dicom_dataset(pixels, NumberOfFrames=3)
    groups = []
    for frame in range(3):
        content = Dataset()
        content.FrameComments, content.FrameAcquisitionNumber = MARK, frame + 1
        content.FrameReferenceDateTime = "20190305101500"
        groups.append(inside())
        groups[-1].FrameContentSequence = [content]
    source.PerFrameFunctionalGroupsSequence = groups
    written, leaks, data = clean(source)
    assert leaks == []
    assert MARK.encode() not in data and b"20190305" not in data
    kept = [item.FrameContentSequence[0] for item in written.PerFrameFunctionalGroupsSequence]
    assert [item.FrameAcquisitionNumber for item in kept] == [1, 2, 3]


# D2: file meta information and preamble


def test_meta_and_preamble_are_ours(dicom_dataset: Made, clean: Clean) -> None:
    source = dicom_dataset()
    source.preamble = b"II*\0" + MARK.encode() + bytes(118)
    source.file_meta.SourceApplicationEntityTitle = MARK
    source.file_meta.PrivateInformationCreatorUID = "1.2.3"
    source.file_meta.PrivateInformation = MARK.encode()
    written, leaks, data = clean(source)
    assert leaks == []
    assert data[:132] == bytes(128) + b"DICM"
    assert MARK.encode() not in data
    assert written.file_meta.MediaStorageSOPInstanceUID == written.SOPInstanceUID
    assert written.file_meta.MediaStorageSOPClassUID == written.SOPClassUID
    assert {e.keyword for e in written.file_meta} == {
        "FileMetaInformationGroupLength", "FileMetaInformationVersion", "MediaStorageSOPClassUID",
        "MediaStorageSOPInstanceUID", "TransferSyntaxUID", "ImplementationClassUID",
        "ImplementationVersionName",
    }  # fmt: skip


# D3: private elements


def with_private(source: Dataset) -> Dataset:
    """The same private elements at two levels, of two makers."""
    item = Dataset()
    for place in (source, item):
        for maker in ("MAKER", "UNKNOWN"):
            block = place.private_block(0x0019, maker, create=True)
            block.add_new(0x10, "DS", "1.5")
            block.add_new(0x11, "LO", MARK)
            block.add_new(0x12, "PN", MARK)
            block.add_new(0x13, "DA", "20190305")
            block.add_new(0x14, "UI", "1.2.826.0.1.3680043.9.99")
            block.add_new(0x15, "SQ", [inside(PatientName=MARK, KVP="120")])
            block.add_new(0x16, "SH", "built 2019-03-05 b")
    source.SharedFunctionalGroupsSequence = nest(item, 2)
    return source


def test_private_elements_go(dicom_dataset: Made, clean: Clean) -> None:
    written, leaks, data = clean(with_private(dicom_dataset()))
    assert leaks == []
    assert MARK.encode() not in data and b"MAKER" not in data and b"UNKNOWN" not in data
    assert not any(element.tag.is_private for element in written.iterall())


def test_safe_private_elements_stay_by_creator(dicom_dataset: Made, clean: Clean) -> None:
    elements = tuple(f"(0019,xx{n})" for n in (10, 12, 13, 14, 15, 16))
    policy = DeidentificationPolicy(safe_private={"MAKER": elements})
    written, leaks, data = clean(with_private(dicom_dataset()), policy)
    assert leaks == []
    for gone in (MARK.encode(), b"UNKNOWN", b"20190305", b"2019-03-05", b"3680043.9.99"):
        assert gone not in data
    nested = written.SharedFunctionalGroupsSequence[0].SharedFunctionalGroupsSequence[0]
    for place in (written, nested.SharedFunctionalGroupsSequence[0]):
        block = place.private_block(0x0019, "MAKER")
        assert block[0x10].value == 1.5
        assert block[0x13].value < "1930"
        assert block[0x14].value.startswith("2.25.")
        assert "PatientName" in block[0x15].value[0] and not block[0x15].value[0].PatientName
        assert block[0x15].value[0].KVP == 120
        assert block[0x16].value == "built  b"
        assert 0x11 not in block and 0x12 not in block


def test_private_elements_without_a_vr_are_known_by_their_creator(
    dicom_dataset: Made, clean: Clean
) -> None:
    """Implicit VR says nothing of them; pydicom's dictionary does, of some."""
    source = dicom_dataset(syntax=ImplicitVRLittleEndian)
    block = source.private_block(0x0019, "GEMS_ACQU_01", create=True)
    block.add_new(0x02, "SL", 12)
    block.add_new(0xFF, "LO", MARK)
    policy = DeidentificationPolicy(safe_private={"GEMS_ACQU_01": ("(0019,xx02)", "(0019,xxFF)")})
    written, leaks, data = clean(source, policy)
    assert leaks == []
    assert written.private_block(0x0019, "GEMS_ACQU_01")[0x02].value == 12
    assert MARK.encode() not in data


@pytest.mark.parametrize(
    ("status", "safe", "kept"),
    [("SAFE", None, {0x10, 0x13, 0x14}), ("MIXED", [0x10], {0x10}), ("UNSAFE", None, set())],
)
@pytest.mark.parametrize("trusted", [False, True])
def test_what_a_file_declares_safe(
    dicom_dataset: Made, clean: Clean, status: str, safe: Any, kept: set[int], trusted: bool
) -> None:
    source = with_private(dicom_dataset())
    for place in (source, source.SharedFunctionalGroupsSequence[0]):
        for maker in ("MAKER", "UNKNOWN"):
            for element in (0x11, 0x15, 0x16):
                if (0x0019, 0x0010) in place:
                    del place.private_block(0x0019, maker)[element]
    declared = Dataset()
    declared.PrivateGroupReference, declared.PrivateCreatorReference = 0x0019, "MAKER"
    declared.BlockIdentifyingInformationStatus = status
    if safe:
        declared.NonidentifyingPrivateElements = safe
    source.PrivateDataElementCharacteristicsSequence = [declared]
    written, leaks, _ = clean(source, DeidentificationPolicy(declared_safe_private=trusted))
    assert leaks == []
    found = {
        e.tag.elem & 0xFF for e in written if e.tag.is_private and not e.tag.is_private_creator
    }
    assert found == (kept if trusted else set())


# D4: unique identifiers


def test_references_between_objects_hold(dicom_dataset: Made, clean: Clean) -> None:
    source = dicom_dataset(FrameOfReferenceUID="1.2.826.0.1.3680043.9.5")
    reference = Dataset()
    reference.ReferencedSOPClassUID = CTImageStorage
    reference.ReferencedSOPInstanceUID = "1.2.826.0.1.3680043.9.8"
    source.SourceImageSequence = [reference]
    written, leaks, data = clean(source)
    other = clean(dicom_dataset(SOPInstanceUID="1.2.826.0.1.3680043.9.8"))
    assert leaks == other.leaks == [] and b"3680043" not in data
    assert written.SourceImageSequence[0].ReferencedSOPClassUID == CTImageStorage
    assert written.SourceImageSequence[0].ReferencedSOPInstanceUID == other.written.SOPInstanceUID
    assert written.StudyInstanceUID == other.written.StudyInstanceUID
    assert written.SOPClassUID == source.SOPClassUID
    uids = {written[n].value for n in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")}
    assert len(uids) == 3


def test_uids_are_retained_on_demand(dicom_dataset: Made, clean: Clean) -> None:
    policy = DeidentificationPolicy(retain=("uids",))
    source = dicom_dataset(FrameOfReferenceUID=f"1.2.{MARK}")
    written, leaks, data = clean(source, policy)
    assert leaks == []
    assert written.SOPInstanceUID == source.SOPInstanceUID
    assert written.StudyInstanceUID == source.StudyInstanceUID
    assert written.file_meta.MediaStorageSOPInstanceUID == source.SOPInstanceUID
    assert MARK.encode() not in data  # that was no UID


# D6: dates


@pytest.mark.parametrize("dates", ["modified", "removed", "full"])
def test_dates_by_policy(dicom_dataset: Made, clean: Clean, dates: Any) -> None:
    private = {"MAKER": ("(0019,xx13)",)}
    policy = DeidentificationPolicy(dates=dates, safe_private=private)
    source = dicom_dataset(
        AcquisitionDateTime="20190604073000.5+0100",  # 91 days later
        TimezoneOffsetFromUTC="+0100",
        PatientBirthDate="19690215",
        SoftwareVersions=["VE11 2019-03-05", "5.3.2019", "5.10.12"],
    )
    source.private_block(0x0019, "MAKER", create=True).add_new(0x13, "DA", "20190604")
    source.SharedFunctionalGroupsSequence = nest(inside(StudyDate="20190305"), 3)
    written, leaks, data = clean(source, policy)
    assert leaks == []
    assert b"19690215" not in data  # no option keeps a birth date
    nested = nest(written, 0)[0]
    for _ in range(4):
        nested = nested.SharedFunctionalGroupsSequence[0] if "StudyTime" in nested else nested
    marker = written.LongitudinalTemporalInformationModified
    if dates == "full":
        assert marker == "UNMODIFIED"
        assert written.AcquisitionDateTime == source.AcquisitionDateTime
        assert (written.StudyDate, written.StudyTime) == ("20190305", "101500")
        assert written.TimezoneOffsetFromUTC == "+0100"
        return
    for gone in (*DAYS, "20190604", "5.3.2019", "0730", "+0100"):
        assert gone.encode() not in data
    assert written.SoftwareVersions == ["VE11", "", "5.10.12"]
    assert not written.StudyTime
    if dates == "removed":
        assert marker == "REMOVED"
        assert not written.StudyDate  # and where one is demanded, nobody's
        assert written.AcquisitionDateTime == profile.DUMMIES["DT"]
        assert not any(e.tag.is_private for e in written)
        return
    assert marker == "MODIFIED"
    first = date.fromisoformat(written.StudyDate)
    assert (date.fromisoformat(written.AcquisitionDateTime) - first).days == 91
    assert (date.fromisoformat(written[0x00191013].value) - first).days == 91
    assert first.year < 1930


def test_a_birth_date_stays_nowhere_where_dates_are_full(dicom_dataset: Made, clean: Clean) -> None:
    policy = DeidentificationPolicy(dates="full", safe_private={"MAKER": ("(0019,xx13)",)})

    def private(vr: str, value: str) -> Dataset:
        source = dicom_dataset(PatientBirthDate="19690215", SoftwareVersions="VE11 15.2.1969")
        source.private_block(0x0019, "MAKER", create=True).add_new(0x13, vr, value)
        return source

    written, leaks, _ = clean(private("LO", "born 1969-02-15"), policy)
    assert leaks == []
    assert not written.SoftwareVersions
    assert (0x0019, 0x1013) not in written
    with pytest.raises(SetAside, match="identifies the patient"):
        clean(private("DA", "19690215"), policy)
    newborn = clean(dicom_dataset(PatientBirthDate="20190305", StudyDate="20190305"), policy)
    assert newborn.leaks == []
    assert newborn.written.StudyDate == "20190305"  # a day of care, as the policy wants it


def test_dates_move_together_per_patient(dicom_dataset: Made, clean: Clean) -> None:
    def moved(**attributes: Any) -> date:
        return date.fromisoformat(clean(dicom_dataset(**attributes)).written.StudyDate)

    first, later = moved(StudyDate="20190305"), moved(StudyDate="20190604")
    assert (later - first).days == 91
    assert moved(StudyDate="20190305", PatientID="MRN-9912345") != first


@pytest.mark.parametrize("nonsense", ["20191399", "yesterday", "2019", "00010101"])
def test_what_is_no_date_is_emptied(dicom_dataset: Made, clean: Clean, nonsense: str) -> None:
    source = dicom_dataset()
    source.add_new("StudyDate", "DA", nonsense)
    assert clean(source).written.StudyDate == ""


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("VE11 20190305", "VE11"),
        ("2019-03-05 VE11", "VE11"),
        ("2019/3/5", ""),
        ("05/03/19", ""),
        ("5.3.2019", ""),
        ("5 Mar 2019", ""),
        ("5-MAR-2019", ""),
        ("March 5, 2019", ""),
        ("5th March 2019", ""),
        ("MAR-05-2019", ""),
        ("2019-Mar-05", ""),
        ("5. M\u00e4rz 2019", ""),
        ("5 de marzo de 2019", ""),
        ("05-Mar-19", ""),
        ("05032019", ""),
        ("2019_03_05", ""),
        ("VE11 20190305101559", "VE11"),
        ("VE11 20190305T1015", "VE11"),
        ("1 MARKER 20", "1 MARKER 20"),
        ("4.12.06", "4.12.06"),  # a version
        ("2019", "2019"),
        ("20195305", "20195305"),  # no day of any year
        ("120190305", "120190305"),
    ],
)
def test_a_date_in_a_text_that_stays_is_cut_out(
    dicom_dataset: Made, clean: Clean, text: str, kept: str
) -> None:
    source = dicom_dataset(SoftwareVersions=text, StudyDate="20180101")
    assert clean(source).written.SoftwareVersions == kept


# D7: markers


def test_markers_say_what_was_done(dicom_dataset: Made, clean: Clean) -> None:
    policy = DeidentificationPolicy(dates="removed", retain=())
    source = dicom_dataset(DeidentificationMethod=f"{MARK} wrote this")
    earlier = []
    for code, scheme in (
        ("113100", "DCM"),
        ("113106", "DCM"),
        ("113101", "99LOCAL"),
        (MARK, "DCM"),
    ):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, scheme, MARK
        earlier.append(item)
    source.DeidentificationMethodCodeSequence = earlier
    written, leaks, data = clean(source, policy)
    assert leaks == [] and MARK.encode() not in data
    assert written.PatientIdentityRemoved == "YES"
    assert written.LongitudinalTemporalInformationModified == "REMOVED"
    codes = [
        (i.CodeValue, i.CodingSchemeDesignator, i.CodeMeaning)
        for i in written.DeidentificationMethodCodeSequence
    ]
    assert codes == [(c, "DCM", CID_7050[c]) for c in ("113100", "113106", "113100")]
    tool, edition, rules = written.DeidentificationMethod
    assert tool == deidentify.TOOL and edition == "PS3.15 Table E.1-1 2026c"
    assert rules == f"policy {profile.policy_digest(policy)[:32]}"
    assert all(len(line) <= 64 for line in written.DeidentificationMethod)
    assert written.PatientID == written.PatientName == NAMES.patient("MRN-0012345")


def test_masked_pixels_are_claimed_where_they_were_masked(
    dicom_dataset: Made, clean: Clean
) -> None:
    source = dicom_dataset(BurnedInAnnotation="YES")
    plain, masked = clean(source).written, clean(source, masked=True).written
    codes = [
        {i.CodeValue for i in one.DeidentificationMethodCodeSequence} for one in (plain, masked)
    ]
    assert codes[1] - codes[0] == {"113101"}
    assert (plain.BurnedInAnnotation, masked.BurnedInAnnotation) == ("YES", "NO")


# D8: see test_policy.py. Ages and what options retain:


@pytest.mark.parametrize(
    ("age", "kept"),
    [("089Y", "089Y"), ("090Y", "090Y"), ("103Y", "090Y"), ("018M", "018M"), ("old", None)],
)
def test_ages_over_89_are_one_group(
    dicom_dataset: Made, clean: Clean, age: str, kept: str | None
) -> None:
    assert clean(dicom_dataset(PatientAge=age)).written.get("PatientAge") == kept


def test_ages_stay_on_demand(dicom_dataset: Made, clean: Clean) -> None:
    policy = DeidentificationPolicy(ages_above_89="kept")
    written, leaks, _ = clean(dicom_dataset(PatientAge="103Y"), policy)
    assert (written.PatientAge, leaks) == ("103Y", [])


RETAINED: dict[str, dict[str, Any]] = {
    "patient_characteristics": {"PatientSex": "F", "PatientWeight": "70.5", "SmokingStatus": "NO"},
    "device_identity": {"StationName": "CT-ROOM-7", "DeviceSerialNumber": "SN7719902"},
    "institution_identity": {"InstitutionName": "Mount Doom", "InstitutionAddress": "Way 4"},
}


@pytest.mark.parametrize("option", RETAINED)
def test_each_option_retains_its_group_alone(
    dicom_dataset: Made, clean: Clean, option: Any
) -> None:
    values = {name: value for group in RETAINED.values() for name, value in group.items()}
    policy = DeidentificationPolicy(retain=(option,))
    written, leaks, _ = clean(dicom_dataset(**values), policy)
    assert leaks == []
    for name, value in values.items():
        kept = str(written.get(name) or "") == value
        assert kept == (name in RETAINED[option]), name


def test_another_s_identity_in_a_retained_text_takes_it_out(
    dicom_dataset: Made, clean: Clean
) -> None:
    policy = DeidentificationPolicy(retain=("institution_identity",))
    source = dicom_dataset(InstitutionName="Quernstein Clinic", InstitutionAddress="Way 4")
    written, leaks, data = clean(source, policy)
    assert leaks == [] and b"quernstein" not in data.lower()
    assert written.InstitutionAddress == "Way 4"


# D10: graphics


def test_graphics_of_all_kinds_go(dicom_dataset: Made, clean: Clean) -> None:
    source, item = dicom_dataset(), Dataset()
    for place in (source, item):
        for plane in (0x6000, 0x601E):
            place.add_new((plane, 0x0010), "US", 8)
            place.add_new((plane, 0x0022), "LO", MARK)
            place.add_new((plane, 0x3000), "OW", MARK.encode())
            place.add_new((plane, 0x4000), "LT", MARK)
        place.add_new(0x50000010, "US", 1)
        place.add_new(0x50003000, "OW", MARK.encode())
        text = inside(UnformattedTextValue=MARK)
        place.GraphicAnnotationSequence = [inside("TextObjectSequence", UnformattedTextValue=MARK)]
        place.TextObjectSequence = [text]  # outside the sequence that the table names
        place.IconImageSequence = [Dataset()]
        place.IconImageSequence[0].Rows = place.IconImageSequence[0].Columns = 2
        place.IconImageSequence[0].add_new("PixelData", "OB", MARK.encode())
        place.WaveformAnnotationSequence = [text]
        place.WaveformSequence = [Dataset()]
        place.WaveformSequence[0].ChannelDefinitionSequence = [inside(ChannelLabel=MARK)]
        place.WaveformSequence[0].add_new("WaveformData", "OB", MARK.encode())
    source.SharedFunctionalGroupsSequence = nest(item, 2)
    written, leaks, data = clean(source)
    assert leaks == [] and MARK.encode() not in data
    assert not any(e.tag.group >> 8 in (0x50, 0x60) for e in written.iterall())
    assert "IconImageSequence" not in written


# D11: what other objects say


def test_reports_documents_and_plans_say_nothing(dicom_dataset: Made, clean: Clean) -> None:
    source = dicom_dataset()
    content = inside(TextValue=MARK, PersonName=MARK, DateTime="20190305101500", UID="1.2.3.4.5")
    source.ContentSequence = [content, inside("ContentSequence", TextValue=MARK)]
    source.AcquisitionContextSequence = [content]
    source.VerifyingObserverSequence = [inside(VerifyingObserverName=MARK)]
    source.add_new("EncapsulatedDocument", "OB", f"%PDF {MARK}".encode())
    source.DocumentTitle, source.MIMETypeOfEncapsulatedDocument = MARK, "application/pdf"
    source.add_new(0x00420013, "SQ", [inside(ReferencedSOPInstanceUID="1.2.3.4.5")])
    source.StructureSetLabel = source.StructureSetName = source.RTPlanLabel = MARK
    source.StructureSetROISequence = [inside(ROIName=MARK, ROIDescription=MARK, ROINumber=1)]
    source.BeamSequence = [inside(BeamName=MARK, BeamDescription=MARK, TreatmentMachineName=MARK)]
    written, leaks, data = clean(source)
    assert leaks == []
    assert MARK.encode() not in data and b"%PDF" not in data and b"20190305" not in data
    assert b"1.2.3.4.5" not in data
    assert written.StructureSetROISequence[0].ROINumber == 1


# D12: descriptors


def test_of_descriptions_only_allowed_words_stay(dicom_dataset: Made, clean: Clean) -> None:
    policy = DeidentificationPolicy(descriptors=("axial", "T2", "KOPF"))
    source = dicom_dataset(
        SpecificCharacterSet="ISO_IR 192",
        StudyDescription=f"Kopf {MARK} T2-axial, Dr. Ärger 20190305",
        SeriesDescription=f"{MARK}",
        ProtocolName=f"{MARK}",
        PatientComments=f"axial\r\n{MARK}_axial",
        RequestedProcedureDescription="Taxial axial1",
        SequenceName="axial",  # the table does not say that this is a description
    )
    source.SharedFunctionalGroupsSequence = nest(inside(ImageComments=f"axial {MARK}"), 2)
    written, leaks, data = clean(source, policy)
    assert leaks == [] and MARK.encode() not in data and "Ärger".encode() not in data
    assert written.StudyDescription == "Kopf T2 axial"
    assert written.PatientComments == "axial axial"
    assert "SeriesDescription" not in written and "SequenceName" not in written
    assert written.ProtocolName == "ANONYMIZED"
    assert written.RequestedProcedureDescription == ""
    assert data.count(b"axial") == 4


def test_without_an_allow_list_no_description_stays(dicom_dataset: Made, clean: Clean) -> None:
    written, leaks, _ = clean(dicom_dataset(StudyDescription="axial", ProtocolName="axial"))
    assert leaks == [] and "StudyDescription" not in written
    assert written.ProtocolName == "ANONYMIZED"


def test_an_allowed_word_that_is_the_patient_s_name_goes(dicom_dataset: Made, clean: Clean) -> None:
    policy = DeidentificationPolicy(descriptors=("quernstein", "axial"))
    source = dicom_dataset(StudyDescription="Quernstein axial", SeriesDescription="axial")
    written, leaks, _ = clean(source, policy)
    assert leaks == []
    assert "StudyDescription" not in written and written.SeriesDescription == "axial"


# D13: what nobody lists


def test_what_the_table_does_not_list(dicom_dataset: Made, clean: Clean) -> None:
    source, item = dicom_dataset(), Dataset()
    for place in (source, item):
        place.add_new(0x00081190, "UR", f"https://{MARK}/")  # RetrieveURL
        place.add_new(0x00080002, "LO", MARK)  # no such attribute
        place.add_new(0x00081030, "UN", MARK.encode())  # StudyDescription, its VR lost
        place.add_new(0x00400008, "PN", MARK)  # a known tag in a wrong VR
        place.add_new(0x00180020, "CS", f"{MARK} {MARK} {MARK}")  # longer than a code
        place.add_new(0x00080104, "LO", MARK)  # CodeMeaning
        place.add_new(0x00189506, "SH", MARK)  # free text of another attribute
        place.add_new(0x00142006, "PN", MARK)  # a person in an attribute of another trade
        place.add_new(0x00080008, "CS", ["ORIGINAL", MARK.lower()])
        place.NameOfPhysiciansReadingStudy = MARK
        place.add_new(0x04000561, "SQ", [inside(PatientName=MARK)])  # OriginalAttributesSequence
        place.add_new(0xFFFAFFFA, "SQ", [Dataset()])  # DigitalSignaturesSequence
        place.add_new(0xFFFCFFFC, "OB", MARK.encode())  # padding
    source.SharedFunctionalGroupsSequence = nest(item, 2)
    written, leaks, data = clean(source)
    assert leaks == []
    assert MARK.lower().encode() not in data.lower()
    groups = {element.tag.group for element in written.iterall()}
    assert groups <= {
        0x0008,
        0x0010,
        0x0012,
        0x0014,
        0x0018,
        0x0020,
        0x0028,
        0x0040,
        0x5200,
        0x7FE0,
    }


def test_a_code_that_repeats_the_name_holds_the_file_back(
    dicom_dataset: Made, clean: Clean
) -> None:
    with pytest.raises(SetAside) as caught:
        clean(dicom_dataset(BodyPartExamined="QUERNSTEIN"))
    assert caught.value.reason == "residual_identity"


def test_a_patient_may_be_called_like_a_body_part(dicom_dataset: Made, clean: Clean) -> None:
    written, leaks, _ = clean(dicom_dataset(PatientName="Hand^Peter", BodyPartExamined="HAND"))
    assert (written.BodyPartExamined, leaks) == ("HAND", [])


@pytest.mark.parametrize(
    ("mrn", "tag", "vr", "number"),
    [
        ("7651234", 0x00189073, "FD", 7651234.0),
        ("7651234", 0x00189073, "FD", -7651234.0),
        ("7651234", 0x00180060, "DS", "7651234.0"),
        ("0007651234", 0x00181151, "IS", "7651234"),
        ("MRN-7651234", 0x00181151, "IS", "+07651234"),
        ("MRN-7651234", 0x00209057, "UL", 7651234),
    ],
)
def test_an_identifier_written_as_a_number_holds_the_file_back(
    dicom_dataset: Made, clean: Clean, mrn: str, tag: int, vr: str, number: Any
) -> None:
    source = dicom_dataset(PatientID=mrn)
    source.add_new(tag, vr, number)
    with pytest.raises(SetAside) as caught:
        clean(source)
    assert caught.value.reason == "residual_identity"


@pytest.mark.parametrize(
    "name",
    [b"Quernstein", "Quernstein".encode("utf-16-le"), base64.b64encode(b"Quernstein^Adalbert")],
)
def test_a_name_in_a_table_of_bytes_costs_that_file_only(
    dicom_dataset: Made, clean: Clean, name: bytes
) -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [len(name) // 2, 0, 16])
    table.add_new("LUTData", "OW", name)
    with pytest.raises(SetAside) as caught:
        clean(dicom_dataset(VOILUTSequence=[table]))
    assert caught.value.reason == "residual_identity"


def test_numbers_whose_bytes_spell_a_name_cost_that_file_only(
    dicom_dataset: Made, clean: Clean
) -> None:
    source = dicom_dataset(PatientName="Adalbert^Jo")
    source.add_new(0x00189087, "FD", struct.unpack("<d", b"Adalbert")[0])
    with pytest.raises(SetAside, match="identifies the patient"):
        clean(source)


@pytest.mark.parametrize("number", ["inf", "9" * 5000])
def test_an_integer_that_nobody_can_read_stays_out(
    dicom_dataset: Made, encoded: Callable[[Dataset], bytes], number: str
) -> None:
    source = dicom.parse(encoded(dicom_dataset()))
    source[0x00181151] = encoding.raw_element(0x00181151, "IS", number.encode())
    stored = dicom.stored_pixels(source)
    target = deidentify.deidentify(source, stored, NAMES, spellings.mention({}))
    assert "XRayTubeCurrent" not in target


@pytest.mark.parametrize(
    "text", ["V7651234", "0007651234", base64.b64encode(b"x MRN-7651234").decode()]
)
def test_a_text_that_repeats_a_number_in_any_way_is_emptied(
    dicom_dataset: Made, clean: Clean, text: str
) -> None:
    written, leaks, _ = clean(dicom_dataset(PatientID="MRN-7651234", Manufacturer=text))
    assert (written.Manufacturer, leaks) == ("", [])


def test_a_maker_called_like_the_hospital_is_emptied(dicom_dataset: Made, clean: Clean) -> None:
    written, leaks, _ = clean(dicom_dataset(InstitutionName="ALDEBARAN"))
    assert (written.Manufacturer, leaks) == ("", [])


def test_a_local_code_goes_and_a_standard_one_stays(dicom_dataset: Made, clean: Clean) -> None:
    def code(value: str, scheme: str) -> Dataset:
        return inside(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=MARK)

    source = dicom_dataset()
    source.ViewCodeSequence = [code("R-10206", "SRT"), code(MARK, "99LOCAL"), code("a b", "DCM")]
    written, leaks, data = clean(source)
    assert leaks == [] and MARK.encode() not in data
    standard, *others = written.ViewCodeSequence
    assert (standard.CodeValue, standard.CodeMeaning) == ("R-10206", "see code value")
    assert [len(item) for item in others] == [0, 0]


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("Mühlqvist^Änne", {"Manufacturer": "MÜHLQVIST MED"}),
        ("Mühlqvist^Änne", {"ManufacturerModelName": "Muehlqvist"}),
        ("Mühlqvist^Änne", {"SoftwareVersions": ["1.2", "MUHLQVIST"]}),
        ("Sørensen^Åse", {"Manufacturer": "Soerensen"}),
        ("Mu\u0308hlqvist", {"Manufacturer": "mühlqvist"}),
    ],
)
def test_a_name_in_other_letters_is_still_that_name(
    dicom_dataset: Made, clean: Clean, told: str, kept: dict[str, Any]
) -> None:
    source = dicom_dataset(SpecificCharacterSet="ISO_IR 192", PatientName=told, **kept)
    written, leaks, _ = clean(source)
    assert leaks == []
    assert not written[next(iter(kept))].value


def test_short_names_are_no_false_alarm(dicom_dataset: Made, clean: Clean) -> None:
    source = dicom_dataset(PatientName="Ray^Uid^Basic^Patient", PatientID="17", AccessionNumber="1")
    source.ConvolutionKernel = "XRAY"
    assert clean(source).leaks == []


# D16: a valid instance


def test_what_must_stay_stays(dicom_dataset: Made, clean: Clean) -> None:
    source = dicom_dataset(KVP="120", PixelSpacing=["0.2", "0.2"], BodyPartExamined="CHEST")
    source.InStackPositionNumber, source.AcquisitionDuration = 7, 1.5  # UL, FD
    source.ExposureControlSensingRegionLeftVerticalEdge = 3  # IS
    source.PixelPaddingValue, source.TagAngleFirstAxis, source.SimpleFrameList = 0, 2.5, [1, 2]
    source.FrameIncrementPointer = 0x00181063  # AT
    written, leaks, _ = clean(source)
    assert leaks == []
    same = ("SOPClassUID", "Modality", "KVP", "PixelSpacing", "BodyPartExamined", "PatientSex",
            "PatientAge", "Manufacturer", "ManufacturerModelName", "Rows", "PixelData",
            "InStackPositionNumber", "AcquisitionDuration", "SimpleFrameList", "TagAngleFirstAxis",
            "PixelPaddingValue", "ExposureControlSensingRegionLeftVerticalEdge",
            "FrameIncrementPointer")  # fmt: skip
    assert {n: written[n].value for n in same} == {n: source[n].value for n in same}


def test_text_of_another_character_set_is_written_as_utf_8(
    dicom_dataset: Made, clean: Clean
) -> None:
    source = dicom_dataset(SpecificCharacterSet="ISO_IR 100", Manufacturer="Gerätebau")
    source.SharedFunctionalGroupsSequence = nest(inside(Manufacturer="Gerätebau"), 1)
    item = source.SharedFunctionalGroupsSequence[0].SharedFunctionalGroupsSequence[0]
    item.SpecificCharacterSet = "ISO_IR 100"
    written, leaks, data = clean(source)
    assert leaks == [] and written.SpecificCharacterSet == "ISO_IR 192"
    assert data.count("Gerätebau".encode()) == 2 and b"ISO_IR 100" not in data
    assert written.Manufacturer == "Gerätebau"


def test_what_is_built_reads_as_it_is_written(dicom_dataset: Made) -> None:
    source = dicom_dataset(SpecificCharacterSet="ISO_IR 100", Manufacturer="Gerätebau")
    stored = np.zeros((8, 6), np.uint16)
    target = deidentify.deidentify(source, stored, NAMES, spellings.mention({}))
    written = pydicom.dcmread(BytesIO(encoding.encode(target)))
    assert target.Manufacturer == written.Manufacturer == "Gerätebau"
    assert target.file_meta.MediaStorageSOPInstanceUID == target.SOPInstanceUID


def test_the_source_is_left_as_it_was(
    dicom_dataset: Made, clean: Clean, encoded: Callable[[Dataset], bytes]
) -> None:
    parsed = dicom.parse(encoded(dicom_dataset(SeriesDescription="any")))
    stored = dicom.stored_pixels(parsed)
    before, pixels = json.dumps(parsed.to_json_dict()), stored.copy()
    deidentify.deidentify(parsed, stored, NAMES, spellings.mention({}))
    assert json.dumps(parsed.to_json_dict()) == before
    assert np.array_equal(stored, pixels)


def shapes() -> dict[str, tuple[Dataset, NDArray[Any], dict[str, Any]]]:
    """What a source says, its pixels as the reader gives them, and what must be written."""
    grey = np.arange(48, dtype=np.uint16).reshape(8, 6) * 85
    bits = (np.arange(2 * 48).reshape(2, 8, 6) % 3 == 0).astype(np.uint8)
    rgb = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)
    one = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    three = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    palette = {"PhotometricInterpretation": "PALETTE COLOR", "BitsStored": 8}
    ybr = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL", "PlanarConfiguration": 1,
           "BitsStored": 8}  # fmt: skip
    return {
        "grey": ({}, grey, one | {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}),
        "inverted": (
            {"PhotometricInterpretation": "MONOCHROME1"},
            grey,
            {"PhotometricInterpretation": "MONOCHROME1"},
        ),
        "signed": ({}, grey.astype(np.int16) - 2048, {"PixelRepresentation": 1, "BitsStored": 12}),
        "frames": (
            {"NumberOfFrames": 2},
            np.stack([grey, grey + 1]),
            one | {"NumberOfFrames": 2, "Rows": 8, "Columns": 6},
        ),
        "one frame of three columns": (
            {"NumberOfFrames": 4},
            np.zeros((4, 8, 3), np.uint8),
            one | {"NumberOfFrames": 4, "Rows": 8, "Columns": 3},
        ),
        "said to be one frame": ({"NumberOfFrames": 1}, grey, one | {"NumberOfFrames": 1}),
        "colour": (ybr, rgb, three | {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}),
        "frames in colour": (
            ybr | {"NumberOfFrames": 2},
            np.stack([rgb, rgb + 1]),
            three | {"NumberOfFrames": 2, "Rows": 8, "Columns": 6},
        ),
        "palette": (palette, rgb.astype(np.uint16) * 257, three | {"BitsStored": 16}),
        "colour made grey": (ybr, rgb[..., 0], one | {"BitsStored": 8, "BitsAllocated": 8}),
        "single bits": (
            {"NumberOfFrames": 2, "BitsAllocated": 1, "BitsStored": 1, "HighBit": 0},
            bits,
            one | {"NumberOfFrames": 2, "BitsAllocated": 1, "BitsStored": 1, "HighBit": 0},
        ),
        "big endian": ({}, grey.astype(">u2"), one),
    }  # fmt: skip


@pytest.mark.parametrize("name", shapes())
def test_pixels_are_described_as_they_are_written(dicom_dataset: Made, name: str) -> None:
    header, stored, wanted = shapes()[name]
    source = dicom_dataset(**header)
    source.file_meta.TransferSyntaxUID = RLELossless  # they need not lie in it as they are given
    source.add_new("RedPaletteColorLookupTableDescriptor", "US", [4, 0, 16])
    source.add_new("RedPaletteColorLookupTableData", "OW", bytes(8))
    target = deidentify.deidentify(source, stored, NAMES, spellings.mention({}))
    written = pydicom.dcmread(BytesIO(encoding.encode(target)))
    assert {key: written.get(key) for key in wanted} == wanted
    assert np.array_equal(written.pixel_array, stored)
    assert ("PlanarConfiguration" in written) == (wanted.get("SamplesPerPixel") == 3)
    assert "RedPaletteColorLookupTableDescriptor" not in written
    assert "LossyImageCompression" not in written


def test_lost_detail_stays_said(dicom_dataset: Made) -> None:
    source = dicom_dataset()
    source.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    stored = np.zeros((8, 6), np.uint8)
    target = deidentify.deidentify(source, stored, NAMES, spellings.mention({}))
    assert target.LossyImageCompression == "01"
    assert target.LossyImageCompressionMethod == "ISO_10918_1"


@pytest.mark.parametrize("name", ["SOPClassUID", "SOPInstanceUID"])
def test_an_instance_without_its_identity_cannot_be_written(
    dicom_dataset: Made, encoded: Callable[[Dataset], bytes], name: str
) -> None:
    parsed = dicom.parse(encoded(dicom_dataset()))
    del parsed[name]
    with pytest.raises(SetAside) as caught:
        deidentify.deidentify(parsed, dicom.stored_pixels(parsed), NAMES, spellings.mention({}))
    assert caught.value.reason == "incomplete_header"


@pytest.mark.parametrize("vr", [b"US", b"SH", b"AT", b"ZZ"])
@pytest.mark.parametrize("element", [0x16, 0x18])
def test_uids_that_are_declared_to_be_something_else_are_as_good_as_none(
    dicom_dataset: Made, encoded: Callable[[Dataset], bytes], element: int, vr: bytes
) -> None:
    tag = b"\x08\0%c\0" % element
    parsed = dicom.parse(encoded(dicom_dataset()).replace(tag + b"UI", tag + vr))
    with pytest.raises(SetAside) as caught:
        deidentify.deidentify(parsed, dicom.stored_pixels(parsed), NAMES, spellings.mention({}))
    assert caught.value.reason == "incomplete_header"


# The writer


def read_and_cleaned(path: Path, policy: DeidentificationPolicy) -> Dataset | None:
    try:
        source = dicom.parse(path.read_bytes())
        stored = dicom.stored_pixels(source)
        if not source.get("PatientID"):
            source.PatientID = "MRN-7651234"
        before = identities.describe(source, "", policy)
        return deidentify.deidentify(
            source, stored, NAMES, spellings.mention(before.identifiers), policy
        )
    except SetAside:
        return None


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker: what does not keep to the standard is judged, not warned about."""
    settings = pydicom.config.settings
    monkeypatch.setattr(settings, "_reading_validation_mode", pydicom.config.IGNORE)
    monkeypatch.setattr(settings, "_writing_validation_mode", pydicom.config.IGNORE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("lenient")
def test_the_writer_writes_what_pydicom_writes() -> None:
    """Byte by byte, on pydicom's own files, with much retained."""
    policy = DeidentificationPolicy(
        dates="full",
        retain=("uids", "device_identity", "institution_identity", "patient_characteristics"),
        descriptors=("CT", "MR", "head", "chest"),
    )
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    compared = 0
    for path in sorted(folder.glob("*.dcm")):
        target = read_and_cleaned(path, policy)
        if target is not None:
            buffer = BytesIO()
            pydicom.dcmwrite(buffer, target, enforce_file_format=True)
            assert encoding.encode(target) == buffer.getvalue(), path.name
            compared += 1
    assert compared > 40


def test_a_value_too_long_for_its_kind_is_not_written(dicom_dataset: Made) -> None:
    source = dicom_dataset()
    target = deidentify.deidentify(
        source, np.zeros((8, 6), np.uint16), NAMES, spellings.mention({})
    )
    target[0x00080070] = encoding.raw_element(0x00080070, "LO", b"x" * 70_000)
    with pytest.raises(SetAside) as caught:
        encoding.encode(target)
    assert caught.value.reason == "not_rewritable"


def test_no_line_of_the_method_holds_a_secret() -> None:
    assert not any(re.search(r"[0-9a-f]{64}", line) for line in deidentify.method())
