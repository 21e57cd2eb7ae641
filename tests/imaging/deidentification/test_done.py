from pydicom.dataset import Dataset

from imaging.deidentification.done import PRIVATE, UNKNOWN, done


def item(**attributes: object) -> Dataset:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def test_each_attribute_is_told_by_what_became_of_it() -> None:
    source = item(PatientName="A^B", PatientID="7", Modality="CT", StudyTime="101500", StudyID="")
    source.add_new(0x00090010, "LO", "MAKER")
    source.add_new(0x00080002, "LO", "what is this")
    written = item(
        PatientID="x9", Modality="CT", StudyTime="", StudyID="", PatientIdentityRemoved="YES"
    )
    assert done(source, written) == {
        "Modality": ["kept"],
        "PatientID": ["replaced"],
        "PatientIdentityRemoved": ["added"],
        "PatientName": ["removed"],
        "StudyTime": ["emptied"],
        PRIVATE: ["removed"],
        UNKNOWN: ["removed"],
    }


def test_items_are_compared_at_every_depth() -> None:
    before = item(ReferencedSOPInstanceUID="1.2.3", PurposeOfReferenceCodeSequence=[])
    after = item(ReferencedSOPInstanceUID="2.25.1")
    source, written = (
        item(DerivationImageSequence=[item(SourceImageSequence=[inner])])
        for inner in (before, after)
    )
    told = done(source, written)
    assert told["ReferencedSOPInstanceUID"] == ["replaced"]
    assert told["PurposeOfReferenceCodeSequence"] == ["removed"]
    assert told["SourceImageSequence"] == ["kept"]


def test_one_attribute_may_fare_differently_in_several_places() -> None:
    source = item(Modality="CT", ReferencedSeriesSequence=[item(Modality="CT")])
    written = item(Modality="CT", ReferencedSeriesSequence=[item()])
    assert done(source, written)["Modality"] == ["kept", "removed"]
