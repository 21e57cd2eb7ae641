import json

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from lineage.digest import tree_digest
from lineage.errors import StepFailed
from serving.predictor import Predictor
from training import export
from training.export import export_model, operating_threshold
from training.fit import fit, predict_logits
from training.network import build_network


@pytest.fixture(scope="module")
def exported(tiny, train, validation, tmp_path_factory):
    config = tiny(preprocess=[{"name": "Flip", "args": {"spatial_axis": 0}}], classes=["no", "yes"])
    fitted = fit(config, train, validation)
    directory = tmp_path_factory.mktemp("model")
    threshold = export_model(config, fitted, train, validation, directory)
    return config, fitted, directory, threshold


def test_the_card_says_what_the_model_is(exported, train):
    config, fitted, directory, threshold = exported
    card = json.loads((directory / "model.json").read_text())
    assert card["format"] == 1
    assert card["classes"] == ["no", "yes"]
    assert card["network"] == config.network.model_dump()
    assert card["preprocess"] == [{"name": "Flip", "args": {"spatial_axis": 0}}]
    assert card["input_shape"] == [1, 16, 16]
    assert card["threshold"] == threshold
    assert card["trained_on"] == {"images": 96, "patients": 96}
    assert json.loads((directory / "history.json").read_text()) == fitted.history


def test_the_weights_rebuild_the_network(exported, validation):
    config, fitted, directory, _ = exported
    network = build_network(config.network.name, config.network.args, (1, 16, 16))
    network.load_state_dict(load_file(directory / "model.safetensors"))
    cpu = torch.device("cpu")
    np.testing.assert_array_equal(
        predict_logits(network, validation.pixels, cpu),
        predict_logits(fitted.network, validation.pixels, cpu),
    )


def test_the_predictor_serves_it_with_the_scores_written_down(exported, validation):
    _, _, directory, threshold = exported
    predictor = Predictor.load(directory, tree_digest(directory))
    assert predictor.threshold == threshold
    table = pd.read_parquet(directory / "validation_predictions.parquet")
    assert table["instance_uid"].tolist() == validation.instance_uids
    assert table["label"].tolist() == validation.labels.tolist()
    # Undo the card's own preprocessing, a flip, and bring the pixels into 0..1 as read_pixels does.
    session, apply = predictor._session, predictor._preprocess
    served = [
        session.run(["probability"], {"image": apply(apply(image))[np.newaxis]})[0][0]
        for image in validation.pixels
    ]
    assert served == table["score"].tolist()


def test_batches_of_any_size_go_through(exported, validation):
    import onnxruntime

    _, _, directory, _ = exported
    session = onnxruntime.InferenceSession(directory / "model.onnx")
    for size in (1, 5):
        (scores,) = session.run(["probability"], {"image": validation.pixels[:size]})
        assert (scores.shape, scores.dtype) == ((size,), np.float32)


def test_nothing_of_this_machine_is_in_the_files(exported, tmp_path):
    _, _, directory, _ = exported
    kinds = {p.name for p in directory.iterdir()}
    assert kinds == {
        "model.safetensors",
        "model.onnx",
        "model.json",
        "history.json",
        "validation_predictions.parquet",
    }
    folder = str(export.__file__).removesuffix("export.py")
    for path in directory.iterdir():
        content = path.read_bytes()
        assert b".py" not in content
        assert folder.encode() not in content
    model = onnx.load(directory / "model.onnx")
    assert not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_the_same_training_gives_the_same_bytes(tiny, train, validation, tmp_path):
    digests = []
    for run, seed in enumerate((7, 7, 8)):
        directory = tmp_path / str(run)
        directory.mkdir()
        config = tiny(max_epochs=2, seed=seed)
        export_model(config, fit(config, train, validation), train, validation, directory)
        digests.append(tree_digest(directory))
    assert digests[0] == digests[1] != digests[2]


def test_a_graph_that_disagrees_is_refused(tiny, train, validation, tmp_path, monkeypatch):
    fitted = fit(tiny(max_epochs=1), train, validation)
    other = fit(tiny(max_epochs=1, seed=5), train, validation)
    faithful = export._write_onnx
    monkeypatch.setattr(
        export, "_write_onnx", lambda network, *rest: faithful(other.network, *rest)
    )
    with pytest.raises(StepFailed, match="does not survive the export"):
        export_model(tiny(), fitted, train, validation, tmp_path)


# --- the threshold ---------------------------------------------------------------------------


def test_threshold_is_the_middle_of_the_lowest_gap_that_suffices():
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.95, 0.9, 0.99], np.float32)
    labels = np.array([0] * 10 + [1, 1])
    # Nine of ten negatives must lie below: above 0.85, and the next score is 0.9.
    assert operating_threshold(scores, labels, 0.9) == pytest.approx(0.875)
    assert operating_threshold(scores, labels, 1.0) == pytest.approx(0.97)
    assert operating_threshold(scores, labels, 0.05) == pytest.approx(0.15)


@pytest.mark.parametrize("target", [0.5, 0.8, 0.9, 0.95, 1.0])
def test_threshold_reaches_the_target_and_the_next_lower_one_does_not(target):
    rng = np.random.default_rng(3)
    scores = (0.9 * rng.random(200)).round(2).astype(np.float32)  # with ties
    labels = rng.integers(0, 2, 200)
    threshold = operating_threshold(scores, labels, target)
    negatives = scores[labels == 0]
    assert (negatives < threshold).mean() >= target
    lower = scores[scores < threshold].max()
    assert (negatives < lower).mean() < target


def test_threshold_above_every_score_stays_a_probability():
    scores = np.array([0.2, 0.8], np.float32)
    assert operating_threshold(scores, np.array([1, 0]), 1.0) == pytest.approx(0.9)


def test_no_threshold_is_said_so():
    with pytest.raises(StepFailed, match="no threshold keeps 90%"):
        operating_threshold(np.ones(4, np.float32), np.array([0, 0, 1, 1]), 0.9)
