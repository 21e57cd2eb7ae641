"""The drift report: numbers for programs, a page for people."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lineage import telemetry
from lineage.files import write_json
from monitoring.alarms import Verdict, p_text
from monitoring.config import FACTS, MonitoringConfig
from monitoring.drift import HOMOGENEITY, Column, register_homogeneity

PAGE = "drift.html"

# Evidently draws with scripts inside the page; no script may fetch or send anything.
OFFLINE = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    'img-src data: blob:; font-src data:">'
)

TABLE = '<table border=1 cellpadding=5 style="border-collapse:collapse">'
TESTS = {"ks": "Kolmogorov-Smirnov", HOMOGENEITY: "chi-square, homogeneity"}


def write_facts(
    verdict: Verdict,
    *,
    model_digest: str | None,
    n_current: int,
    passed_over: Mapping[str, int],
    not_compared: Sequence[str],
    config: MonitoringConfig,
    report: Path,
) -> None:
    """Write `drift.json`: the verdict, and per column the test, its p-value and its effect."""
    facts = {
        "verdict": verdict.outcome,
        "sentence": verdict.sentence,
        "model_digest": model_digest,
        "n_current": n_current,
        "passed_over": dict(passed_over),
        "not_compared": list(not_compared),  # only one side fills these
        "config": config.model_dump(mode="json"),
        "columns": {
            j.difference.column: {
                "kind": j.difference.kind,
                "method": j.difference.method,
                "p_value": j.difference.p_value,
                "adjusted_p_value": j.adjusted_p,
                "effect": j.difference.effect,
                "n_reference": j.difference.n_reference,
                "n_current": j.difference.n_current,
                "drifted": j.drifted,
            }
            for j in verdict.columns
        },
    }
    write_json(report / FACTS, facts)


def write_page(
    verdict: Verdict, columns: Sequence[Column], config: MonitoringConfig, report: Path
) -> None:
    """Write `drift.html`: our verdict, then Evidently's report. It loads nothing from elsewhere.

    Without a verdict the page holds the sentence that says why.
    """
    own = _verdict(verdict)
    if not verdict.columns:
        page = (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>Drift</title>{own}</html>\n"
        )
    else:
        page = _evidently(columns, config)
        page = page.replace("<head>", f"<head>{OFFLINE}", 1).replace("<body>", f"<body>{own}", 1)
    (report / PAGE).write_text(page)


def _evidently(columns: Sequence[Column], config: MonitoringConfig) -> str:
    telemetry.off()
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    names = {kind: [c.name for c in columns if c.kind == kind] for kind in ("number", "category")}
    definition = DataDefinition(
        numerical_columns=names["number"], categorical_columns=names["category"]
    )

    def dataset(side: str) -> Any:
        # Columns differ in length: what was missing is gone from each on its own.
        series = {c.name: getattr(c, side).reset_index(drop=True) for c in columns}
        for name in names["category"]:
            # Evidently writes values into a script unescaped: "</script>" in a header would end it.
            series[name] = series[name].str.replace("<", "‹")
        return Dataset.from_pandas(pd.DataFrame(series), data_definition=definition)

    metrics = [
        ValueDrift(
            column=c.name,
            method="ks" if c.kind == "number" else register_homogeneity(),
            threshold=config.false_discovery_rate,
        )
        for c in columns
    ]
    snapshot = Report(metrics).run(dataset("current"), dataset("reference"))
    return str(snapshot.get_html_str(as_iframe=False))


def _verdict(verdict: Verdict) -> str:
    rows = "".join(
        f"<tr><td>{'<b>drifted</b>' if j.drifted else ''}<td>{escape(j.difference.column)}"
        f"<td>{j.difference.effect:.2f}<td>{p_text(j.adjusted_p)}"
        f"<td>{TESTS.get(j.difference.method, j.difference.method)}"
        f"<td>{j.difference.n_reference}<td>{j.difference.n_current}"
        for j in sorted(verdict.columns, key=lambda j: (not j.drifted, j.adjusted_p))
    )
    heads = ("", "column", "effect", "adjusted p", "test", "images before", "requests now")
    table = "".join(f"<th>{head}" for head in heads)
    note = (
        "<p>Effect: for numbers, the distance in standard deviations of the reference; for "
        "categories, the Jensen-Shannon divergence, from 0 to 1. Scores count validation images "
        "only, as those of training images are not what new ones get.<p>Below, Evidently's view of "
        "each column on its own: neither corrected for the number of columns nor weighed by the "
        "size of the difference, so it may call more of them drift."
    )
    return (
        '<section style="font:15px/1.5 system-ui,sans-serif;margin:2rem">'
        f"<h1>{verdict.outcome.capitalize()}</h1><p>{escape(verdict.sentence)}</p>"
        + (f"{TABLE}<tr>{table}{rows}</table>{note}" if rows else "")
        + "</section>"
    )
