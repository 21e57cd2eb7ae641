"""The same metrics for parts of the test set: an average can hide whom a model fails."""

from typing import TYPE_CHECKING

from evaluation.config import EvaluationConfig
from evaluation.intervals import Interval
from evaluation.metrics import measure

if TYPE_CHECKING:
    import pandas as pd

Groups = dict[str, dict[str, dict[str, Interval]]]  # by -> group -> metric


def measure_subgroups(cases: "pd.DataFrame", threshold: float, config: EvaluationConfig) -> Groups:
    """Measure each value of each column in `config.subgroups`; an empty one reads "unknown".

    Below `config.subgroup_minimum` patients a number is not given: with a handful of patients
    even a wide interval invites a reading that the data cannot bear.

    Args:
        cases: One row per image: label, score, patient_id, and the columns to part by.
        threshold: As for `measure`.
    """
    found: Groups = {}
    for by in config.subgroups:
        values = cases[by].astype(object).where(cases[by].notna(), "unknown")
        found[by] = {
            str(value): measure(
                part["label"],
                part["score"],
                part["patient_id"],
                threshold,
                config,
                config.subgroup_minimum,
            )
            for value, part in cases.groupby(values, sort=True)
        }
    return found
