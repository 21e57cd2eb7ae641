"""Evaluate on a real snapshot of small pictures: bright ones are positive, mostly."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from manifest_rows import manifest_row
from PIL import Image
from sklearn.metrics import roc_auc_score
from tiny_models import SIZE, make_model

from components.evaluate import Evaluated, evaluate
from evaluation.config import EvaluationConfig
from imaging.manifest import HEADER_FIELDS, STATISTICS, write_manifest
from imaging.reading.pixels import read_pixels
from lineage.digest import tree_digest
from lineage.errors import BadInput
from lineage.openings import openings
from serving.predictor import Predictor

CONFIG = EvaluationConfig(bootstrap_repetitions=200)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    """40 patients in test, 10 in validation, 10 in training; two images each."""
    folder = tmp_path_factory.mktemp("data")
    snapshot, splits = folder / "snapshot", folder / "splits"
    (snapshot / "images").mkdir(parents=True)
    splits.mkdir()
    rng = np.random.default_rng(0)
    manifest, parted = [], []
    for i in range(120):
        patient, label = i // 2, (i // 2) % 2
        mean = float(np.clip(rng.normal(0.45 + 0.1 * label, 0.08), 0.1, 0.9))
        pixels = np.clip(mean + rng.uniform(-0.05, 0.05, (SIZE, SIZE)), 0, 1)
        path = f"images/{i:03}.png"
        Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(snapshot / path)
        same = {
            "instance_uid": f"2.25.{i:03}",
            "patient_id": f"P{patient:02}",
            "label": label,
            "path": path,
            "scanner": f"S{patient % 3}",
            "sex": ("F", "M", None)[patient % 3],
        }
        split = "test" if patient < 40 else "validation" if patient < 50 else "train"
        parted.append({**same, "split": split, "age_band": "40-59"})
        looks = dict.fromkeys(STATISTICS, i / 120)
        manifest.append(manifest_row(i, **same, rows=SIZE, columns=SIZE, **looks))
    write_manifest(manifest, snapshot)
    pd.DataFrame(parted).to_parquet(splits / "splits.parquet")
    champion = make_model(folder / "champion", slope=6.0, threshold=0.4)
    card = json.loads((champion / "model.json").read_text())
    # Its own preprocessing turns bright into dark, so this champion is wrong on purpose.
    inverted = {"a_min": 0, "a_max": 1, "b_min": 1, "b_max": 0}
    card["preprocess"] = [{"name": "ScaleIntensityRange", "args": inverted}]
    (champion / "model.json").write_text(json.dumps(card))
    (folder / "none").mkdir()
    return {
        "snapshot": snapshot,
        "splits": splits,
        "model": make_model(folder / "model", slope=8.0, threshold=0.52),
        "champion": champion,
        "none": folder / "none",
    }


def run(data, out: Path, champion: str = "champion", **other) -> tuple[Path, Path]:
    return execute(data, out, champion, **other)[1:]


def execute(data, out: Path, champion: str = "champion", **other) -> tuple[Evaluated, Path, Path]:
    outputs = {"metrics": out / "metrics", "reference": out / "reference"}
    for path in outputs.values():
        path.mkdir(parents=True)
    inputs = {name: data[name] for name in ("model", "snapshot", "splits")}
    said = evaluate(CONFIG, **{**inputs, "champion": data[champion], **other}, **outputs)
    return said, outputs["metrics"], outputs["reference"]


def read(metrics: Path):
    return json.loads((metrics / "metrics.json").read_text())


@pytest.fixture
def done(data, home, tmp_path):
    return run(data, tmp_path / "out")


def test_predictions_are_those_of_the_predictor_on_the_test_split_alone(data, done):
    cases = pd.read_parquet(done[0] / "predictions.parquet")
    splits = pd.read_parquet(data["splits"] / "splits.parquet").set_index("instance_uid")
    assert set(cases["instance_uid"]) == set(splits.index[splits["split"] == "test"])
    assert list(cases) == [
        *("instance_uid", "patient_id", "label", "score", "champion_score"),
        *("sex", "age_band", "scanner"),
    ]
    row = cases.iloc[7]
    pixels = read_pixels(data["snapshot"] / splits.loc[row["instance_uid"], "path"])
    assert row["score"] == Predictor.load(data["model"]).predict(pixels)
    assert row["champion_score"] == Predictor.load(data["champion"]).predict(pixels)


def test_metrics_follow_from_the_predictions(data, done):
    found, cases = read(done[0]), pd.read_parquet(done[0] / "predictions.parquet")
    one = roc_auc_score(cases["label"], cases["score"])
    other = roc_auc_score(cases["label"], cases["champion_score"])
    assert found["metrics"]["auroc"]["estimate"] == pytest.approx(one)
    positives = cases[cases["label"] == 1]
    assert found["metrics"]["sensitivity"]["estimate"] == pytest.approx(
        (positives["score"] >= 0.52).mean()  # the candidate's threshold
    )
    difference = found["comparison"]["auroc_difference"]
    assert difference["estimate"] == pytest.approx(one - other)
    assert one > 0.7 > 0.3 > other
    assert (found["n_images"], found["n_patients"], found["n_positive"]) == (80, 40, 40)
    assert found["candidate"]["digest"] == tree_digest(data["model"])
    assert found["champion"]["digest"] == tree_digest(data["champion"])
    for entry in (difference, *found["metrics"].values()):
        assert entry["low"] <= entry["estimate"] <= entry["high"]
        assert (entry["level"], bool(entry["method"])) == (0.95, True)


def test_subgroups_have_numbers_with_intervals_or_a_reason(done):
    subgroups = read(done[0])["subgroups"]
    assert set(subgroups) == {"sex", "age_band", "scanner"}
    assert set(subgroups["sex"]) == {"F", "M", "unknown"}
    entries = [m for groups in subgroups.values() for g in groups.values() for m in g.values()]
    assert any(entry["estimate"] is None for entry in entries)
    for entry in entries:
        assert (entry["estimate"] is None) == (entry["low"] is None) == bool(entry["reason"])


def test_the_reference_scores_only_what_the_model_was_not_fitted_to(data, done):
    rows = pd.read_parquet(done[1] / "reference.parquet")
    assert list(rows) == [*STATISTICS, *HEADER_FIELDS, "score"]
    assert len(rows) == 40  # training and validation, no test image
    assert rows["score"].notna().sum() == 20
    validation = read_pixels(data["snapshot"] / "images/080.png")
    assert rows["score"].dropna().iloc[0] == Predictor.load(data["model"]).predict(validation)
    assert rows["intensity_mean"].min() >= np.float32(80 / 120)
    assert json.loads((done[1] / "reference.json").read_text()) == {
        "model_digest": tree_digest(data["model"])
    }


def test_without_a_champion_there_is_no_comparison(data, home, tmp_path):
    said, metrics, _ = execute(data, tmp_path / "out", champion="none")
    found = read(metrics)
    area = found["metrics"]["auroc"]
    estimate, low, high = (f"{area[part]:.3f}" for part in ("estimate", "low", "high"))
    assert said == (f"{estimate} ({low} to {high})", 80, 40)
    assert found["champion"] is None
    assert found["comparison"] is None
    assert pd.read_parquet(metrics / "predictions.parquet")["champion_score"].isna().all()


def test_outputs_depend_on_inputs_alone_and_each_opening_counts(data, home, tmp_path):
    first = [tree_digest(p) for p in run(data, tmp_path / "first")]
    again = [tree_digest(p) for p in run(data, tmp_path / "again")]
    assert first == again
    name = read(tmp_path / "first" / "metrics")["test_set_digest"]
    entries = openings(name)
    assert len(entries) == 2
    assert entries[0]["model_digest"] == tree_digest(data["model"])
    assert entries[0]["champion_digest"] == tree_digest(data["champion"])


def test_a_run_that_breaks_off_has_opened_the_split_all_the_same(data, home, tmp_path):
    breaks = make_model(tmp_path / "breaks", breaks_above=0.01)
    with pytest.raises(Exception, match="indices element out of data bounds"):
        run(data, tmp_path / "out", model=breaks)
    assert len(list((home.ledgers / "test_openings").iterdir())) == 1


def test_a_bad_model_is_refused_before_the_split_is_opened(data, home, tmp_path):
    with pytest.raises(BadInput):
        run(data, tmp_path / "out", model=data["none"])
    assert not home.ledgers.exists()


def test_an_empty_test_split_gives_reasons_instead_of_numbers(data, home, tmp_path):
    splits = pd.read_parquet(data["splits"] / "splits.parquet")
    (tmp_path / "splits").mkdir()
    splits[splits["split"] != "test"].to_parquet(tmp_path / "splits" / "splits.parquet")
    said, metrics, _ = execute(data, tmp_path / "out", splits=tmp_path / "splits")
    found = read(metrics)
    assert said == ("unknown: no images", 0, 0)
    assert found["n_images"] == 0
    assert all(entry["estimate"] is None for entry in found["metrics"].values())
    assert found["comparison"]["auroc_difference"]["reason"] == "no images"


@pytest.mark.parametrize(
    ("column", "what"), [("patient_id", "1 patients lie"), ("instance_uid", "name other instances")]
)
def test_whoever_was_learned_from_is_not_examined(data, home, tmp_path, column, what):
    splits = pd.read_parquet(data["splits"] / "splits.parquet")
    learned = splits.index[splits["split"] == "train"][0]
    splits.loc[learned, column] = splits.loc[splits["split"] == "test", column].iloc[0]
    (tmp_path / "mixed").mkdir()
    splits.to_parquet(tmp_path / "mixed" / "splits.parquet")
    with pytest.raises(BadInput, match=what):
        run(data, tmp_path / "out", splits=tmp_path / "mixed")
    assert not home.ledgers.exists()  # the test set stayed sealed
