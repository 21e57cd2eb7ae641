"""The predictor on a small ONNX model: sigmoid(4 * (mean - 0.5))."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lineage.digest import tree_digest
from lineage.errors import BadInput, StepFailed
from serving.predictor import Predictor

SIZE = 8


def make_model(directory: Path, *, last: str = "Sigmoid", size: int = SIZE, **card) -> Path:
    """`last` is the operation that turns the logit into the output."""
    directory.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Sub", ["mean", "half"], ["centred"]),
            helper.make_node("Mul", ["centred", "four"], ["logit"]),
            helper.make_node(last, ["logit"], ["probability"]),
        ],
        "mean",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, size, size])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])],
        [
            helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
            helper.make_tensor("four", TensorProto.FLOAT, [], [4.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(directory / "model.onnx"))
    (directory / "model.json").write_text(
        json.dumps(
            {
                "format": 1,
                "classes": ["normal", "nodule"],
                "network": {"name": "none", "args": {}},
                "preprocess": [{"name": "Resize", "args": {"spatial_size": [SIZE, SIZE]}}],
                "input_shape": [1, SIZE, SIZE],
                "threshold": 0.6,
                **card,
            }
        )
    )
    return directory


def uniform(value: float, shape: tuple[int, int] = (16, 12)) -> np.ndarray:
    return np.full(shape, value, np.float32)


def test_scores_what_the_network_computes_after_preprocessing(tmp_path):
    model = Predictor.load(make_model(tmp_path / "m"))
    assert model.predict(uniform(0.75)) == pytest.approx(1 / (1 + np.exp(-1.0)), abs=1e-6)
    assert (model.classes, model.threshold) == (("normal", "nodule"), 0.6)


def test_a_score_does_not_depend_on_its_company(tmp_path):
    model = Predictor.load(make_model(tmp_path / "m"))
    rng = np.random.default_rng(0)
    images = [rng.random((20, 20), dtype=np.float32) for _ in range(5)]
    together = model.predict_many(iter(images))
    assert together.dtype == np.float64
    assert together.tolist() == [model.predict(image) for image in images]
    assert model.predict_many([]).shape == (0,)


def test_the_right_digest_opens_and_a_wrong_one_stops_before_anything_is_parsed(tmp_path):
    directory = make_model(tmp_path / "m")
    digest = tree_digest(directory)
    assert Predictor.load(directory, digest).digest == digest
    (directory / "model.json").write_text("{ this is not JSON")
    with pytest.raises(BadInput, match="changed after it was recorded"):
        Predictor.load(directory, digest)
    with pytest.raises(BadInput, match=r"model\.json cannot be used"):
        Predictor.load(directory)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("weights.pkl", b"\x80\x05.", "never pickles"),
        ("model.pt2", b"PK\x03\x04", "never pickles"),
        ("extra/code.py", b"import os", "never pickles"),
        ("model.safetensors", b"\x80\x05\x95\x00\x00\x00\x00\x00\x00\x8c", "does not begin"),
        ("history.json", b"\x80\x05.", "does not begin"),
        ("predictions.parquet", b"PK\x03\x04", "does not begin"),
        ("empty.json", b"", "does not begin"),
        ("other.onnx", b"\x80\x04.", "does not begin"),
    ],
)
def test_refuses_files_that_no_model_holds(tmp_path, name, content, message):
    directory = make_model(tmp_path / "m")
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        Predictor.load(directory, tree_digest(directory))


def test_refuses_links_and_missing_files(tmp_path):
    directory = make_model(tmp_path / "m")
    (directory / "model.json").rename(tmp_path / "elsewhere.json")
    with pytest.raises(BadInput, match=r"no model\.json"):
        Predictor.load(directory)
    (directory / "model.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BadInput, match="is a link"):
        Predictor.load(directory)
    with pytest.raises(BadInput, match="is no directory"):
        Predictor.load(tmp_path / "nowhere")
    (make_model(tmp_path / "n") / "model.onnx").unlink()
    with pytest.raises(BadInput, match=r"no model\.onnx"):
        Predictor.load(tmp_path / "n")


def test_allowed_companions_and_the_record_do_not_disturb(tmp_path):
    import pandas as pd
    from safetensors.numpy import save_file

    directory = make_model(tmp_path / "m")
    save_file({"w": np.zeros(3, np.float32)}, directory / "model.safetensors")
    pd.DataFrame({"score": [0.5]}).to_parquet(directory / "validation_predictions.parquet")
    digest = tree_digest(directory)
    (directory / ".lineage.json").write_text("{}")
    assert Predictor.load(directory, digest).digest == digest


def test_weights_outside_the_model_directory_are_not_read(tmp_path):
    directory = make_model(tmp_path / "m")
    model = onnx.load(str(directory / "model.onnx"))
    np.float32(4.0).tofile(tmp_path / "outside.json")
    tensor = model.graph.initializer[1]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside.json")
    (directory / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BadInput, match=r"model\.onnx cannot be loaded"):
        Predictor.load(directory)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threshold", 1.5),
        ("threshold", float("nan")),
        ("format", 2),
        ("classes", ["one"]),
        ("input_shape", [3, SIZE, SIZE]),
        ("preprocess", [{"name": "Resize", "arguments": {}}]),
    ],
)
def test_a_card_that_makes_no_sense_is_refused_by_field(tmp_path, field, value):
    with pytest.raises(BadInput, match=rf"model\.json cannot be used \({field}"):
        Predictor.load(make_model(tmp_path / "m", **{field: value}))


def test_card_and_network_must_fit(tmp_path):
    with pytest.raises(BadInput, match=r"image \(N, 1, 8, 8\)"):
        Predictor.load(make_model(tmp_path / "m", size=SIZE + 1))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (uniform(0.5)[np.newaxis], "float32 .height, width."),
        (uniform(0.5).astype(np.float64), "float32 .height, width."),
        (uniform(0.5, (0, 4)), "float32 .height, width."),
        (uniform(200.0), r"within 0\.\.1"),
        (uniform(-0.1), r"within 0\.\.1"),
        (np.array([[0.5, np.nan]], np.float32), r"within 0\.\.1"),
        (uniform(np.inf), r"within 0\.\.1"),
    ],
)
def test_pixels_that_break_the_contract_are_refused(tmp_path, pixels, message):
    with pytest.raises(BadInput, match=message):
        Predictor.load(make_model(tmp_path / "m")).predict(pixels)


def test_an_image_of_another_size_needs_a_resize(tmp_path):
    model = Predictor.load(make_model(tmp_path / "m", preprocess=[]))
    assert 0 <= model.predict(uniform(0.5, (SIZE, SIZE))) <= 1
    with pytest.raises(BadInput, match="add a resize"):
        model.predict(uniform(0.5, (SIZE, SIZE + 1)))


def test_an_answer_that_is_no_probability_fails(tmp_path):
    model = Predictor.load(make_model(tmp_path / "m", last="Log"))  # of a negative logit: NaN
    with pytest.raises(StepFailed, match="no probability"):
        model.predict(uniform(0.1))
    with pytest.raises(StepFailed, match="no probability"):
        Predictor.load(make_model(tmp_path / "n", last="Identity")).predict(uniform(0.9))
