"""Labels from FHIR R4 bulk exports (NDJSON): reports or observations of studies or patients.

A plain mapping says which resources count, where their value is and what it means; the result is a
table as `imaging.labelling.labels` reads them. Resources hold identities: they stay in memory.
"""

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field

from lineage.errors import BadInput

KEYS = ("StudyInstanceUID", "PatientID")
SUFFIX = ".ndjson"
MAX_LINE_BYTES = 16 * 2**20  # a report may carry its own PDF
DICOM_UID = "urn:dicom:uid"

Resource = Mapping[str, Any]
Status = Literal["final", "amended", "corrected", "appended"]


class FhirMapping(BaseModel):
    """Which resources are labels, and what they say.

    Attributes:
        resource: Their type.
        codes: One of which `code` must hold, as "system|code"; empty: any.
        component: Codes of an Observation's components, as "system|code": such a one holds the
            value; empty: the Observation itself does.
        value: Where the value is. `conclusionCode` and `interpretation` may hold several.
        values: The class of each value: of a coding as "system|code" or the code alone, of a
            boolean as true or false, of a text as it is. What is not here says nothing.
        otherwise: The class of a resource in which nothing is found, such as a report without any
            of the conclusions; without it, such a resource says nothing.
        statuses: That count. What is preliminary, cancelled or entered in error never does.
        patient_system: The system of the Patient's identifier that is the PatientID of its images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resource: Literal["DiagnosticReport", "Observation"]
    codes: tuple[str, ...] = ()
    component: tuple[str, ...] = ()
    value: Literal[
        "valueCodeableConcept", "valueBoolean", "valueString", "interpretation", "conclusionCode"
    ]
    values: dict[str, str] = Field(min_length=1)
    otherwise: str | None = None
    statuses: tuple[Status, ...] = Field(default=("final", "amended", "corrected"), min_length=1)
    patient_system: str | None = None

    def check(self, key: str, classes: tuple[str, str]) -> None:
        """Refuse what can never label anything.

        Raises:
            ValueError: With the way out.
        """
        of_report = self.value == "conclusionCode"
        if of_report != (self.resource == "DiagnosticReport"):
            raise ValueError(
                "fhir.value: a DiagnosticReport has `conclusionCode`, an Observation the others"
            )
        if of_report and self.component:
            raise ValueError("fhir.component: only an Observation has components")
        if key == "PatientID" and not self.patient_system:
            raise ValueError(
                "fhir.patient_system is missing: which identifier of a Patient is the PatientID"
            )
        for name in classes:
            if name not in (*self.values.values(), self.otherwise):
                raise ValueError(f"fhir.values: nothing means class {name!r}")


VALUE = "value"
UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_NEVER_ISSUED = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _Told:
    """What one resource says, once it is known whose it is."""

    classes: tuple[str, ...]
    issued: str
    at: datetime
    studies: tuple[str, ...]  # references, or UIDs
    subject: str


@dataclass
class _Found:
    """What the files hold, as far as it matters."""

    study_uid: dict[str, str]  # by reference
    patient_id: dict[str, str]
    told: dict[str, tuple[datetime, _Told | None]]  # by id: when written, and what it says
    left: Counter[str]


def read_table(path: Path, mapping: FhirMapping, key: str) -> dict[str, list[str]]:
    """Read NDJSON files into a table of key, value, known_since and patient.

    Of several resources for one study or patient the one that was issued last counts; if two were
    issued at that time, both do, so that they conflict if they differ. Of several versions of one
    resource the last one counts, and withdraws it if its status does not count.

    Args:
        path: An .ndjson file, or a folder of them, as a bulk export leaves it.
        mapping: What counts, and as what.
        key: One of `KEYS`.

    Raises:
        BadInput: A line is not JSON, or nothing in the files is a label.
    """
    found = _Found({}, {}, {}, Counter())
    for resource in _resources(path):
        _take(resource, mapping, found)
    whose: dict[str, list[tuple[_Told, str]]] = defaultdict(list)
    for told in (told for _, told in found.told.values() if told):
        patient = found.patient_id.get(told.subject, "")
        studies = {found.study_uid.get(s, s.removeprefix("urn:oid:")) for s in told.studies}
        for name in {patient} - {""} if key == "PatientID" else filter(_is_uid, studies):
            whose[name].append((told, patient))
    rows = []
    for name, several in whose.items():
        last = max(told.at for told, _ in several)
        for told, patient in (one for one in several if one[0].at == last):
            rows += [(name, value, told.issued, patient) for value in told.classes]
    if not rows:
        raise BadInput(_nothing(mapping, key, found.left))
    columns = ("key", VALUE, "known_since", "patient")
    return {name: [row[i] for row in rows] for i, name in enumerate(columns)}


def _resources(path: Path) -> Iterator[Resource]:
    files = sorted(p for p in path.iterdir() if p.suffix == SUFFIX) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise BadInput("labels: there is no .ndjson file; name one, or a folder of them")
    for number, file in enumerate(files, start=1):
        which = f" of file {number} of {len(files)}, by name," if len(files) > 1 else ""
        try:
            with file.open("rb") as stream:
                yield from _lines(stream, which)
        except OSError as error:
            raise BadInput(f"labels: NDJSON cannot be read ({error.strerror})") from None


def _lines(stream: BinaryIO, which: str) -> Iterator[Resource]:
    for number in itertools.count(1):
        line = stream.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        place = f"labels: line {number}{which}"
        if len(line) > MAX_LINE_BYTES:
            raise BadInput(f"{place} is longer than {MAX_LINE_BYTES // 2**20} MiB")
        if not line.strip():
            continue
        try:
            resource = json.loads(line)
        except (ValueError, RecursionError):  # what they say may quote it
            raise BadInput(f"{place} is not JSON; NDJSON has one resource on each line") from None
        if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
            raise BadInput(f"{place} is no FHIR resource: it has no resourceType")
        yield resource


def _take(resource: Resource, mapping: FhirMapping, found: _Found) -> None:
    kind, name = resource["resourceType"], _text(resource.get("id"))
    if kind == "ImagingStudy":
        if uid := _identifier(resource, DICOM_UID):
            found.study_uid[f"{kind}/{name}"] = uid.removeprefix("urn:oid:")
    elif kind == "Patient":
        if mapping.patient_system and (value := _identifier(resource, mapping.patient_system)):
            found.patient_id[f"{kind}/{name}"] = value
    elif kind == mapping.resource:
        found.left["of the type"] += 1
        if mapping.codes and not _is_one_of(mapping.codes, resource):
            return
        found.left["of the codes"] += 1
        # Without an id it cannot be another's next version.
        name = name or f"#{len(found.told)}"
        written = _time(_dict(resource.get("meta")).get("lastUpdated"))
        if name not in found.told or found.told[name][0] <= written:
            found.told[name] = written, _told(resource, mapping, found.left)


def _told(resource: Resource, mapping: FhirMapping, left: Counter[str]) -> _Told | None:
    if resource.get("status") not in mapping.statuses:
        return None
    left["of a status that counts"] += 1
    holders = [resource]
    if mapping.component:
        components = _dicts(resource.get("component"))
        holders = [c for c in components if _is_one_of(mapping.component, c)]
        left["with such a component"] += bool(holders)
    values = [value for holder in holders for value in _values(holder, mapping.value)]
    means = {mapping.values[v] for v in values if v in mapping.values}
    if not means and mapping.otherwise:
        means = {mapping.otherwise}
    if not means:
        return None
    left["with a value that is mapped"] += 1
    at = _time(resource.get("issued"))
    return _Told(
        classes=tuple(sorted(means)),
        issued=_text(resource.get("issued")) if at > _NEVER_ISSUED else "",
        at=at,
        studies=tuple(_studies(resource)),
        subject=_referred(resource.get("subject")),
    )


def _is_one_of(codes: tuple[str, ...], coded: Resource) -> bool:
    """Whether a resource, or a component of one, has a code that is asked for."""
    return not set(codes).isdisjoint(_codings(coded.get("code")))


def _values(holder: Resource, where: str) -> list[str]:
    value = holder.get(where)
    if isinstance(value, bool):
        return [str(value).lower()]
    return [value.strip()] if isinstance(value, str) else _codings(value)


def _codings(concepts: Any) -> list[str]:
    """All codings of one concept or several, each with its system and without."""
    codings = [coding for concept in _dicts(concepts) for coding in _dicts(concept.get("coding"))]
    pairs = [(_text(c.get("system")), _text(c.get("code"))) for c in codings]
    return [name for system, code in pairs if code for name in (f"{system}|{code}", code)]


def _studies(resource: Resource) -> Iterator[str]:
    """References to the ImagingStudy, or its UIDs, as far as the resource has any."""
    contained = {f"#{_text(c.get('id'))}": c for c in _dicts(resource.get("contained"))}
    for name in ("imagingStudy", "derivedFrom", "partOf"):
        for reference in _dicts(resource.get(name)):
            study = _referred(reference)
            yield _identifier(contained.get(study, {}), DICOM_UID) or study
    yield _identifier(resource, DICOM_UID)


def _referred(reference: Any) -> str:
    """`Type/id` of a reference, wherever the server; or the UID that it names instead."""
    reference = _dict(reference)
    named = _dict(reference.get("identifier"))
    if named.get("system") == DICOM_UID:
        return _text(named.get("value"))
    whole = _text(reference.get("reference")).split("/_history/")[0]
    return "/".join(whole.split("/")[-2:])


def _identifier(resource: Resource, system: str) -> str:
    found = (i for i in _dicts(resource.get("identifier")) if i.get("system") == system)
    return next((value for i in found if (value := _text(i.get("value")))), "")


def _nothing(mapping: FhirMapping, key: str, left: Counter[str]) -> str:
    counts = ", ".join(f"{n} {what}" for what, n in left.items()) or "there is none"
    ways = {
        "StudyInstanceUID": "an ImagingStudy with an identifier of the system urn:dicom:uid",
        "PatientID": "a Patient with an identifier of fhir.patient_system",
    }
    return (
        f"ingestion.labels.fhir: no {mapping.resource} labels anything ({counts}): it must have "
        f"one of the codes, a status that counts, a value that is mapped, and name {ways[key]}"
    )


def _is_uid(text: str) -> bool:
    return len(text) <= 64 and UID.fullmatch(text) is not None


def _time(value: Any) -> datetime:
    """A point in time that can be compared with any other; the earliest for what is none."""
    try:
        time = datetime.fromisoformat(_text(value))
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (OverflowError, ValueError):
        return _NEVER_ISSUED


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _dict(value: Any) -> Resource:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[Resource]:
    """What should be a list of objects; where it may hold one only, the object itself."""
    return [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, dict)]
