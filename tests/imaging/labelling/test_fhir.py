import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from imaging.config import Labels
from imaging.labelling.labels import Label, read_labels
from lineage.errors import BadInput
from pipelines.config import load

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "fhir"
SNOMED, LOINC, MRN = "http://snomed.info/sct", "http://loinc.org", "urn:oid:1.2.36.146"
PNEUMONIA, CLEAR = f"{SNOMED}|233604007", f"{SNOMED}|1163590009"
CHEST = f"{LOINC}|36643-5"
BY_STUDY = {
    "key": "StudyInstanceUID",
    "classes": ["clear", "pneumonia"],
    "fhir": {
        "resource": "DiagnosticReport",
        "codes": [CHEST],
        "value": "conclusionCode",
        "values": {PNEUMONIA: "pneumonia", CLEAR: "clear"},
    },
}


def config(**changes: Any) -> Labels:
    return Labels.model_validate(BY_STUDY | {"fhir": BY_STUDY["fhir"] | changes})  # type: ignore[operator]


def concept(*names: str) -> dict[str, Any]:
    return {"coding": [dict(zip(("system", "code"), n.split("|"), strict=True)) for n in names]}


def study(number: int, uid: str | None = None) -> dict[str, Any]:
    return {
        "resourceType": "ImagingStudy",
        "id": f"s{number}",
        "status": "available",
        "identifier": [
            {"system": "urn:accession", "value": "A-17"},
            {"system": "urn:dicom:uid", "value": uid or f"urn:oid:1.2.3.{number}"},
        ],
        "subject": {"reference": f"Patient/p{number}", "display": "Adalbert Quernstein"},
    }


def patient(number: int, system: str | None = MRN) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "id": f"p{number}",
        "identifier": [
            {"system": "urn:ssn", "value": "123"},
            {"system": system, "value": f"M{number}"},
        ],
        "name": [{"family": "Quernstein", "given": ["Adalbert"]}],
    }


def report(number: int, *conclusions: str, **changes: Any) -> dict[str, Any]:
    resource = {
        "resourceType": "DiagnosticReport",
        "id": f"r{number}",
        "status": "final",
        "code": concept(CHEST),
        "subject": {"reference": f"Patient/p{number}"},
        "issued": "2024-03-05T23:30:00-05:00",
        "imagingStudy": [{"reference": f"ImagingStudy/s{number}"}],
        "conclusion": "Quernstein has an opacity",
        "conclusionCode": [concept(c) for c in conclusions],
    }
    return {name: value for name, value in (resource | changes).items() if value is not None}


def observation(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "code": concept(CHEST),
        "subject": {"reference": f"https://a.b/fhir/Patient/p{number}/_history/2"},
        "issued": "2024-03-05T10:00:00Z",
    } | changes


def ndjson(path: Path, *resources: Any) -> Path:
    path.write_text("".join(json.dumps(resource) + "\n" for resource in resources))
    return path


BOTH = (report(1, PNEUMONIA), report(2, CLEAR), study(1), study(2), patient(1), patient(2))


def classes(path: Path, settings: Labels | None = None) -> dict[str, int | None]:
    found = read_labels(path, settings or config())
    return {key: None if label.conflict else label.label for key, label in found.items()}


def test_reports_label_their_studies_and_say_since_when(tmp_path: Path) -> None:
    ndjson(tmp_path / "DiagnosticReport.000.ndjson", *BOTH[:2])
    ndjson(tmp_path / "ImagingStudy.000.ndjson", *BOTH[2:4])
    ndjson(tmp_path / "Patient.000.ndjson", *BOTH[4:])
    (tmp_path / "log.txt").write_text("no resource")
    assert read_labels(tmp_path, config()) == {
        "1.2.3.1": Label(1, known_since=date(2024, 3, 5)),
        "1.2.3.2": Label(0, known_since=date(2024, 3, 5)),
    }
    found = read_labels(tmp_path, config(patient_system=MRN))
    assert [found[f"1.2.3.{i}"].patient_id for i in (1, 2)] == ["M1", "M2"]


def test_observations_label_patients(tmp_path: Path) -> None:
    by_patient = {"key": "PatientID", "classes": ["clear", "pneumonia"]}
    for value, told, mapped in (
        ("valueBoolean", (True, False), {"true": "pneumonia", "false": "clear"}),
        ("valueString", (" Yes", "no"), {"Yes": "pneumonia", "no": "clear"}),
        (
            "valueCodeableConcept",
            (concept("urn:x|1", PNEUMONIA), concept(CLEAR)),
            {PNEUMONIA: "pneumonia", "1163590009": "clear"},
        ),
        (
            "interpretation",
            ([concept("urn:v3|POS")], [concept("urn:v3|NEG")]),
            {"POS": "pneumonia", "NEG": "clear"},
        ),
    ):
        path = ndjson(
            tmp_path / "all.ndjson",
            *(observation(i, **{value: v}) for i, v in enumerate(told, start=1)),
            *BOTH[4:],
        )
        settings = Labels.model_validate(
            by_patient
            | {
                "fhir": {"resource": "Observation", "value": value, "values": mapped}
                | {"patient_system": MRN}
            }
        )
        assert classes(path, settings) == {"M1": 1, "M2": 0}, value


def component(code: str, **value: Any) -> dict[str, Any]:
    return {"code": concept(code)} | value


def test_a_component_holds_the_value(tmp_path: Path) -> None:
    """R4 Observation.component: a code, value[x] and interpretation, beside the whole's own."""
    effusion, nodule = f"{SNOMED}|60046008", f"{SNOMED}|427359005"

    def labels(*components: Any, asked: str = effusion, **changes: Any) -> dict[str, int | None]:
        fhir = {"resource": "Observation", "value": "valueBoolean", "patient_system": MRN}
        fhir |= {"values": {"true": "pneumonia", "false": "clear"}, "component": [asked]}
        settings = {"key": "PatientID", "classes": ["clear", "pneumonia"], "fhir": fhir | changes}
        others = (observation(i, component=[component(asked, valueBoolean=i == 2)]) for i in (2, 3))
        asked_of = observation(1, valueBoolean=False, component=list(components))
        path = ndjson(tmp_path / "all.ndjson", asked_of, *others, *map(patient, (1, 2, 3)))
        found = classes(path, Labels.model_validate(settings))
        assert found.pop("M2") == 1 and found.pop("M3") == 0
        return found

    there, elsewhere = component(effusion, valueBoolean=True), component(nodule, valueBoolean=False)
    assert labels(elsewhere, there) == {"M1": 1}
    assert labels(elsewhere, there, asked=nodule) == {"M1": 0}
    assert labels(there, component(effusion, valueBoolean=False)) == {"M1": None}
    assert labels(component(effusion), elsewhere) == labels(elsewhere) == labels() == {}
    assert labels("odd", {"code": 7}, component(effusion, valueBoolean=[True])) == {}
    assert labels(elsewhere, otherwise="clear") == {"M1": 0}


def test_without_such_a_component_the_message_says_so(tmp_path: Path) -> None:
    fhir = {"resource": "Observation", "value": "valueBoolean", "component": ["urn:x|1"]}
    whole = BY_STUDY | {"fhir": fhir | {"values": {"true": "pneumonia", "false": "clear"}}}
    path = ndjson(tmp_path / "all.ndjson", observation(1, valueBoolean=True))
    with pytest.raises(BadInput, match="1 of a status that counts, 0 with such a component"):
        classes(path, Labels.model_validate(whole))


def test_what_is_not_final_or_of_another_code_counts_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "all.ndjson"
    for status in ("preliminary", "registered", "partial", "cancelled", "entered-in-error", None):
        ndjson(path, *BOTH, report(3, PNEUMONIA, status=status), study(3))
        assert list(classes(path)) == ["1.2.3.1", "1.2.3.2"], status
    ndjson(path, *BOTH, report(3, PNEUMONIA, code=concept(f"{LOINC}|1-8")), study(3))
    assert len(classes(path)) == 2
    assert len(classes(path, config(codes=()))) == 3
    ndjson(path, *BOTH, report(3, PNEUMONIA, status="corrected"), study(3))
    assert len(classes(path)) == 3
    assert len(classes(path, config(statuses=("final",)))) == 2


def test_the_last_word_counts_and_two_at_once_conflict(tmp_path: Path) -> None:
    def with_second(**changes: Any) -> int | None:
        second = report(1, CLEAR, **{"id": "later"} | changes)
        others = (report(3, PNEUMONIA), study(3))
        return classes(ndjson(tmp_path / "all.ndjson", second, *BOTH, *others))["1.2.3.1"]

    assert with_second(issued="2024-03-06T04:29:59Z") == 1  # a second earlier, in another zone
    assert with_second(issued="2024-03-06T04:30:01Z") == 0
    assert with_second(issued="2024-03-06T04:30:00Z") is None
    assert with_second(issued=None) == 1
    assert with_second(issued="soon") == 1


def test_the_last_version_of_a_resource_counts(tmp_path: Path) -> None:
    def versions(*resources: Any) -> dict[str, int | None]:
        return classes(
            ndjson(tmp_path / "all.ndjson", *BOTH, report(3, CLEAR), study(3), *resources)
        )

    newer, older = ({"meta": {"lastUpdated": f"{year}-01-01T00:00:00Z"}} for year in (2025, 2024))
    assert "1.2.3.3" in versions()
    assert versions(report(3, PNEUMONIA, **newer))["1.2.3.3"] == 1
    assert "1.2.3.3" not in versions(report(3, CLEAR, status="entered-in-error", **newer))
    assert versions(report(3, PNEUMONIA, **newer), report(3, CLEAR, **older))["1.2.3.3"] == 1


def test_several_conclusions_and_none(tmp_path: Path) -> None:
    other = f"{SNOMED}|60046008"
    path = ndjson(
        tmp_path / "all.ndjson",
        *BOTH,
        *(report(3, other, PNEUMONIA), report(4, other), report(5), report(6, CLEAR, PNEUMONIA)),
        *map(study, range(3, 7)),
    )
    known = {"1.2.3.1": 1, "1.2.3.2": 0, "1.2.3.3": 1, "1.2.3.6": None}
    assert classes(path) == known
    assert classes(path, config(otherwise="clear")) == known | {"1.2.3.4": 0, "1.2.3.5": 0}
    third = config(values={PNEUMONIA: "pneumonia", CLEAR: "clear", other: "something else"})
    assert read_labels(path, third)["1.2.3.4"] == Label(None, known_since=date(2024, 3, 5))


@pytest.mark.parametrize(
    "names",
    [
        {"imagingStudy": [{"reference": "https://a.b/fhir/ImagingStudy/s3"}]},
        {"imagingStudy": [{"reference": "ImagingStudy/s3/_history/4"}]},
        {"imagingStudy": {"reference": "ImagingStudy/s3"}},
        {"imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.3"}}]},
        {"imagingStudy": [{"reference": "#it"}], "contained": [study(3) | {"id": "it"}]},
        {
            "imagingStudy": None,
            "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.3"}],
        },
        {"imagingStudy": None, "derivedFrom": [{"reference": "ImagingStudy/s3"}]},
        {"imagingStudy": None, "partOf": [{"reference": "ImagingStudy/s3"}]},
    ],
)
def test_a_study_is_named_in_many_ways(tmp_path: Path, names: dict[str, Any]) -> None:
    path = ndjson(tmp_path / "all.ndjson", *BOTH, report(3, CLEAR, **names), study(3))
    assert classes(path)["1.2.3.3"] == 0


def test_what_leads_nowhere_is_no_label(tmp_path: Path) -> None:
    lost = (
        report(3, CLEAR),  # no such study
        report(4, CLEAR, imagingStudy=None),
        report(5, CLEAR),
        study(5, "Quernstein"),
    )
    assert len(classes(ndjson(tmp_path / "all.ndjson", *BOTH, *lost))) == 2
    with pytest.raises(
        BadInput, match=r"1 of the type, 1 of the codes, 1 of a status .* urn:dicom"
    ):
        classes(ndjson(tmp_path / "all.ndjson", report(3, CLEAR)))
    with pytest.raises(BadInput, match=r"no DiagnosticReport labels anything \(there is none\)"):
        classes(ndjson(tmp_path / "all.ndjson", study(3)))
    with pytest.raises(
        BadInput, match=r"classes: no resource means 'pneumonia'; it has \['clear'\]"
    ):
        classes(ndjson(tmp_path / "all.ndjson", report(3, CLEAR), study(3)))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"resourceType": "Patient", "name": "Quernstein"', "line 2 is not JSON"),
        (b'{"resourceType": "Patient", "id": "\xff"}', "line 2 is not JSON"),
        (b"[" * 100_000, "line 2 is not JSON"),
        (b"1" * 5000, "line 2 is not JSON"),
        (b'["Quernstein"]', "line 2 is no FHIR resource"),
        (b'{"resourceType": ["Quernstein"]}', "line 2 is no FHIR resource"),
        (b'"' + b"Quernstein" * 2**21, "line 2 is longer than 16 MiB"),
    ],
)
def test_a_bad_line_is_told_by_its_number_alone(tmp_path: Path, line: bytes, says: str) -> None:
    path = tmp_path / "Quernstein.ndjson"
    path.write_bytes(json.dumps(study(1)).encode() + b"\n" + line + b"\n")
    with pytest.raises(BadInput, match=says) as caught:
        read_labels(path, config())
    assert "Quernstein" not in str(caught.value)


def test_a_folder_says_which_file_and_one_without_any_what_is_missing(tmp_path: Path) -> None:
    ndjson(tmp_path / "a.ndjson", *BOTH)
    (tmp_path / "b.ndjson").write_text("\n\n{")
    with pytest.raises(BadInput, match="line 3 of file 2 of 2, by name, is not JSON"):
        classes(tmp_path)
    with pytest.raises(BadInput, match=r"there is no \.ndjson file"):
        classes(tmp_path / "none.ndjson")


@pytest.mark.parametrize(
    ("labels", "changes", "says"),
    [
        ({"key": "file"}, {}, "the key is StudyInstanceUID or PatientID"),
        ({"column": "x"}, {}, "no column is named"),
        ({"key": "PatientID"}, {}, "fhir.patient_system is missing"),
        ({}, {"values": {PNEUMONIA: "pneumonia"}}, "nothing means class 'clear'"),
        ({}, {"component": [CHEST]}, "only an Observation has components"),
        ({}, {"value": "valueBoolean"}, "a DiagnosticReport has `conclusionCode`"),
        ({}, {"statuses": ["preliminary"]}, "statuses"),
    ],
)
def test_a_mapping_that_can_label_nothing_is_refused_when_it_is_read(
    labels: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    whole = BY_STUDY | labels | {"fhir": BY_STUDY["fhir"] | changes}  # type: ignore[operator]
    with pytest.raises(ValidationError, match=says):
        Labels.model_validate(whole)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_label_what_they_are_examples_of(path: Path, tmp_path: Path) -> None:
    settings = load(path).ingestion.labels
    mapping = settings.fhir
    assert mapping is not None
    make = report if mapping.resource == "DiagnosticReport" else observation
    ndjson(
        tmp_path / "all.ndjson",
        *(
            make(i, code=concept(mapping.codes[0]))
            | {mapping.value: [concept(value)] if make is report else concept(value)}
            for i, value in enumerate([*mapping.values, "urn:x|another"])
        ),
        *(study(i) for i in range(4)),
        *(patient(i, mapping.patient_system) for i in range(4)),
    )
    found = read_labels(tmp_path, settings)
    assert {label.label for label in found.values()} >= {0, 1}


NAMES = ("reference", "identifier", "system", "value", "coding", "code", "id", "contained")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    fields=st.dictionaries(
        st.sampled_from([*report(1), "identifier", "contained", "derivedFrom", "meta"]),
        json_values,
        max_size=6,
    ),
    kind=st.sampled_from(["DiagnosticReport", "ImagingStudy", "Patient"]),
)
def test_any_resource_is_read_or_passed_over(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any], kind: str
) -> None:
    base = {"DiagnosticReport": report(3, CLEAR), "ImagingStudy": study(3), "Patient": patient(3)}
    odd = base[kind] | fields | {"resourceType": kind}
    path = tmp_path_factory.mktemp("fhir") / "all.ndjson"
    found = classes(ndjson(path, *BOTH, odd), config(patient_system=MRN))
    assert found.keys() >= {"1.2.3.1", "1.2.3.2"}


def test_many_reports_of_one_study_take_no_longer_each(tmp_path: Path) -> None:
    """Looked at pair by pair, these would outlast any test."""
    many = (report(1, CLEAR, id=f"r{i}", issued=None) for i in range(20_000))
    path = ndjson(tmp_path / "all.ndjson", *many, *BOTH)
    assert classes(path) == {"1.2.3.1": 1, "1.2.3.2": 0}
