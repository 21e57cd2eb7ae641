"""Real ONNX models of a few nodes, with known faults, and images to send to them."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

SIZE = 8


def make_model(
    directory: Path,
    *,
    slope: float = 4.0,
    centre: float = 0.5,
    threshold: float = 0.5,
    matmuls: int = 0,
    breaks_above: float | None = None,
) -> Path:
    """A model directory whose probability is sigmoid(slope * (mean - centre)).

    `matmuls` of 512 x 512 make it slow; with `breaks_above` the network fails on images whose mean
    is higher, by an index out of range.
    """
    directory.mkdir(parents=True)
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["mean", "centre"], ["centred"]),
        helper.make_node("Mul", ["centred", "slope"], ["logit"]),
    ]
    constants = {"centre": np.float32(centre), "slope": np.float32(slope)}
    last = "logit"
    if matmuls:
        constants["w"] = np.full((512, 512), 1 / 512, np.float32)
        constants["none"] = np.float32(1e-30)
        nodes.append(helper.make_node("Mul", ["w", "mean"], ["m0"]))
        for i in range(matmuls):
            nodes.append(helper.make_node("MatMul", [f"m{i}", "w"], [f"m{i + 1}"]))
        nodes.append(helper.make_node("ReduceMean", [f"m{matmuls}"], ["heavy"], keepdims=0))
        nodes.append(helper.make_node("Mul", ["heavy", "none"], ["nothing"]))
        nodes.append(helper.make_node("Add", [last, "nothing"], ["worked"]))
        last = "worked"
    if breaks_above is not None:
        constants["high"] = np.float32(1 / breaks_above)
        constants["table"] = np.zeros(1, np.float32)
        nodes.append(helper.make_node("Mul", ["mean", "high"], ["place"]))
        nodes.append(helper.make_node("Cast", ["place"], ["index"], to=TensorProto.INT64))
        nodes.append(helper.make_node("Gather", ["table", "index"], ["zero"]))
        nodes.append(helper.make_node("Add", [last, "zero"], ["looked_up"]))
        last = "looked_up"
    nodes.append(helper.make_node("Sigmoid", [last], ["probability"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(directory / "model.onnx"))
    card = {
        "format": 1,
        "classes": ["normal", "nodule"],
        "network": {"name": "none", "args": {}},
        "preprocess": [],
        "input_shape": [1, SIZE, SIZE],
        "threshold": threshold,
    }
    (directory / "model.json").write_text(json.dumps(card))
    return directory


def png(seed: int) -> bytes:
    """A grey picture of SIZE x SIZE; means differ from seed to seed, from 0.2 to 0.8."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(0.2, 0.8) + rng.uniform(-0.15, 0.15, (SIZE, SIZE))
    file = BytesIO()
    Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
