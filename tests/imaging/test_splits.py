import json
import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging.config import Fractions, SplittingConfig
from imaging.splits import (
    COLUMNS,
    SIDES,
    open_ledger,
    part,
    position,
    read_splits,
    require_usable,
    side,
    write_splits,
)
from lineage.errors import BadInput, StepFailed

KEY = bytes(range(32))
CONFIG = SplittingConfig()


def manifest(patients, images_each=1, pixels=None):
    rows = []
    for patient in patients:
        for image in range(images_each):
            uid = f"{patient}.{image}"
            rows.append(
                {
                    "instance_uid": uid,
                    "patient_id": patient,
                    "path": f"images/{uid}.png",
                    "pixel_sha256": (pixels or {}).get(uid, uid),
                    "label": image % 2,
                    "sex": None if image else "F",
                    "age_years": 50.0,
                    "scanner": "A",
                }
            )
    return pd.DataFrame(rows)


def parted(table, config=CONFIG, key=KEY, earlier=None):
    return part(table, table[["instance_uid"]], config, key, earlier or {})


names = st.sets(st.text("0123456789abcdef", min_size=1, max_size=8), min_size=1, max_size=40)
keys = st.binary(min_size=32, max_size=32)
fractions = st.tuples(st.integers(1, 98), st.integers(1, 98)).filter(lambda f: sum(f) < 100)


@settings(max_examples=40, deadline=None)
@given(names, keys, fractions, st.integers(1, 3))
def test_no_patient_is_on_two_sides(patients, key, percents, images_each):
    train, validation = (p / 100 for p in percents)
    parts = Fractions(train=train, validation=validation, test=1 - train - validation)
    rows, counts = parted(manifest(patients, images_each), SplittingConfig(fractions=parts), key)
    assert rows.groupby("patient_id")["split"].nunique().max() == 1
    assert set(rows["split"]) <= set(SIDES)
    assert (
        len(rows)
        == len(patients) * images_each
        == sum(c["images"] for c in counts["sides"].values())
    )


@settings(max_examples=40, deadline=None)
@given(names, names, keys)
def test_growth_never_moves_anyone(before, arriving, key):
    small, _ = parted(manifest(before), key=key)
    large, _ = parted(manifest(before | arriving), key=key)
    sides = dict(zip(large["patient_id"], large["split"], strict=True))
    assert all(sides[p] == s for p, s in zip(small["patient_id"], small["split"], strict=True))


@pytest.mark.parametrize("key", [bytes([i]) * 32 for i in range(5)])
def test_fractions_hold_within_binomial_error(key):
    n = 4000
    sides = [side(position(key, f"p{i}"), CONFIG.fractions.model_dump()) for i in range(n)]
    for name, fraction in CONFIG.fractions.model_dump().items():
        error = math.sqrt(fraction * (1 - fraction) / n)
        assert abs(sides.count(name) / n - fraction) < 4 * error  # 6e-5 by chance, and pinned


def test_another_key_draws_anew():
    one, _ = parted(manifest([f"p{i}" for i in range(200)]))
    other, _ = parted(manifest([f"p{i}" for i in range(200)]), key=bytes(32))
    assert (one["split"].to_numpy() != other["split"].to_numpy()).any()


def test_a_ledger_keeps_tested_patients_out_of_training(tmp_path):
    table = manifest([f"p{i}" for i in range(200)], images_each=2)
    path = tmp_path / "ledgers" / "patients.jsonl"
    with open_ledger(path) as ledger:
        first, counts = parted(table, earlier=ledger.sides)
        ledger.add(dict(zip(first["patient_id"], first["split"], strict=True)), counts["fractions"])
    assert counts["patients_kept_by_ledger"] == 0

    other = SplittingConfig(fractions=Fractions(train=0.94, validation=0.03, test=0.03))
    unguarded, _ = parted(table, other)
    tested = set(first.loc[first["split"] == "test", "patient_id"])
    assert tested & set(unguarded.loc[unguarded["split"] == "train", "patient_id"])
    with open_ledger(path) as ledger:
        second, counts = parted(table, other, earlier=ledger.sides)
    pd.testing.assert_frame_equal(first, second)
    assert counts["patients_kept_by_ledger"] > 0


def test_a_ledger_only_grows_and_survives_a_half_written_line(tmp_path):
    path = tmp_path / "patients.jsonl"
    with open_ledger(path) as ledger:
        ledger.add({"a": "test", "b": "train"}, {"test": 0.5})
    with path.open("a") as file:
        file.write('{"patient_id": "c", "spl')
    with open_ledger(path) as ledger:
        assert ledger.sides == {"a": "test", "b": "train"}
        ledger.add({"a": "train", "d": "validation"}, {"test": 0.1})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["patient_id"], line["split"]) for line in lines] == [
        ("a", "test"),
        ("b", "train"),
        ("d", "validation"),
    ]
    assert lines[2]["fractions"] == {"test": 0.1}


def test_copies_on_several_sides_are_set_aside_but_not_copies_on_one():
    patients = [f"p{i}" for i in range(60)]
    sides, _ = parted(manifest(patients))
    trained = sides.loc[sides["split"] == "train", "patient_id"].tolist()
    tested = sides.loc[sides["split"] == "test", "patient_id"].tolist()
    across = {f"{trained[0]}.0": "same", f"{tested[0]}.0": "same"}
    within = {f"{trained[1]}.0": "twins", f"{trained[2]}.0": "twins"}
    rows, counts = parted(manifest(patients, pixels={**across, **within}))
    assert counts["set_aside"]["same_pixels_on_several_sides"] == sorted(across)
    assert len(rows) == 58
    assert set(within) < set(rows["instance_uid"])


def test_only_accepted_instances_are_parted_and_strangers_are_refused():
    table = manifest(["a", "b", "c"])
    rows, _ = part(table, table[["instance_uid"]].head(2), CONFIG, KEY, {})
    assert rows["instance_uid"].tolist() == ["a.0", "b.0"]
    stranger = pd.DataFrame({"instance_uid": ["a.0", "z.0"]})
    with pytest.raises(BadInput, match="2 instances are accepted, but 1"):
        part(table, stranger, CONFIG, KEY, {})


def test_strata_count_each_patient_once_by_the_highest_label():
    table = manifest([f"p{i}" for i in range(30)], images_each=2)  # labels 0 and 1 each
    _, counts = parted(table)
    (stratum,) = counts["strata"]
    assert stratum["stratum"] == {"label": 1, "scanner": "A", "sex": "F"}
    assert sum(stratum["patients"].values()) == 30
    with pytest.raises(BadInput, match="no column"):
        parted(table, SplittingConfig(strata=("colour",)))


@pytest.mark.parametrize(
    ("poor", "words"),
    [
        ({"patients": 4, "images": 9, "positive_images": 3}, "4 patients"),
        ({"patients": 9, "images": 9, "positive_images": 0}, "9 images, 0 of them"),
        ({"patients": 9, "images": 9, "positive_images": 9}, "9 of them positive"),
    ],
)
def test_a_side_too_small_or_of_one_class_is_refused(poor, words):
    good = {"patients": 5, "images": 9, "positive_images": 3}
    require_usable({"sides": {"train": good, "validation": good, "test": good}}, 5)
    with pytest.raises(StepFailed, match=f"test has .*{words}"):
        require_usable({"sides": {"train": good, "validation": good, "test": poor}}, 5)


def test_splits_come_back_as_written(tmp_path):
    rows, counts = parted(manifest(["a", "b", "c"], images_each=2))
    write_splits(rows, counts, tmp_path)
    back = read_splits(tmp_path)
    assert tuple(back.columns) == COLUMNS
    assert back["split"].tolist() == rows["split"].tolist()
    assert back["label"].dtype == "int8"
    assert back["sex"].isna().sum() == 3
    assert set(back["age_band"]) == {"40-59"}


def test_fractions_must_sum_to_one():
    with pytest.raises(ValueError, match="must sum to 1"):
        Fractions(train=0.6, validation=0.2, test=0.15)
