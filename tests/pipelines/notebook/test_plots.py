import matplotlib
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, roc_auc_score

from evaluation.config import EvaluationConfig
from evaluation.metrics import measure
from pipelines.notebook import plots

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def cases() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 200)
    score = (0.3 * label + 0.7 * rng.random(200)).round(2)  # rounded, so that there are ties
    return pd.DataFrame({"label": label, "score": score, "patient_id": np.arange(200) // 2})


@pytest.fixture(scope="module")
def metrics(cases: pd.DataFrame) -> dict[str, dict[str, object]]:
    config = EvaluationConfig(bootstrap_repetitions=200)
    found = measure(cases["label"], cases["score"], cases["patient_id"], 0.5, config)
    return {name: vars(interval) for name, interval in found.items()}


def test_the_curve_has_the_area_that_its_title_tells(cases, metrics) -> None:
    axes = plots.roc(cases, metrics)
    x, y = axes.get_lines()[0].get_data()
    area = auc(x, y)
    assert area == pytest.approx(roc_auc_score(cases["label"], cases["score"]))
    assert f"AUROC {area:.3f}" in axes.get_title()
    assert "200 images of 100 patients" in axes.get_title()


def test_the_operating_point_lies_on_the_curve(cases, metrics) -> None:
    axes = plots.roc(cases, metrics)
    x, y = (float(v[0]) for v in axes.containers[0].lines[0].get_data())
    away, hit = plots.roc_points(cases["label"].to_numpy(), cases["score"].to_numpy())
    assert np.isclose(np.hypot(away - x, hit - y), 0).any()


def test_several_curves_share_axes_and_a_legend(cases, metrics) -> None:
    axes = plots.roc(cases, metrics, label="one")
    assert plots.roc(cases, metrics, axes, label="other") is axes
    told = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [text.split("\n")[0] for text in told] == ["one", "other"]


def test_calibration_shows_each_image_in_one_bin(cases, metrics) -> None:
    axes = plots.calibration(cases, metrics, bins=4)
    shares = [float(bar.lines[0].get_ydata()[0]) for bar in axes.containers]
    assert len(shares) == 4 and shares == sorted(shares)
    assert np.mean(shares) == pytest.approx(cases["label"].mean(), abs=0.02)
    assert "expected calibration error" in axes.get_title()


def test_metrics_that_are_no_numbers_leave_the_point_out(cases, metrics) -> None:
    nothing = {"estimate": None, "reason": "only one class", "n": 0, "n_patients": 0}
    axes = plots.roc(cases, {**metrics, "sensitivity": nothing, "auroc": nothing})
    assert not axes.containers and "only one class" in axes.get_title()


def test_training_marks_the_epoch_that_was_kept() -> None:
    columns = ["train_loss", "validation_loss", "validation_auroc"]
    history = pd.DataFrame([[0.7, 0.7, 0.5], [0.5, 0.6, 0.8], [0.3, 0.9, 0.7]], columns=columns)
    history.index = pd.Index([1, 2, 3], name="epoch")
    axes = plots.training(history, best_epoch=2)
    assert axes.get_title() == "3 epochs, the best is 2"
    assert [2, 2] in [list(line.get_xdata()) for line in axes.get_lines()]
    assert len(axes.get_legend().get_texts()) == 3
