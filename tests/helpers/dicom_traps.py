"""Radiographs that hide one identity each, in one awkward place each; all of it is made up.

A trap is put into a header (`hide`) or into the bytes of a written file (`damage`). Its `rule` is
the requirement on de-identification that it tests, D1 to D13 by number.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

MARK = "Zqxjkvwyr"  # no dictionary's word, and nothing that the rest of the file says
FAMILY, GIVEN, MRN, DAY = "Quernstein", "Adalbert", "MRN-7651234", "20190305"
NAME = f"{FAMILY}^{GIVEN}"
ROOT_UID = "1.2.826.0.1.3680043.9.7"

Hide = Callable[[Dataset], None]


@dataclass(frozen=True)
class Trap:
    """One identity in one place.

    Attributes:
        rule: The requirement that this place belongs to.
        hide: Puts it into a data set.
        secrets: Bytes of which none may be in what is written, whatever their case.
        damage: Puts it into the bytes of a file.
        held: The file may be set aside for this reason instead.
        in_place: It can also be put into a written file, for the check to find.
    """

    rule: str
    hide: Hide = lambda dataset: None
    secrets: tuple[bytes, ...] = (MARK.encode(),)
    damage: Callable[[bytes], bytes] = bytes
    held: str = ""
    in_place: bool = True


def radiograph(number: int = 1, **attributes: Any) -> Dataset:
    """A digital radiograph of 16 x 12 pixels, 12 bits, of a patient who does not exist.

    The number gives its UID and its pixels.
    """
    dataset = Dataset()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID, dataset.StudyInstanceUID = f"{ROOT_UID}.1.{number}", f"{ROOT_UID}.2"
    dataset.SeriesInstanceUID = f"{ROOT_UID}.3"
    dataset.PatientID, dataset.PatientName = MRN, NAME
    dataset.PatientSex, dataset.PatientAge, dataset.PatientBirthDate = "F", "047Y", "19711224"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = DAY, "101559", "ACC7788990"
    dataset.Modality, dataset.ViewPosition = "DX", "PA"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Aldebaran", "Clarus 3"
    dataset.BurnedInAnnotation = "NO"
    pixels = np.roll(np.arange(192, dtype=np.uint16) * 21, number).reshape(16, 12)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.add_new("PixelData", "OW", pixels.tobytes())
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def written(trap: Trap, number: int = 1) -> bytes:
    """The file that a hospital would send."""
    dataset = radiograph(number)
    trap.hide(dataset)
    buffer = BytesIO()
    before = pydicom.config.settings.writing_validation_mode
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    finally:
        pydicom.config.settings.writing_validation_mode = before
    return trap.damage(buffer.getvalue())


def put(tag: int | str, vr: str, value: Any) -> Hide:
    """An element as it is given, whatever the standard says of it."""

    def hide(dataset: Dataset) -> None:
        element = pydicom.DataElement(tag, vr, value, validation_mode=pydicom.config.IGNORE)
        dataset[element.tag] = element

    return hide


def under(*sequences: str, hide: Hide) -> Hide:
    """The same, inside an item of an item of these sequences, the outermost first."""

    def hide_below(dataset: Dataset) -> None:
        item = Dataset()
        hide(item)
        for sequence in reversed(sequences):
            outer = Dataset()
            setattr(outer, sequence, [item])
            item = outer
        dataset.update(item)

    return hide_below


def deep(levels: int) -> Hide:
    """A name inside nested sequences which no rule removes."""
    return under(*["SharedFunctionalGroupsSequence"] * levels, hide=put("PatientName", "PN", MARK))


def private(creator: str, vr: str, value: Any) -> Hide:
    def hide(dataset: Dataset) -> None:
        dataset.private_block(0x0019, creator, create=True).add_new(0x10, vr, value)

    return hide


def _private_sequence(dataset: Dataset) -> None:
    item = Dataset()
    item.PatientName = MARK
    dataset.private_block(0x0029, "ACME 1.1", create=True).add_new(0x10, "SQ", [item])


def _meta(tag: int, vr: str, value: Any) -> Hide:
    return lambda dataset: dataset.file_meta.add_new(tag, vr, value)


def _meta_private(dataset: Dataset) -> None:
    dataset.file_meta.PrivateInformationCreatorUID = f"{ROOT_UID}.9"
    dataset.file_meta.PrivateInformation = MARK.encode() + b"\0"


def _preamble(data: bytes) -> bytes:
    return b"II*\0" + MARK.encode().ljust(124, b"\0") + data[128:]


def _overlay(dataset: Dataset) -> None:
    dataset.add_new(0x60000010, "US", 16)
    dataset.add_new(0x60000011, "US", 12)
    dataset.add_new(0x60000022, "LO", MARK)
    dataset.add_new(0x60003000, "OW", MARK.encode().ljust(24))


def _curve(dataset: Dataset) -> None:
    dataset.add_new(0x50000022, "LO", MARK)
    dataset.add_new(0x50003000, "OW", MARK.encode().ljust(10))


def _overlay_in_pixels(dataset: Dataset) -> None:
    """Letters in the bits above those that are stored, as overlays were before 2004."""
    words = np.frombuffer(dataset.PixelData, "<u2").copy()
    for place, letter in enumerate(MARK.encode()):
        words[2 * place] |= (letter >> 4) << 12
        words[2 * place + 1] |= (letter & 15) << 12
    dataset.PixelData = words.tobytes()


def upper_bits(data: bytes) -> bytes:
    """What `_overlay_in_pixels` wrote, read back from a file."""
    dataset = pydicom.dcmread(BytesIO(data))
    high = np.frombuffer(dataset.PixelData, "<u2") >> 12
    return bytes((int(a) << 4 | int(b)) for a, b in zip(high[::2], high[1::2], strict=True))


def _icon(dataset: Dataset) -> None:
    icon = Dataset()
    icon.Rows = icon.Columns = 4
    icon.add_new("PixelData", "OB", MARK.encode().ljust(16))
    dataset.IconImageSequence = [icon]


def _graphic(dataset: Dataset) -> None:
    text = Dataset()
    text.UnformattedTextValue = MARK
    dataset.GraphicAnnotationSequence = [Dataset()]
    dataset.GraphicAnnotationSequence[0].TextObjectSequence = [text]


def _signature(dataset: Dataset) -> None:
    signature = Dataset()
    signature.MACIDNumber = 1
    signature.CertificateOfSigner = MARK.encode() + b"\0"
    dataset.add_new(0xFFFAFFFA, "SQ", [signature])


def _report(dataset: Dataset) -> None:
    item = Dataset()
    item.ValueType, item.TextValue, item.PersonName = "TEXT", f"seen with {MARK}", MARK
    dataset.ContentSequence = [item]


def _instead_of_pixels(sop_class: str, *hidden: Hide) -> Hide:
    def hide(dataset: Dataset) -> None:
        del dataset.PixelData
        dataset.SOPClassUID = sop_class
        for one in hidden:
            one(dataset)

    return hide


def _structure_set(dataset: Dataset) -> None:
    roi = Dataset()
    roi.ROINumber, roi.ROIName = 1, MARK
    dataset.StructureSetLabel, dataset.StructureSetROISequence = MARK[:16], [roi]


def _jpeg(**extra: Any) -> Hide:
    """A picture whose codestream holds a text segment."""

    def hide(dataset: Dataset) -> None:
        from PIL import Image

        buffer = BytesIO()
        grey = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(16, 12))
        grey.save(buffer, "JPEG", **extra)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = encapsulate([buffer.getvalue()])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit

    return hide


def _exif() -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[0x010E] = MARK  # ImageDescription
    return exif.tobytes()


def _in_charset(charset: str | list[str], name: str, **kept: str) -> Hide:
    def hide(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet, dataset.PatientName = charset, name
        for keyword, value in kept.items():
            setattr(dataset, keyword, value)

    return hide


def _burned_in(**header: str) -> Hide:
    def hide(dataset: Dataset) -> None:
        del dataset.BurnedInAnnotation
        for keyword, value in header.items():
            setattr(dataset, keyword, value)

    return hide


def _behind(data: bytes) -> bytes:
    """An element behind the pixels: DataSetTrailingPadding."""
    value = MARK.encode() + b"\0"
    return data + struct.pack("<HH2sHL", 0xFFFC, 0xFFFC, b"OB", 0, len(value)) + value


def _longer_pixels(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData + MARK.encode() + b"\0"


def _secret(text: str, *encodings: str) -> tuple[bytes, ...]:
    return tuple(text.encode(e) for e in encodings or ("utf-8",))


def several(*hidden: Hide) -> Hide:
    """More than one at once."""

    def hide(dataset: Dataset) -> None:
        for one in hidden:
            one(dataset)

    return hide


OLD_UID = f"{ROOT_UID}.7651234.20190305"
_UID = (OLD_UID.encode(),)
_TEXT = "LT"
HELD_TEXT, HELD_NAME = "burned_in_annotation", "residual_identity"

TRAPS: dict[str, Trap] = {
    # D1: at every level of nesting
    "name one level down": Trap("D1", deep(1)),
    "name five levels down": Trap("D1", deep(5)),
    "name twenty levels down": Trap("D1", deep(20)),
    "request attributes": Trap(
        "D1",
        under("RequestAttributesSequence", hide=put("RequestedProcedureDescription", "LO", MARK)),
    ),
    "original attributes": Trap(
        "D1",
        under(
            "OriginalAttributesSequence",
            "ModifiedAttributesSequence",
            hide=put("PatientName", "PN", MARK),
        ),
    ),
    "contributing equipment": Trap(
        "D1", under("ContributingEquipmentSequence", hide=put("InstitutionName", "LO", MARK))
    ),
    "referenced patient": Trap(
        "D1", under("ReferencedPatientSequence", hide=put("PatientID", "LO", MARK))
    ),
    "meaning of a code": Trap(
        "D1",
        under(
            "ViewCodeSequence",
            hide=several(
                put("CodeValue", "SH", "R-10206"),
                put("CodingSchemeDesignator", "SH", "SRT"),
                put("CodeMeaning", "LO", f"as {MARK} likes it"),
            ),
        ),
    ),
    "code of one's own": Trap(
        "D1",
        under(
            "ViewCodeSequence",
            hide=several(
                put("CodeValue", "SH", MARK), put("CodingSchemeDesignator", "SH", "99HOSPITAL")
            ),
        ),
    ),
    # D2: in front of the data set
    "preamble": Trap("D2", damage=_preamble),
    "sending application": Trap("D2", _meta(0x00020016, "AE", MARK)),
    "private file meta": Trap("D2", _meta_private),
    "implementation version": Trap("D2", _meta(0x00020013, "SH", MARK)),
    # D3: private elements
    "private": Trap("D3", private("SIEMENS CSA HEADER", "LO", MARK)),
    "private of an unknown maker": Trap("D3", private("XYZ 77", "UN", MARK.encode() + b"\0")),
    "private creator": Trap("D3", private(MARK, "LO", "1")),
    "private one level down": Trap(
        "D3", under("SharedFunctionalGroupsSequence", hide=private("ACME", "LO", MARK))
    ),
    "private sequence": Trap("D3", _private_sequence),
    # D4: unique identifiers
    "study's number with the patient's": Trap("D4", put("StudyInstanceUID", "UI", OLD_UID), _UID),
    "reference to another image": Trap(
        "D4",
        under("SourceImageSequence", hide=put("ReferencedSOPInstanceUID", "UI", OLD_UID)),
        _UID,
    ),
    "under the standard's root": Trap(
        "D4",
        put("FrameOfReferenceUID", "UI", "1.2.840.10008.1.4.1.7651234"),
        (b"1.2.840.10008.1.4.1.7651234",),
    ),
    "in no table": Trap("D4", put("PaletteColorLookupTableUID", "UI", OLD_UID), _UID),
    # D5: numbers of patients
    "other identifiers": Trap("D5", put("OtherPatientIDs", "LO", "7651234"), (b"7651234",)),
    "number as a measurement": Trap(
        "D5", put("AcquisitionDuration", "FD", 7651234.0), _secret("7651234"), held=HELD_NAME
    ),
    # D6: dates
    "moment with time zone": Trap(
        "D6", put("AcquisitionDateTime", "DT", "20190305101559.000000+0545"),
        (b"20190305", b"101559", b"+0545"),
    ),
    "time zone": Trap("D6", put("TimezoneOffsetFromUTC", "SH", "+0545"), (b"+0545",)),
    "date in a text": Trap(
        "D6", put("ImageComments", "LT", "compared with 5 Mar 2019"), (b"5 mar 2019",)
    ),
    "date in a version": Trap(
        "D6", put("SoftwareVersions", "LO", "1.2 / 05.03.2019"), (b"05.03.2019",)
    ),
    "somebody's date in a version": Trap(
        "D6", put("SoftwareVersions", "LO", "1.2 / 17.06.2018"), (b"17.06.2018",), in_place=False
    ),
    "date in the old way": Trap("D6", put("SeriesDate", "DA", "2019.03.05"), (b"2019.03.05",)),
    "date in no table": Trap("D6", put("ExpiryDate", "DA", DAY), (DAY.encode(),)),
    "date one level down": Trap(
        "D6", under("SourceImageSequence", hide=put("ContentDate", "DA", DAY)), (DAY.encode(),)
    ),
    # D8: ages above 89
    "very old": Trap("D8", put("PatientAge", "AS", "103Y"), (b"103Y",)),
    # D9: text in the pixels
    "text declared": Trap(
        "D9", _burned_in(BurnedInAnnotation="YES"), held=HELD_TEXT, in_place=False
    ),
    "ultrasound": Trap("D9", _burned_in(Modality="US"), held=HELD_TEXT, in_place=False),
    "secondary capture": Trap(
        "D9", _burned_in(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), held=HELD_TEXT, in_place=False
    ),
    # D10: pictures and drawings beside the pixels
    "overlay": Trap("D10", _overlay),
    "overlay inside the pixels": Trap("D10", _overlay_in_pixels),
    "curve": Trap("D10", _curve),
    "icon": Trap("D10", _icon),
    "graphic annotation": Trap("D10", _graphic),
    "waveform annotation": Trap(
        "D10", under("WaveformAnnotationSequence", hide=put("UnformattedTextValue", "ST", MARK))
    ),
    # D11: other objects
    "structured report in an image": Trap("D11", _report),
    "structured report": Trap(
        "D11", _instead_of_pixels("1.2.840.10008.5.1.4.1.1.88.11", _report), held="no_pixel_data",
        in_place=False,
    ),
    "encapsulated PDF": Trap(
        "D11",
        _instead_of_pixels(
            "1.2.840.10008.5.1.4.1.1.104.1",
            put("EncapsulatedDocument", "OB", b"%PDF-1.4 " + MARK.encode()),
        ),
        held="no_pixel_data", in_place=False,
    ),
    "document beside the pixels": Trap(
        "D11", put("EncapsulatedDocument", "OB", b"<ClinicalDocument>" + MARK.encode() + b"\0")
    ),
    "contours' names": Trap("D11", _structure_set),
    # D12: descriptions
    "study description": Trap("D12", put("StudyDescription", "LO", f"CHEST {MARK}")),
    "series description": Trap("D12", put("SeriesDescription", "LO", f"pa {MARK}")),
    "protocol": Trap("D12", put("ProtocolName", "LO", MARK)),
    "comments": Trap("D12", put("ImageComments", _TEXT, f"repeated for {MARK}")),
    "patient's number in a comment": Trap(
        "D12", put("FrameComments", _TEXT, "7651234"), (b"7651234",)
    ),
    "study's own number": Trap("D12", put("StudyID", "SH", MARK)),
    "name as a version": Trap("D12", put("SoftwareVersions", "LO", FAMILY), (b"quernstein",)),
    "name as a code": Trap(
        "D12", put("BodyPartExamined", "CS", FAMILY.upper()), (b"quernstein",), held=HELD_NAME
    ),
    "explanation of a table": Trap(
        "D12", under("VOILUTSequence", hide=put("LUTExplanation", "LO", MARK))
    ),
    # D13: by value representation, where no table helps
    "unknown attribute": Trap("D13", put(0x00080002, "LO", MARK)),
    "unknown attribute of bytes": Trap("D13", put(0x00180003, "UN", MARK.encode() + b"\0")),
    "known attribute of bytes": Trap("D13", put(0x00081030, "UN", MARK.encode() + b"\0")),
    "bytes in UTF-16": Trap(
        "D13", put(0x00080118, "UN", MARK.encode("utf-16-le")), _secret(MARK, "utf-16-le")
    ),
    "address on the web": Trap("D13", put("RetrieveURL", "UR", f"https://pacs/{MARK}")),
    "person in no table": Trap("D13", put("EvaluatorName", "PN", MARK)),
    "person in a wrong place": Trap("D13", put("KVP", "PN", MARK)),
    "retired attribute": Trap("D13", put(0x00084000, "LT", MARK)),  # IdentifyingComments
    "signature": Trap("D13", _signature),
    "name of a character set": Trap(
        "D13", put("SpecificCharacterSet", "CS", ["ISO_IR 100", MARK]), held="unreadable_header"
    ),
    "table of numbers": Trap(
        "D13", put("RedPaletteColorLookupTableData", "OW", MARK.encode() + b"\0")
    ),
    "profile of colours": Trap("D13", put("ICCProfile", "OB", MARK.encode() + b"\0")),
    # Letters beyond ASCII
    "Latin letters": Trap(
        "D12", _in_charset("ISO_IR 100", "Mühlqvist^Änne", SoftwareVersions="Mühlqvist"),
        _secret("Mühlqvist", "utf-8", "latin-1") + _secret("MÜHLQVIST"),
    ),
    "plain letters for others": Trap(
        "D12", _in_charset("ISO_IR 100", "Mühlqvist^Änne", SoftwareVersions="Muehlqvist"),
        (b"muehlqvist",),
    ),
    "Japanese": Trap(
        "D12",
        _in_charset(["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", ConvolutionKernel="山田"),
        _secret("山田", "utf-8", "iso2022_jp", "utf-16-le"),
    ),
    "Korean": Trap(
        "D12", _in_charset("ISO 2022 IR 149", "Hong^Gildong=洪^吉洞", SoftwareVersions="洪吉洞"),
        _secret("洪", "utf-8", "euc_kr"),
    ),
    "Chinese": Trap(
        "D12", _in_charset("GB18030", "Wang^XiaoDong=王^小东", SoftwareVersions="王小东"),
        _secret("小东", "utf-8", "gb18030"),
    ),
    "character set that lies": Trap(
        "D12",
        several(
            put("SpecificCharacterSet", "CS", "ISO_IR 192"),
            put("PatientName", "PN", "Mühlqvist".encode("latin-1")),
            put("SoftwareVersions", "LO", "Mühlqvist".encode("latin-1")),
        ),
        _secret("Mühlqvist", "utf-8", "latin-1"),
    ),
    # Around the pixels
    "trailing padding": Trap("D13", damage=_behind),
    "more pixels than declared": Trap("D10", _longer_pixels),
    "comment in a JPEG": Trap("D10", _jpeg(comment=MARK.encode()), in_place=False),
    "Exif in a JPEG": Trap("D10", _jpeg(exif=_exif()), in_place=False),
}  # fmt: skip
