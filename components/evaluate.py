"""Score the sealed test split, the champion on the same patients, and say how sure we are."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

from components.contract import Input, Output, Resources, component
from components.progress import progress
from evaluation.config import EvaluationConfig
from lineage.files import write_json

if TYPE_CHECKING:
    from evaluation.intervals import Interval


class Evaluated(NamedTuple):
    auroc: str  # with its interval, or why there is none; metrics.json holds the numbers
    images: int
    patients: int


@component(
    resources=Resources(cpu=2, memory_gib=8, timeout_minutes=120),
    state=("ledgers/test_openings/*",),
)
def evaluate(
    config: EvaluationConfig,
    model: Input,
    champion: Input,
    snapshot: Input,
    splits: Input,
    metrics: Output,
    reference: Output,
) -> Evaluated:
    """Open the sealed test split, once per execution, and leave numbers with intervals.

    Reads: model/ and champion/ (empty: there is none yet), the images of the test and validation
        splits.
    Writes: metrics/metrics.json, metrics/curves.json (ROC curve and calibration, to draw),
        metrics/predictions.parquet (one row per test image),
        reference/reference.parquet (what drift is measured against), reference/reference.json.
    Raises:
        BadInput: A test patient or picture was trained or tuned on, or the champion tells other
            classes apart.
    Effect: one more entry in the ledger of openings, with who and why. It is no part of the
        outputs, which depend on the inputs alone.
    """
    from evaluation.curves import curves
    from evaluation.intervals import auroc_difference
    from evaluation.metrics import measure
    from evaluation.predict import digest_of_test_set, load_champion, reference_rows, score_images
    from evaluation.subgroups import measure_subgroups
    from imaging.manifest import read_manifest
    from imaging.splits import read_splits, require_apart
    from lineage.openings import record_opening
    from serving.predictor import Predictor

    candidate = Predictor.load(model)
    former = load_champion(champion, candidate)
    predictors = [candidate, former] if former else [candidate]
    manifest, parts = read_manifest(snapshot), read_splits(splits)
    require_apart(parts, manifest)
    test = parts[parts["split"] == "test"].sort_values("instance_uid")
    name = digest_of_test_set(test, manifest)
    rival = f"against champion {former.digest[:12]}" if former else "there is no champion"
    reason = f"to judge model {candidate.digest[:12]} before the gate, {rival}"
    record_opening(name, candidate.digest, former.digest if former else None, reason)

    with progress("score test images") as report:
        scores = score_images(test["path"].tolist(), snapshot, predictors, report)
    cases = test.assign(score=scores[:, 0], champion_score=scores[:, 1] if former else float("nan"))
    labels, patients = cases["label"], cases["patient_id"]
    measured = measure(labels, cases["score"], patients, candidate.threshold, config)
    found = {
        "candidate": {"digest": candidate.digest, "threshold": candidate.threshold},
        "champion": {"digest": former.digest} if former else None,
        "test_set_digest": name,
        "n_images": len(cases),
        "n_patients": patients.nunique(),
        "n_positive": int(labels.sum()),
        "metrics": measured,
        "subgroups": measure_subgroups(cases, candidate.threshold, config),
        "comparison": {
            "auroc_difference": auroc_difference(
                labels, cases["score"], cases["champion_score"], patients
            )
        }
        if former
        else None,
    }
    (metrics / "metrics.json").write_text(
        json.dumps(found, indent=2, sort_keys=True, allow_nan=False, default=asdict) + "\n"
    )
    write_json(metrics / "curves.json", curves(labels, cases["score"], patients, config))
    columns = ["instance_uid", "patient_id", "label", "score", "champion_score"]
    cases[[*columns, "sex", "age_band", "scanner"]].to_parquet(
        metrics / "predictions.parquet", index=False
    )

    with progress("score validation images") as report:
        rows = reference_rows(parts, manifest, candidate, snapshot, report)
    rows.to_parquet(reference / "reference.parquet", index=False)
    (reference / "reference.json").write_text(
        json.dumps({"model_digest": candidate.digest}, indent=2) + "\n"
    )
    return Evaluated(_spelled(measured["auroc"]), len(cases), int(patients.nunique()))


def _spelled(found: "Interval") -> str:
    if found.estimate is None:
        return f"unknown: {found.reason}"
    return f"{found.estimate:.3f} ({found.low:.3f} to {found.high:.3f})"
