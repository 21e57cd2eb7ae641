"""Scores of images by one or two models, through the predictor that also serves."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imaging.manifest import HEADER_FIELDS, STATISTICS
from imaging.reading.pixels import read_pixels
from lineage.digest import RECORD, digest
from lineage.errors import BadInput
from lineage.progress import Report
from serving.predictor import Predictor

if TYPE_CHECKING:
    import pandas as pd


def load_champion(directory: Path, candidate: Predictor) -> Predictor | None:
    """The champion, or None where the directory is empty: there is none yet.

    Raises:
        BadInput: It is no model, or tells other classes apart than the candidate does.
    """
    if all(path.name == RECORD for path in directory.iterdir()):
        return None
    champion = Predictor.load(directory)
    if champion.classes != candidate.classes:
        raise BadInput(
            f"the champion tells {' from '.join(champion.classes)}, the candidate "
            f"{' from '.join(candidate.classes)}: they cannot be compared; register the candidate "
            "under a name of its own"
        )
    return champion


def score_images(
    paths: Sequence[str],
    snapshot: Path,
    predictors: Sequence[Predictor],
    report: Report | None = None,
) -> NDArray[np.float64]:
    """Read each image once and let every predictor score it: (images, predictors), 0..1.

    Each predictor preprocesses by its own transforms.
    """
    scores = np.empty((len(paths), len(predictors)))
    for i, path in enumerate(paths):
        pixels = read_pixels(snapshot / path)
        scores[i] = [predictor.predict(pixels) for predictor in predictors]
        if report:
            report(i + 1, len(paths), "")
    return scores


def digest_of_test_set(test: "pd.DataFrame", manifest: "pd.DataFrame") -> str:
    """Name a test set by its images' pixels, labels and patients, in any order."""
    rows = test.merge(manifest[["instance_uid", "pixel_sha256"]], on="instance_uid")
    named = rows[["instance_uid", "patient_id", "label", "pixel_sha256"]].values.tolist()
    return digest("test set", sorted(named))


def reference_rows(
    splits: "pd.DataFrame",
    manifest: "pd.DataFrame",
    predictor: Predictor,
    snapshot: Path,
    report: Report | None = None,
) -> "pd.DataFrame":
    """What later traffic is compared with: image statistics and headers of training and
    validation images, and scores of the validation images only (NaN elsewhere), because the
    scores of images that a model was fitted to are not those of new ones."""
    parts = splits.loc[splits["split"].isin(["train", "validation"]), ["instance_uid", "split"]]
    rows = manifest.merge(parts, on="instance_uid").sort_values("instance_uid")
    held_out = (rows["split"] == "validation").to_numpy()
    scores = np.full(len(rows), np.nan)
    scores[held_out] = score_images(
        rows.loc[held_out, "path"].tolist(), snapshot, [predictor], report
    )[:, 0]
    return rows[[*STATISTICS, *HEADER_FIELDS]].assign(score=scores).reset_index(drop=True)
