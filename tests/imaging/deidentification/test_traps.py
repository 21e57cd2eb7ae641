"""Each hiding place of `dicom_traps`: the cleaning finds it; without the cleaning the check does.

What is left is searched for here by plain `in`, not by the code that is tested.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_traps import MARK, TRAPS, Trap, radiograph, upper_bits, written

from imaging.deidentification import deidentify, encoding, spellings
from imaging.deidentification.burned_in import may_show_text
from imaging.deidentification.pseudonyms import Pseudonyms
from imaging.deidentification.verifying import identities, verify
from imaging.reading import dicom
from imaging.reading.pixels import pixel_digest
from imaging.reasons import SetAside

NAMES = Pseudonyms(b"k" * 32)


def cleaned(data: bytes, spoil: Callable[[Any], None] = lambda target: None) -> tuple[Any, bytes]:
    """What identified the patient, and the written bytes, as the examiner makes them."""
    source = dicom.parse(data)
    stored = dicom.stored_pixels(source)
    if may_show_text(source):
        raise SetAside("burned_in_annotation")
    before = identities.describe(source, pixel_digest(dicom.as_seen(source, stored)))
    target = deidentify.deidentify(source, stored, NAMES, spellings.mention(before.identifiers))
    spoil(target)
    return before, encoding.encode(target)


def checked(path: Path, before: Any, data: bytes) -> list[verify.Leak]:
    path.write_bytes(data)
    pseudonym = NAMES.patient("MRN-7651234")
    return verify.verify(path, before, pseudonym, deidentify.method())


@pytest.fixture(autouse=True)
def lenient() -> Any:
    """As in a worker: what does not keep to the standard is judged, not warned about."""
    settings = pydicom.config.settings
    kept = settings.reading_validation_mode, settings.writing_validation_mode
    settings.reading_validation_mode = settings.writing_validation_mode = pydicom.config.IGNORE
    yield
    settings.reading_validation_mode, settings.writing_validation_mode = kept


@pytest.mark.parametrize("name", TRAPS)
def test_no_identity_is_written(name: str, tmp_path: Path) -> None:
    trap = TRAPS[name]
    try:
        before, data = cleaned(written(trap))
    except SetAside as reason:
        assert reason.reason == trap.held
        return
    assert trap.rule != "D9", "an image that may show text has to be set aside"
    said = data.lower()
    assert [secret for secret in trap.secrets if secret.lower() in said] == []
    assert MARK.encode() not in upper_bits(data)
    assert checked(tmp_path / "written.dcm", before, data) == []


@pytest.mark.parametrize("name", [name for name, trap in TRAPS.items() if trap.in_place])
def test_the_check_finds_what_the_cleaning_would_miss(name: str, tmp_path: Path) -> None:
    """The same identity, put into a file that had been cleaned of it."""
    trap = TRAPS[name]
    try:
        before, _ = cleaned(written(trap))
    except SetAside:
        source = dicom.parse(written(Trap(trap.rule)))
        digest = pixel_digest(dicom.as_seen(source, dicom.stored_pixels(source)))
        before = identities.describe(source, digest)
    _, data = cleaned(written(Trap(trap.rule)), trap.hide)
    leaks = checked(tmp_path / "spoiled.dcm", before, trap.damage(data))
    assert leaks
    assert not any(MARK in str(leak) or "Quernstein" in str(leak) for leak in leaks)


def test_every_requirement_on_headers_has_a_trap() -> None:
    assert {trap.rule for trap in TRAPS.values()} == {
        "D1", "D2", "D3", "D4", "D5", "D6", "D8", "D9", "D10", "D11", "D12", "D13",
    }  # fmt: skip
    assert len(TRAPS) >= 36


def test_a_trap_holds_what_it_says() -> None:
    """Else a trap that hides nothing would be a test that cannot fail."""
    for name, trap in TRAPS.items():
        data = written(trap)
        hidden = any(s.lower() in data.lower() for s in trap.secrets)
        assert hidden or trap.rule == "D9" or MARK.encode() in upper_bits(data), name


def test_without_a_trap_nothing_is_wrong(tmp_path: Path) -> None:
    before, data = cleaned(written(Trap("")))
    assert checked(tmp_path / "clean.dcm", before, data) == []
    assert radiograph().PatientID == "MRN-7651234"
