"""Images of one split, read and preprocessed once and kept in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imaging.config import Transform
from imaging.preprocess import Preprocess, build, chain
from imaging.reading.pixels import read_pixels
from lineage.errors import BadInput, StepFailed
from lineage.progress import Report

if TYPE_CHECKING:
    import pandas as pd

# One random draw serves this many images, as channels of one array: MONAI's cost is per call.
GROUP = 8


@dataclass(frozen=True)
class Images:
    """Preprocessed images; 4 * N * h * w bytes, so 10,000 of 64 x 64 take 160 MB.

    Attributes:
        pixels: float32 (N, 1, h, w).
        labels: int64 (N,), 0 or 1.
        instance_uids, patient_ids: N names each.
    """

    pixels: np.ndarray
    labels: np.ndarray
    instance_uids: list[str]
    patient_ids: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(1, h, w) of every image."""
        _, c, h, w = self.pixels.shape
        return c, h, w


def load_split(
    snapshot: Path,
    splits: "pd.DataFrame",
    split: str,
    preprocess: Preprocess,
    report: Report | None = None,
) -> Images:
    """Read and preprocess every image of one split, in the order of `splits`.

    Args:
        snapshot: Directory that the paths in `splits` are relative to.
        splits: See `imaging.splits.read_splits`.
        split: "train", "validation" or "test".
        preprocess: From `imaging.preprocess.compose`; must bring all images to one size.
        report: Called as (done, total, split) after each image.

    Raises:
        StepFailed: There is no image, or only one class: nothing to learn or to choose by.
        BadInput: Images leave the preprocessing with different sizes.
    """
    rows = splits[splits["split"] == split]
    labels = rows["label"].to_numpy(dtype=np.int64)
    positive = int(labels.sum())
    if positive in (0, len(labels)):
        raise StepFailed(
            f"the {split} split has {positive} positive and {len(labels) - positive} negative "
            "images; both classes are needed: add data, or change splitting.fractions"
        )
    pixels: np.ndarray | None = None
    for i, path in enumerate(rows["path"]):
        image = preprocess(read_pixels(snapshot / path)[np.newaxis])
        if pixels is None:
            pixels = np.empty((len(rows), *image.shape), dtype=np.float32)
        if image.shape != pixels.shape[1:]:
            raise BadInput(
                f"training.preprocess leaves images of different sizes, {pixels.shape[2:]} and "
                f"{image.shape[1:]}; add a Resize or ResizeWithPadOrCrop"
            )
        pixels[i] = image
        if report:
            report(i + 1, len(rows), split)
    assert pixels is not None
    return Images(pixels, labels, list(rows["instance_uid"]), list(rows["patient_id"]))


class Batches:
    """Shuffled, augmented batches; the same seed gives the same ones, epoch after epoch.

    Random transforms draw once for `GROUP` images of a batch. Images meet in other groups
    in every epoch, so each sees its own series of draws.
    """

    def __init__(
        self, images: Images, augment: Sequence[Transform], *, batch_size: int, seed: int
    ) -> None:
        where = "training.augment"
        self._images = images
        self._count = -(-len(images) // batch_size)
        self._order = np.random.default_rng(seed)
        self._built = [build(t, where, seed=seed + i) for i, t in enumerate(augment)]
        self._augment = chain(augment, self._built, where)

    def __len__(self) -> int:
        return self._count

    @property
    def smallest(self) -> int:
        """Images in the smallest batch."""
        return len(self._images) // self._count

    def state(self) -> dict[str, Any]:
        """What decides the batches of the epochs to come, as JSON values."""
        generators = _generators(self._built)
        return {
            "order": self._order.bit_generator.state,
            "augment": {place: draws(generator) for place, generator in generators.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where another `Batches` of the same images and settings was."""
        self._order.bit_generator.state = state["order"]
        for place, generator in _generators(self._built).items():
            set_draws(generator, state["augment"][place])

    def epoch(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (pixels float32 (B, 1, h, w), labels int64 (B,)) over all images once.

        Batches are of nearly equal size: batch norm cannot work on a lone last image.

        Raises:
            BadInput: An augmentation fails, or changes the size of images.
        """
        order = self._order.permutation(len(self._images))
        for chosen in np.array_split(order, self._count):
            pixels = self._images.pixels[chosen]
            for start in range(0, len(pixels), GROUP):
                group = pixels[start : start + GROUP, 0]
                changed = self._augment(group)
                if changed.shape != group.shape:
                    raise BadInput(
                        f"training.augment turns images of {group.shape[1:]} into "
                        f"{changed.shape[1:]}; the network expects one size"
                    )
                pixels[start : start + GROUP, 0] = changed
            yield pixels, self._images.labels[chosen]


def draws(generator: Any) -> dict[str, Any]:
    """What a numpy `RandomState`, or the module `numpy.random`, will draw next, as JSON values."""
    state = generator.get_state(legacy=False)
    state["state"]["key"] = state["state"]["key"].tolist()
    return dict(state)


def set_draws(generator: Any, state: dict[str, Any]) -> None:
    """Let it draw what `draws` was asked about."""
    generator.set_state(state)


def _generators(thing: Any, place: str = "") -> dict[str, np.random.RandomState]:
    """The generators of MONAI transforms; some hold further transforms, each with its own."""
    from monai.transforms import Randomizable

    if isinstance(thing, np.random.RandomState):
        return {place: thing}
    parts: dict[Any, Any] = {}
    if isinstance(thing, Randomizable):
        parts = vars(thing)
    elif isinstance(thing, list | tuple):
        parts = dict(enumerate(thing))
    found = (_generators(part, f"{place}/{key}") for key, part in parts.items())
    return {name: generator for each in found for name, generator in each.items()}
