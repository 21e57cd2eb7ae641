"""Is the model good enough? Three answers: pass, fail, inconclusive; only the first opens."""

import json
from dataclasses import asdict
from typing import NamedTuple

from components.contract import Input, Output, component
from evaluation.config import GatingConfig
from lineage.errors import BadInput
from lineage.files import write_json


class Gated(NamedTuple):
    passed: bool
    reason: str


@component()
def gate(config: GatingConfig, metrics: Input, verdict: Output) -> Gated:
    """Judge the metrics by every rule of the config.

    Reads: metrics/metrics.json.
    Writes: verdict/verdict.json: the outcome, and each rule's outcome with its numbers.
    """
    from evaluation.decision import decide

    path = metrics / "metrics.json"
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise BadInput("metrics.json is missing or no JSON; run the evaluate step again") from error
    ruled = decide(found, config.rules)
    told = {
        "outcome": ruled.outcome,
        "passed": ruled.passed,
        "rules": [asdict(ruling) for ruling in ruled.rules],
        "reason": ruled.reason,
    }
    write_json(verdict / "verdict.json", told)
    return Gated(ruled.passed, ruled.reason)
