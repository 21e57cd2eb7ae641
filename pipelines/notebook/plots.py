"""Plots of one run for a notebook: its training, its ROC curve, its calibration."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


def training(history: "pd.DataFrame", best_epoch: int, axes: "Axes | None" = None) -> "Axes":
    """Losses and validation AUROC per epoch; the epoch whose weights were kept is marked."""
    from matplotlib.ticker import MaxNLocator

    axes = axes or _new_axes()
    for name in ("train_loss", "validation_loss"):
        axes.plot(history.index, history[name], marker=".", label=name.replace("_", " "))
    other = axes.twinx()
    auroc = history["validation_auroc"]
    other.plot(history.index, auroc, color="C2", linestyle="--", label="validation AUROC")
    other.set(ylabel="AUROC", ylim=(0, 1.02))
    axes.axvline(best_epoch, color="grey", linewidth=1, linestyle=":")
    axes.set(
        xlabel="epoch", ylabel="loss", title=f"{len(history)} epochs, the best is {best_epoch}"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    lines = [*axes.get_lines()[:2], *other.get_lines()]
    names = [str(line.get_label()) for line in lines]
    axes.legend(lines, names, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
    return axes


def roc(
    cases: "pd.DataFrame",
    metrics: Mapping[str, Mapping[str, Any]],
    axes: "Axes | None" = None,
    label: str | None = None,
) -> "Axes":
    """The ROC curve over test images, and the operating point with its intervals.

    Args:
        cases: One row per image: label (0 or 1) and score.
        metrics: Intervals of auroc, sensitivity and specificity, as metrics.json holds them.
        axes: Where to draw; a new figure if left out.
        label: For a legend, where several curves share the axes.
    """
    axes = axes or _new_axes(square=True)
    away, hit = roc_points(cases["label"].to_numpy(), cases["score"].to_numpy())
    area = f"AUROC {_in_words(metrics['auroc'])}"
    (line,) = axes.plot(away, hit, label=f"{label}\n{area}" if label else None)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle=":")
    seen, spared = metrics["sensitivity"], metrics["specificity"]
    if None not in (seen["estimate"], spared["estimate"]):
        low, high = 1 - spared["high"], 1 - spared["low"]
        x, y = 1 - spared["estimate"], seen["estimate"]
        axes.errorbar(
            x,
            y,
            xerr=[[x - low], [high - x]],
            yerr=[[y - seen["low"]], [seen["high"] - y]],
            fmt="o",
            capsize=3,
            color=line.get_color(),
        )
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    if label:
        axes.legend(loc="lower right", fontsize="small")
    else:
        axes.set_title(area, fontsize="medium")
    return axes


def calibration(
    cases: "pd.DataFrame",
    metrics: Mapping[str, Mapping[str, Any]],
    axes: "Axes | None" = None,
    bins: int = 10,
) -> "Axes":
    """Observed share of positives against the mean score, over equal-mass bins of the scores.

    Bars are 95 % intervals that know which images belong to one patient.
    """
    from evaluation.intervals import proportion

    axes = axes or _new_axes(square=True)
    bins = max(1, min(bins, len(cases) // 20))  # fewer images than 20 say little of a share
    bin_of = ((cases["score"].rank() - 0.5) / len(cases) * bins).astype(int)
    for _, part in cases.groupby(bin_of):
        found = proportion(part["label"], part["patient_id"])
        if found.estimate is not None and found.low is not None and found.high is not None:
            reach = [[found.estimate - found.low], [found.high - found.estimate]]
            axes.errorbar(
                part["score"].mean(), found.estimate, yerr=reach, fmt="o", capsize=3, color="C0"
            )
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle=":")
    error = metrics["expected_calibration_error"]
    axes.set(
        xlabel="mean score",
        ylabel="share of positive images",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    axes.set_title(f"expected calibration error {_in_words(error)}", fontsize="medium")
    return axes


def roc_points(
    labels: "NDArray[np.int64]", scores: "NDArray[np.float64]"
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """False and true positive rate at every threshold, from (0, 0) to (1, 1); ties are one step."""
    import numpy as np

    order = np.argsort(-scores, kind="stable")
    positive, sorted_scores = labels[order] == 1, scores[order]
    last_of_tie = np.append(np.diff(sorted_scores) != 0, True)
    hits, misses = np.cumsum(positive)[last_of_tie], np.cumsum(~positive)[last_of_tie]
    return np.append(0, misses) / misses[-1], np.append(0, hits) / hits[-1]


def _in_words(found: Mapping[str, Any]) -> str:
    from registry.dossier import interval

    return f"{interval(found)} images of {found['n_patients']} patients".replace(", n", ",\nn")


def _new_axes(*, square: bool = False) -> "Axes":
    import matplotlib.pyplot as plt

    axes: Axes = plt.subplots(figsize=(5, 5) if square else (7, 4), layout="constrained")[1]
    return axes
