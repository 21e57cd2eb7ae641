"""Two runs side by side: which settings differ, and what that did to the metrics."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from evaluation.intervals import Interval, auroc_difference
from lineage.errors import BadInput
from pipelines.notebook.result import Result
from pipelines.notebook.tables import html_table, text_table
from registry.dossier import interval


@dataclass(frozen=True, repr=False)
class Comparison:
    """What differs between two runs.

    Attributes:
        settings: step.setting, in one run, in the other, of the steps that both reached; None
            where one has no such setting.
        metrics: Metric, the interval in words in one run and in the other.
        difference: AUROC of the second minus AUROC of the first on the very same images; None
            where the test sets differ or a run was not evaluated.
        note: What to bear in mind.
    """

    runs: tuple[Result, Result]
    settings: tuple[tuple[str, Any, Any], ...]
    metrics: tuple[tuple[str, str, str], ...]
    difference: Interval | None
    note: str

    def _tables(self) -> Iterator[tuple[str, tuple[str, ...], list[tuple[Any, ...]]]]:
        one, other = (result.run.id for result in self.runs)
        ends = tuple(result.outcome for result in self.runs)
        yield "settings that differ", ("setting", one, other), list(self.settings)
        yield "outcome and metrics", ("", one, other), [("outcome", *ends), *self.metrics]

    def __repr__(self) -> str:
        told = [f"{title}\n{text_table(headers, rows)}" for title, headers, rows in self._tables()]
        return "\n\n".join([*told, self.note])

    def _repr_html_(self) -> str:
        told = [html_table(headers, rows, title) for title, headers, rows in self._tables()]
        return f"{''.join(told)}<p>{escape(self.note)}</p>"


def compare(one: Result, other: Result) -> Comparison:
    """Put two runs side by side."""
    difference, note = _difference(one, other)
    return Comparison(
        runs=(one, other),
        settings=tuple(_settings(one, other)),
        metrics=tuple(_metrics(one, other)),
        difference=difference,
        note=note,
    )


def _settings(one: Result, other: Result) -> Iterator[tuple[str, Any, Any]]:
    settings, others = one.settings(), other.settings()
    for step in (step for step in settings if step in others):
        here, there = settings[step], others[step]
        for name in {**here, **there}:
            if here.get(name) != there.get(name):
                yield f"{step}.{name}", here.get(name), there.get(name)


def _metrics(one: Result, other: Result) -> Iterator[tuple[str, str, str]]:
    try:
        found, others = one.evaluation["metrics"], other.evaluation["metrics"]
    except BadInput:
        return
    for name in {**found, **others}:
        yield name.replace("_", " "), *(interval(each.get(name, {})) for each in (found, others))


def _difference(one: Result, other: Result) -> tuple[Interval | None, str]:
    """The paired difference: two intervals that overlap do not say that two models are equal."""
    try:
        sets = [result.evaluation["test_set_digest"] for result in (one, other)]
    except BadInput:
        return None, "One of the runs ended before its model was evaluated."
    if sets[0] != sets[1]:
        return None, "The test sets differ, so the metrics are not of the same patients."
    cases = one.predictions.merge(other.predictions[["instance_uid", "score"]], on="instance_uid")
    found = auroc_difference(
        cases["label"], cases["score_y"], cases["score_x"], cases["patient_id"]
    )
    told = f"AUROC of the second minus the first, on the same images: {interval(asdict(found))}."
    return found, f"{told} Choose settings by the validation split; the test split judges."
