import json
import math
import re
from datetime import date

import pandas as pd
import pytest
import yaml
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
    require_true_dates,
    require_usable,
    side,
    write_splits,
)
from lineage.code import ROOT
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
                    "site": "X",
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


def test_nearly_equal_pictures_on_several_sides_are_set_aside():
    patients = [f"p{i}" for i in range(60)]
    table = manifest(patients)
    sides, _ = parted(table)
    trained = sides.loc[sides["split"] == "train", "patient_id"].tolist()
    tested = sides.loc[sides["split"] == "test", "patient_id"].tolist()
    look = {f"{trained[0]}.0": "0" * 64, f"{tested[0]}.0": "0" * 63 + "7"}
    look |= {f"{trained[1]}.0": "f" * 64, f"{trained[2]}.0": "f" * 63 + "e"}
    table["perceptual_hash"] = [look.get(uid) for uid in table["instance_uid"]]
    rows, counts = parted(table)
    near = counts["set_aside"]["near_duplicates_on_several_sides"]
    assert near == sorted(uid for uid in look if look[uid].startswith("0"))
    assert len(rows) == 58
    exact = SplittingConfig(near_duplicate_bits=2)
    assert len(parted(table, exact)[0]) == 60


TIMED = SplittingConfig(by="time", test_from=date(2022, 1, 1))
THREE = SplittingConfig(by="time", validation_from=date(2021, 1, 1), test_from=date(2022, 1, 1))
SITED = SplittingConfig(by="site", held_out_sites=("H",))
# A growing data set: each arrival is a patient, the day of a study, and its site.
arrivals = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.dates(date(2020, 1, 1), date(2023, 1, 1)) | st.none(),
        st.sampled_from(["X", "Y", "H", None]),
    ),
    max_size=40,
)


def arrived(images):
    table = manifest([f"{i}" for i in range(len(images))])
    table["patient_id"] = [f"p{patient}" for patient, _, _ in images]
    table["study_date"] = pd.Series([day for _, day, _ in images], dtype=object)
    table["site"] = pd.Series([site for _, _, site in images], dtype=object)
    return table


@settings(max_examples=60, deadline=None)
@given(arrivals, arrivals, keys, st.sampled_from([CONFIG, TIMED, THREE, SITED]))
def test_growth_moves_nobody_however_it_is_parted(before, arriving, key, config):
    held_out = [(99, date(2020, 5, 5), "H")]  # so that the site is there
    ledger, told = {}, {}
    for images in (held_out + before, held_out + before + arriving):
        rows, counts = part(table := arrived(images), table[["instance_uid"]], config, key, ledger)
        sides = dict(zip(rows["patient_id"], rows["split"], strict=True))
        assert all(told.get(p, s) == s for p, s in sides.items())
        ledger |= {p: s for p, s in sides.items() if p not in ledger}
        told |= sides
        assert rows.groupby("patient_id")["split"].nunique().max() == 1
        out = {uid for uids in counts["set_aside"].values() for uid in uids}
        assert out.isdisjoint(rows["instance_uid"])
        assert len(out) + len(rows) == len(table)
        days = rows["instance_uid"].map(table.set_index("instance_uid")["study_date"])
        sites = rows["instance_uid"].map(table.set_index("instance_uid")["site"])
        if config.by == "time":
            assert (days[rows["split"] == "test"] >= date(2022, 1, 1)).all()
            assert (days[rows["split"] != "test"] < date(2022, 1, 1)).all()
        if config is THREE:
            assert (days[rows["split"] == "train"] < date(2021, 1, 1)).all()
            assert (days[rows["split"] == "validation"] >= date(2021, 1, 1)).all()
        if config is SITED:
            assert ((sites == "H") == (rows["split"] == "test")).all()


def test_a_patient_goes_where_its_first_image_lies_and_later_ones_are_set_aside():
    early, late = date(2021, 1, 1), date(2022, 1, 1)  # the days of the cuts
    table = arrived([(1, early, "X"), (1, late, "X"), (2, late, "X"), (3, None, "X")])
    rows, counts = part(table, table[["instance_uid"]], THREE, KEY, {})
    assert rows["split"].tolist() == ["validation", "test"]
    assert counts["set_aside"]["not_on_its_patients_side"] == ["1.0"]
    assert counts["set_aside"]["no_study_date"] == ["3.0"]


def test_whoever_was_ever_at_a_held_out_site_is_examined_there_only():
    table = arrived([(1, None, "H"), (1, None, "X"), (2, None, "X"), (3, None, None)])
    rows, counts = part(table, table[["instance_uid"]], SITED, KEY, {})
    assert rows["instance_uid"].tolist() == ["0.0", "2.0"]
    assert rows["split"].tolist()[0] == "test"
    assert rows["split"].tolist()[1] in ("train", "validation")
    assert counts["set_aside"]["not_on_its_patients_side"] == ["1.0"]
    assert counts["set_aside"]["no_site"] == ["3.0"]
    elsewhere = SplittingConfig(by="site", held_out_sites=("Z",))
    with pytest.raises(BadInput, match=r"no image comes from \['Z'\]; there are \['H', 'X'\]"):
        part(table, table[["instance_uid"]], elsewhere, KEY, {})


def test_those_before_the_cut_are_shared_out_as_the_fractions_are():
    table = arrived([(i, date(2021, 1, 1), "X") for i in range(2000)])
    rows, _ = part(table, table[["instance_uid"]], TIMED, KEY, {})
    share = (rows["split"] == "validation").mean()
    assert abs(share - 0.15 / 0.85) < 4 * math.sqrt(0.18 * 0.82 / 2000)


def test_moved_dates_order_nobody():
    moved = {"options": {"113107": "modified dates"}}
    for column in ("study_date", "label_known_since"):
        timed = TIMED.model_copy(update={"time_column": column})
        with pytest.raises(BadInput, match="all dates were moved or removed"):
            require_true_dates(moved, timed)
        require_true_dates({"options": {"113106": "full dates"}}, timed)
    require_true_dates(moved, CONFIG)


@pytest.mark.parametrize(
    "unclear",
    [
        {"by": "time"},
        {"test_from": "2022-01-01"},
        {"by": "time", "validation_from": "2022-01-01"},
        {"by": "time", "validation_from": "2022-01-01", "test_from": "2021-01-01"},
        {"by": "site"},
        {"held_out_sites": ["H"]},
    ],
)
def test_settings_that_do_not_go_together_are_refused(unclear):
    with pytest.raises(ValueError, match=r"go together|must lie before"):
        SplittingConfig.model_validate(unclear)


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
    assert stratum["stratum"] == {"label": 1, "site": "X", "sex": "F"}
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


def test_the_page_s_example_is_a_setting():
    page = (ROOT / "docs" / "splits.md").read_text()
    (example,) = re.findall(r"```yaml\nsplitting:\n(.*?)```", page, re.DOTALL)
    assert SplittingConfig(**yaml.safe_load(example)).by == "time"
