"""What the train step leaves behind: weights, the served graph, and the card that explains both.

No pickle anywhere, no dates, no paths: the same training gives the same bytes.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lineage.errors import StepFailed
from lineage.files import write_json
from training.config import TrainingConfig
from training.data import Images
from training.fit import Fitted, predict_logits

if TYPE_CHECKING:
    import torch

FORMAT = 1
OPSET = 17
TOLERANCE = 1e-5  # of a probability, between torch and the exported graph


def export_model(
    config: TrainingConfig, fitted: Fitted, train: Images, validation: Images, directory: Path
) -> float:
    """Write a model directory.

    Writes:
        model.safetensors: The weights.
        model.onnx: float32 "image" (N, 1, h, w) to float32 "probability" (N,) of the positive
            class; N is free.
        model.json: Classes, network, preprocessing, input shape, operating threshold.
        history.json: Losses and AUROC per epoch.
        validation_predictions.parquet: instance_uid, patient_id, label, score; the scores come
            out of model.onnx, one image at a time, as they will in service.

    Returns:
        The operating threshold; see `operating_threshold`.

    Raises:
        StepFailed: The exported graph disagrees with the trained network, or no threshold
            reaches the target specificity.
    """
    from safetensors.torch import save_file

    save_file(fitted.network.state_dict(), directory / "model.safetensors")
    _write_onnx(fitted.network, train.shape, directory / "model.onnx")
    scores = _onnx_scores(directory / "model.onnx", validation.pixels)
    _require_agreement(fitted.network, validation.pixels, scores)
    threshold = operating_threshold(scores, validation.labels, config.target_specificity)
    card = {
        "format": FORMAT,
        "classes": config.classes,
        "network": config.network.model_dump(mode="json"),
        "preprocess": [t.model_dump(mode="json") for t in config.preprocess],
        "input_shape": train.shape,
        "threshold": threshold,
        "target_specificity": config.target_specificity,
        "seed": config.seed,
        "best_epoch": fitted.best_epoch,
        "trained_on": {"images": len(train), "patients": len(set(train.patient_ids))},
    }
    write_json(directory / "model.json", card)
    write_json(directory / "history.json", fitted.history)
    _write_predictions(validation, scores, directory / "validation_predictions.parquet")
    return threshold


def operating_threshold(scores: np.ndarray, labels: np.ndarray, target_specificity: float) -> float:
    """Choose the threshold from validation scores; a score at or above it reads as positive.

    The lowest that leaves at least `target_specificity` of the negatives below it. Any value in
    the gap between two neighbouring scores does the same; the middle of the gap is taken, so
    that a rounding error elsewhere cannot turn an image over.

    Raises:
        StepFailed: Too many negatives score exactly 1, so that no threshold reaches the target.
    """
    negatives = np.sort(scores[labels == 0])
    below = int(np.ceil(target_specificity * len(negatives) - 1e-9))  # 0.9 * 10 is not quite 9
    last_below = negatives[below - 1]
    if last_below >= 1:
        raise StepFailed(
            f"no threshold keeps {target_specificity:.0%} of the {len(negatives)} validation "
            "negatives negative, too many have score 1: train with more data or fewer epochs"
        )
    above = scores[scores > last_below]
    return float((float(last_below) + float(above.min(initial=1.0))) / 2)


def _write_onnx(network: "torch.nn.Module", shape: tuple[int, int, int], path: Path) -> None:
    import warnings

    import onnx
    import torch

    class Probability(torch.nn.Module):  # type: ignore[misc]  # torch goes untyped here
        """The network with its logits turned into the probability of the positive class."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.network(image), dim=1)[:, 1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The older exporter: a fifth of a second where the newer one takes three, and it leaves
        # no stack traces with this machine's paths in the file.
        torch.onnx.export(
            Probability().eval(),
            (torch.zeros(2, *shape),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["probability"],
            dynamic_axes={"image": {0: "N"}, "probability": {0: "N"}},
        )
    model = onnx.load(path)
    model.doc_string = ""
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    path.write_bytes(model.SerializeToString(deterministic=True))


def _onnx_scores(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Probabilities, float32 (N,), one image at a time and on one thread, as in service."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate(
        [session.run(["probability"], {"image": image[np.newaxis]})[0] for image in pixels]
    )


def _require_agreement(network: "torch.nn.Module", pixels: np.ndarray, scores: np.ndarray) -> None:
    import torch

    logits = torch.from_numpy(predict_logits(network, pixels, torch.device("cpu")))
    expected = torch.softmax(logits, dim=1)[:, 1].numpy()
    apart = float(np.abs(expected - scores).max())
    if not apart < TOLERANCE:  # also when it is no number
        raise StepFailed(
            f"the exported model.onnx and the trained network differ by {apart:.1e} in a "
            f"probability, more than {TOLERANCE:.0e}: this network does not survive the export"
        )


def _write_predictions(images: Images, scores: np.ndarray, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "instance_uid": pa.array(images.instance_uids, pa.string()),
            "patient_id": pa.array(images.patient_ids, pa.string()),
            "label": pa.array(images.labels, pa.int8()),
            "score": pa.array(scores, pa.float32()),
        }
    )
    pq.write_table(table, path, compression="zstd")
