import numpy as np
import pandas as pd
import pytest

from evaluation.shortcuts import FIELDS, TOGETHER, audit, section, sentences
from imaging.config import Shortcuts
from imaging.manifest import schema

WARN = Shortcuts()


def cohort(seed=0, patients=200, each=2, by_image=False):
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(patients), each)
    label = rng.integers(2, size=len(of) if by_image else patients)
    label = label if by_image else label[of]
    same = {"rows": 64, "columns": 64}
    return pd.DataFrame({"patient_id": [f"p{i}" for i in of], "label": label, **same}), rng


def of(found, field):
    return next(s for s in found if s.field == field)


def strong(found):
    return {s.field for s in found if s.strong}


def test_fields_are_of_the_manifest_or_made_from_it():
    assert set(FIELDS) - {"size", "aspect"} <= set(schema().names)
    assert not {"label", "sex", "age_years", "patient_id"} & set(FIELDS)


KINDS = {
    "a category": lambda y, rng: np.where(
        y == 1, "Acme", rng.choice(["Acme", "Bolt", "Cord"], len(y))
    ),
    "a number": lambda y, rng: rng.normal(2.0 * y),
    "a number on both sides": lambda y, rng: rng.normal(size=len(y)) * np.where(y, 8.0, 1.0),
    "being missing": lambda y, rng: np.where(rng.random(len(y)) < 0.1 + 0.8 * y, np.nan, 5.0),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_what_tells_the_classes_apart_is_named(kind):
    table, rng = cohort()
    table["site"] = rng.choice(["x", "y"], len(table))
    table["scanner" if kind is KINDS["a category"] else "file_bytes"] = kind(table["label"], rng)
    found = audit(table, WARN)
    assert strong(found) - {TOGETHER} == {table.columns[-1]}
    (sentence, *_) = [s for s in sentences(found, WARN) if s.startswith(table.columns[-1])]
    assert "400 images of 200 patients" in sentence


def test_nothing_is_found_where_nothing_is():
    for seed in range(20):
        table, rng = cohort(seed, each=3)
        table["file_bytes"] = rng.normal(size=len(table))
        table["scanner"] = rng.choice(list("abcdefgh"), len(table))
        table["model_name"] = [f"its own {p}" for p in table["patient_id"]]
        found = audit(table, WARN)
        assert strong(found) == set()
        # Unseen values say nothing: not even backwards, as shares of classes left over would.
        assert of(found, "model_name").auroc.estimate is None
        assert 0.35 < of(found, "scanner").auroc.estimate < 0.65


def test_a_patient_is_never_judged_by_its_own_images():
    table, rng = cohort(patients=60, each=10)
    # Each patient has a size of its own: it tells the patient, and so the label, but only by heart.
    table["rows"] = rng.permutation(60)[[int(p[1:]) for p in table["patient_id"]]] * 7919 % 1009
    table["columns"] = table["rows"]
    found = audit(table, WARN)
    assert of(found, "size").auroc.estimate is None
    assert strong(found) == set()


def test_the_interval_knows_how_many_patients_there_are():
    table, rng = cohort(patients=40, each=20)
    table["scanner"] = np.where(
        np.repeat(rng.random(40) < 0.75, 20), table["label"], 1 - table["label"]
    ).astype(str)
    wide = of(audit(table, WARN), "scanner").auroc
    assert (wide.n, wide.n_patients) == (800, 40)
    assert wide.high - wide.low > 0.2


def test_weak_fields_add_up():
    table, rng = cohort(patients=600, each=1)
    for field in ("file_bytes", "border_mean", "bits_stored", "pixel_spacing_mm"):
        table[field] = rng.normal(0.6 * table["label"])
    found = audit(table, WARN)
    assert strong(found) == {TOGETHER}
    assert strong(audit(table, Shortcuts(lower_bound_above=0.9))) == set()


def test_exempt_fields_are_shown_and_never_strong():
    table, rng = cohort()
    table["sex"] = np.where(table["label"] == 1, "F", "M")
    table["site"] = rng.choice(["x", "y"], len(table))
    assert [s.field for s in audit(table, WARN)] == ["site"]
    policy = Shortcuts(exempt=("sex",))
    found = audit(table, policy)
    assert of(found, "sex").auroc.low > policy.lower_bound_above
    assert of(found, "sex").exempt
    assert strong(found) == set()
    assert "<span class=nothing>exempt</span>" in section(found, policy)


def test_it_is_the_same_each_time_whatever_the_order_of_rows():
    table, rng = cohort()
    table["file_bytes"] = rng.normal(1.0 * table["label"])
    again = audit(table.sample(frac=1, random_state=1), WARN)
    assert [(s.field, s.auroc.estimate) for s in audit(table, WARN)] == [
        (s.field, pytest.approx(s.auroc.estimate)) for s in again
    ]


def test_labels_of_images_and_few_patients_are_judged_too():
    table, _ = cohort(by_image=True)
    table["view_position"] = np.where(table["label"] == 1, "AP", "PA")
    assert strong(audit(table, WARN)) == {"view_position"}
    few, _ = cohort(patients=3)
    assert strong(audit(few.assign(site=["x", "x", "y", "y", "x", "x"]), WARN)) == set()


def test_off_looks_at_nothing():
    table, _ = cohort()
    policy = Shortcuts(action="off")
    assert audit(table.assign(scanner=table["label"].astype(str)), policy) == []
    assert "Not looked for" in section([], policy)
