import json

import pytest
from manifest_rows import manifest_row

from components.retrain import retrain, still_requested
from imaging.deidentification.pseudonyms import Pseudonyms
from imaging.manifest import write_manifest
from monitoring.config import RetrainingConfig

LABELS = {"key": "PatientID", "key_column": "patient_id", "column": "label", "classes": ["0", "1"]}


@pytest.fixture
def room(home, tmp_path):
    """A snapshot with patients "old-0" and "old-1", a drift report, and a table of labels."""
    names = Pseudonyms(home.secret("pseudonym.key"))
    (tmp_path / "snapshot").mkdir()
    rows = [manifest_row(i, patient_id=names.patient(f"old-{i}")) for i in range(2)]
    write_manifest(rows, tmp_path / "snapshot")
    (tmp_path / "report").mkdir()
    found(tmp_path, "drift")
    label(tmp_path, "old-1")
    return tmp_path


def found(room, verdict, more=""):
    facts = {"verdict": verdict, "model_digest": "m1", "sentence": more}
    (room / "report" / "drift.json").write_text(json.dumps(facts))


def label(room, *patients):
    (room / "labels.csv").write_text(
        "patient_id,label\nold-0,0\n" + "".join(f"{p},1\n" for p in patients)
    )


def ask(room, name, **changes):
    settings = {"labels": LABELS, "minimum_new_patients": 2, **changes}
    request = room / name
    request.mkdir()
    values = retrain(
        RetrainingConfig(**settings),
        report=room / "report",
        snapshot=room / "snapshot",
        labels=room / "labels.csv",
        request=request,
    )
    return values, json.loads((request / "request.json").read_text())


def test_it_waits_for_labels_and_then_asks_once(home, room):
    values, first = ask(room, "first")
    assert values.requested is False
    assert first["status"] == "waiting: labels needed"
    assert first["newly_labelled"] == 0
    assert not still_requested(room / "first")

    label(room, "new-0", "new-1", "new-1")
    values, second = ask(room, "second")
    assert values == (True, "drift, and 2 newly labelled patients")
    assert second["cause"]["model_digest"] == "m1"
    assert still_requested(room / "second")

    values, third = ask(room, "third")
    assert values.requested is True
    assert third == second
    (standing,) = home.requests.glob("*.json")
    assert json.loads(standing.read_text()) == second
    standing.unlink()
    assert not still_requested(room / "second")


def test_another_drift_soon_after_waits_its_time(home, room):
    label(room, "new-0", "new-1")
    ask(room, "first")
    found(room, "drift", more="another one")
    values, facts = ask(room, "second")
    assert values.requested is False
    assert facts["status"] == "cooldown"
    assert len(list(home.requests.glob("*.json"))) == 1
    values, _ = ask(room, "third", cooldown_hours=0)
    assert values.requested is True


@pytest.mark.parametrize("verdict", ["no drift", "insufficient"])
def test_without_drift_nothing_is_asked(home, room, verdict):
    label(room, "new-0", "new-1")
    found(room, verdict)
    values, facts = ask(room, "request")
    assert values.requested is False
    assert facts["status"] == "no drift"
    assert not list(home.requests.glob("*.json"))


def test_no_identity_leaves_the_labels_table(home, room):
    label(room, "Doe^Jane", "Doe^John")
    ask(room, "request")
    written = [*home.requests.iterdir(), *(room / "request").iterdir()]
    assert len(written) == 2
    assert not any("Doe" in path.name + path.read_text() for path in written)
