import json
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from imaging.config import Labels
from imaging.deidentification.crosswalk import Crosswalk
from imaging.deidentification.policy import DeidentificationPolicy
from imaging.deidentification.pseudonyms import Pseudonyms
from lineage.errors import BadInput
from lineage.files import write_json
from monitoring.config import RetrainingConfig
from monitoring.retraining import (
    cause_of,
    decide,
    last_asked,
    newly_labelled,
    read_requests,
)

KEY = bytes(range(32))
NOW = datetime(2026, 1, 10, tzinfo=UTC)
BY_PATIENT = Labels(key="PatientID", key_column="patient_id", column="label", classes=("0", "1"))
CONFIG = RetrainingConfig(labels=BY_PATIENT, minimum_new_patients=20, cooldown_hours=24)


@pytest.mark.parametrize(
    ("drift", "new", "hours_ago", "status"),
    [
        ("drift", 20, None, "requested"),
        ("drift", 20, 24, "requested"),
        ("drift", 20, 23.9, "cooldown"),
        ("drift", 19, None, "waiting: labels needed"),
        ("drift", 19, 1, "cooldown"),
        ("no drift", 99, None, "no drift"),
        ("insufficient", 99, None, "no drift"),
    ],
)
def test_the_policy(drift, new, hours_ago, status):
    last = None if hours_ago is None else NOW - timedelta(hours=hours_ago)
    assert decide(drift, new, "patients", last, NOW, CONFIG).status == status


def test_the_reason_holds_the_numbers():
    reason = decide("drift", 7, "patients", None, NOW, CONFIG).reason
    assert reason == "drift, but 7 newly labelled patients, and 20 are needed"
    assert "7 newly labelled images" in decide("drift", 7, "images", None, NOW, CONFIG).reason
    cooling = decide("drift", 20, "patients", NOW - timedelta(hours=1), NOW, CONFIG).reason
    assert "the next may be at 2026-01-10T23:00" in cooling


@pytest.fixture
def manifest():
    names = Pseudonyms(KEY)
    return pd.DataFrame(
        {
            "patient_id": [names.patient(p) for p in ("007", "Doe^Jane")],
            "instance_uid": [names.uid(u) for u in ("1.2.3", "1.2.4")],
        }
    )


def counted(manifest, table, labels, key):
    config = CONFIG.model_copy(update={"labels": labels})
    return newly_labelled(manifest, table, config, Pseudonyms(key))


def test_only_labelled_patients_that_the_snapshot_lacks_are_new(tmp_path, manifest):
    table = tmp_path / "labels.csv"
    table.write_text("patient_id,label\n007,1\n 007 ,1\n7,1\nDoe^Jane,0\nNA,1\n,1\nX,1\nX,0\n")
    # "7" is not "007", "NA" is a name; X is labelled both ways, so not labelled.
    assert counted(manifest, table, BY_PATIENT, KEY) == (2, "patients")
    assert counted(manifest, table, BY_PATIENT, bytes(32)) == (4, "patients")


def test_a_patient_column_counts_patients_and_not_images(tmp_path, manifest):
    table = tmp_path / "labels.csv"
    table.write_text("uid,who,label\n1.2.3,007,0\n1.2.7,new,1\n1.2.8,new,1\n")
    by_image = {"key": "SOPInstanceUID", "key_column": "uid", "patient_column": "who"}
    config = BY_PATIENT.model_copy(update=by_image)
    assert counted(manifest, table, config, KEY) == (1, "patients")


def test_uids_that_ingestion_keeps_are_known_by_themselves(tmp_path, manifest):
    table = tmp_path / "labels.csv"
    table.write_text("uid,label\n1.2.3,0\n1.2.9,1\n")
    by_image = BY_PATIENT.model_copy(update={"key": "SOPInstanceUID", "key_column": "uid"})
    kept = CONFIG.model_copy(
        update={"labels": by_image, "deidentification": DeidentificationPolicy(retain=("uids",))}
    )
    known = manifest.assign(instance_uid="1.2.3")
    assert newly_labelled(known, table, kept, Pseudonyms(KEY)) == (1, "images")


def test_drawn_names_are_known_again(tmp_path, manifest):
    table, drawn = tmp_path / "labels.csv", Crosswalk(tmp_path / "crosswalk.sqlite", KEY)
    table.write_text("patient_id,label\nold,1\nnew,0\n")
    known = manifest.assign(patient_id=drawn.patient("old"))
    config = CONFIG.model_copy(update={"labels": BY_PATIENT})
    assert newly_labelled(known, table, config, drawn) == (1, "patients")


def test_images_are_counted_where_no_patient_is_named(tmp_path, manifest):
    table = tmp_path / "labels.parquet"
    rows = {"uid": ["1.2.3", "1.2.5", "1.2.6"], "label": ["0", "1", "0"]}
    pd.DataFrame(rows).to_parquet(table)
    config = BY_PATIENT.model_copy(update={"key": "SOPInstanceUID", "key_column": "uid"})
    assert counted(manifest, table, config, KEY) == (2, "images")
    files = BY_PATIENT.model_copy(update={"key": "file", "key_column": "uid"})
    with pytest.raises(BadInput, match="patient_column"):
        counted(manifest, table, files, KEY)


def test_beside_masks_patients_are_new_whose_images_have_one(tmp_path, manifest):
    (tmp_path / "labels.csv").write_text("image,who\na.png,007\nb.png,new\nc.png,newer\n")
    for name in ("a.png", "b.nii.gz", "d.png"):
        (tmp_path / name).write_bytes(b"not opened")
    settings = {"key": "mask", "classes": ("0", "1")}
    whose = Labels(**settings, key_column="image", patient_column="who")
    assert counted(manifest, tmp_path, whose, KEY) == (1, "patients")
    for more in ({}, {"key_column": "image"}):
        with pytest.raises(BadInput, match="patient_column is not set"):
            counted(manifest, tmp_path, Labels(**settings, **more), KEY)


def test_a_table_without_the_column_is_refused_without_quoting_it(tmp_path, manifest):
    table = tmp_path / "labels.csv"
    table.write_text("name\nDoe^Jane\n")
    with pytest.raises(BadInput, match="no column 'patient_id'") as error:
        counted(manifest, table, BY_PATIENT, KEY)
    assert "Doe" not in str(error.value)


def test_a_cause_is_named_by_the_numbers_and_the_policy(tmp_path):
    (tmp_path / "drift.json").write_text('{"verdict": "drift"}')
    _, name = cause_of(tmp_path, CONFIG)
    (tmp_path / "drift.html").write_text("drawn anew")
    assert cause_of(tmp_path, CONFIG)[1] == name
    assert cause_of(tmp_path, CONFIG.model_copy(update={"cooldown_hours": 1}))[1] != name
    (tmp_path / "drift.json").write_text('{"verdict": "no drift"}')
    assert cause_of(tmp_path, CONFIG)[1] != name


def test_only_what_was_asked_for_counts_as_asked(tmp_path):
    folder = tmp_path / "requests"
    assert last_asked(read_requests(folder).values()) is None
    for name, status, day in (
        ("a", "requested", 1),
        ("b", "requested", 2),
        ("c", "waiting: labels needed", 3),
    ):
        at = datetime(2026, 1, day, tzinfo=UTC).isoformat()
        write_json(folder / f"{name}.json", {"status": status, "at": at})
    requests = read_requests(folder)
    assert set(requests) == {"a", "b", "c"}
    assert last_asked(requests.values()) == datetime(2026, 1, 2, tzinfo=UTC)
    write_json(folder / "c.json", {"status": "requested", "at": NOW.isoformat()})
    assert json.loads((folder / "c.json").read_text())["status"] == "requested"
    assert len(list(folder.iterdir())) == 3  # no drafts left behind
