"""A trained model as everyone uses it: pixels in, the probability of the positive class out.

Evaluation and every kind of serving go through this file, so that what was measured is what runs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imaging.config import Transform
from imaging.preprocess import Preprocess, compose
from lineage.digest import tree_digest
from lineage.errors import BadInput, StepFailed
from lineage.model_files import refuse_executable

_ROUNDING = 1e-4  # how far a resampled image may leave 0..1


class _Card(BaseModel):
    """The part of model.json that prediction needs."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1]
    classes: tuple[str, str]
    preprocess: tuple[Transform, ...]
    input_shape: tuple[Literal[1], int, int]
    threshold: float = Field(ge=0, le=1, allow_inf_nan=False)


@dataclass(frozen=True)
class Predictor:
    """One loaded model. Safe to call from several threads at once.

    Attributes:
        digest: Tree digest of the model directory.
        classes: Names of the negative and the positive class.
        threshold: The operating point; a score at or above it reads as positive.
    """

    digest: str
    classes: tuple[str, str]
    threshold: float
    _input_shape: tuple[int, int, int]
    _preprocess: Preprocess
    _session: Any

    @staticmethod
    def load(directory: Path, digest: str | None = None) -> "Predictor":
        """Open a model directory with ONNX Runtime on the CPU.

        Args:
            directory: As written by the train step: model.onnx, model.json and companions.
            digest: The tree digest that it must have, checked before any file is parsed.

        Raises:
            BadInput: The digest differs, a file is missing, is of a kind that is not expected in
                a model directory, or model.onnx and model.json do not fit together.
        """
        if not directory.is_dir():
            raise BadInput("the model's place is no directory; name the one that train wrote")
        refuse_executable(directory)
        found = tree_digest(directory)
        if digest is not None and found != digest:
            raise BadInput(
                f"{directory} holds a model with digest {found[:12]}…, not {digest[:12]}…: "
                "it was changed after it was recorded; fetch it again from the registry"
            )
        card = _read_card(directory)
        return Predictor(
            digest=found,
            classes=card.classes,
            threshold=card.threshold,
            _input_shape=card.input_shape,
            _preprocess=compose(card.preprocess, "model.json: preprocess"),
            _session=_open_session(directory, card.input_shape),
        )

    def predict(self, pixels: np.ndarray) -> float:
        """Score one image.

        Args:
            pixels: float32 (H, W), 0..1, as `imaging.reading.pixels.read_pixels` gives them.

        Returns:
            Probability of the positive class, 0..1.

        Raises:
            BadInput: The pixels break the contract, or preprocessing does not bring them to the
                size that the network takes.
            StepFailed: The network answers something that is not a probability.
        """
        if pixels.ndim != 2 or pixels.dtype != np.float32 or not pixels.size:
            raise BadInput(
                f"an image must be float32 (height, width), not {pixels.dtype} {pixels.shape}"
            )
        # Written so that NaN, which compares False with everything, is refused too.
        if not (pixels.min() >= -_ROUNDING and pixels.max() <= 1 + _ROUNDING):
            raise BadInput("pixels must be finite and within 0..1; read images with read_pixels")
        image = self._preprocess(pixels[np.newaxis])
        if image.shape != self._input_shape:
            raise BadInput(
                f"preprocessing made {image.shape} of an image of {pixels.shape}, but the network "
                f"takes {self._input_shape}; add a resize to the preprocess list and train again"
            )
        (scores,) = self._session.run(["probability"], {"image": image[np.newaxis]})
        score = float(scores[0])
        if not 0 <= score <= 1:
            raise StepFailed(f"model {self.digest[:12]}… gave {score}, which is no probability")
        return score

    def predict_many(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Score images one by one: float64 (N,).

        Not in batches: a score must not depend, not even in its last bit, on the images beside it.
        """
        return np.fromiter(map(self.predict, images), dtype=np.float64)


def _read_card(directory: Path) -> _Card:
    path = directory / "model.json"
    if not path.exists():
        raise BadInput(f"{directory} holds no model.json; is it the output of the train step?")
    try:
        return _Card.model_validate_json(path.read_bytes())
    except ValidationError as error:
        places = "; ".join(".".join(map(str, e["loc"])) + ": " + e["msg"] for e in error.errors())
        raise BadInput(f"model.json cannot be used ({places}); export the model again") from error


def _open_session(directory: Path, input_shape: tuple[int, int, int]) -> Any:
    import onnxruntime as ort

    path = directory / "model.onnx"
    if not path.exists():
        raise BadInput(f"{directory} holds no model.onnx; is it the output of the train step?")
    options = ort.SessionOptions()
    # One thread adds up in one order; a server scales by answering requests side by side.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised below
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class
        raise BadInput("model.onnx cannot be loaded; export the model again") from error
    inputs = {i.name: (i.type, i.shape[1:]) for i in session.get_inputs()}
    outputs = {o.name: (o.type, len(o.shape)) for o in session.get_outputs()}
    if inputs != {"image": ("tensor(float)", list(input_shape))} or outputs != {
        "probability": ("tensor(float)", 1)
    }:
        raise BadInput(
            f"model.onnx must turn float32 image (N, {', '.join(map(str, input_shape))}) into "
            "probability (N,), as model.json says; export the model again"
        )
    return session
