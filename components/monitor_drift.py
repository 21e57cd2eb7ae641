"""Compare what the model in service is sent with what it was made from."""

from typing import NamedTuple

from components.contract import Input, Output, component
from monitoring.config import MonitoringConfig


class Drift(NamedTuple):
    drifted: bool
    verdict: str  # "drift", "no drift" or "insufficient"
    reason: str


@component()
def monitor_drift(
    config: MonitoringConfig, reference: Input, traffic: Input, report: Output
) -> Drift:
    """Judge the latest live requests against the reference of the model that answered them.

    Reads: reference/reference.parquet, reference/reference.json; traffic/captured/*.jsonl, or
        traffic/*.jsonl, or nothing where no request was captured yet.
    Writes: report/drift.json, report/drift.html.
    """
    from monitoring.alarms import judge
    from monitoring.drift import comparable, differences, read_reference, read_traffic
    from monitoring.report import write_facts, write_page

    table, model_digest = read_reference(reference)
    kept = read_traffic(traffic, model_digest, config.tags, config.window)
    enough = len(kept.rows) >= config.minimum_requests
    columns, one_sided = comparable(table, kept.rows) if enough else ([], [])
    verdict = judge(differences(columns), len(kept.rows), config)
    write_facts(
        verdict,
        model_digest=model_digest,
        n_current=len(kept.rows),
        passed_over=kept.passed_over,
        not_compared=one_sided,
        config=config,
        report=report,
    )
    write_page(verdict, columns, config, report)
    return Drift(verdict.outcome == "drift", verdict.outcome, verdict.sentence)
