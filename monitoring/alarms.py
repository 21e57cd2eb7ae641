"""From many tests to one verdict, with a known rate of false alarms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from monitoring.config import MonitoringConfig
from monitoring.drift import Difference

Outcome = Literal["drift", "no drift", "insufficient"]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A difference, its p-value corrected for there being many, and whether it is drift."""

    difference: Difference
    adjusted_p: float
    drifted: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`sentence` says why, in numbers."""

    outcome: Outcome
    sentence: str
    columns: tuple[Judged, ...]


def judge(found: Sequence[Difference], n_current: int, config: MonitoringConfig) -> Verdict:
    """Drift is sure and large, in enough columns.

    Sure: the Benjamini-Hochberg procedure (J. R. Stat. Soc. B 57, 1995) holds the expected share
    of false discoveries among columns at `false_discovery_rate`, also where columns rise and
    fall together (Benjamini and Yekutieli, Ann. Stat. 29, 2001). Large: the effect reaches the
    minimum of its kind.
    """
    if n_current < config.minimum_requests:
        sentence = f"insufficient: {n_current} requests count, {config.minimum_requests} are needed"
        return Verdict(outcome="insufficient", sentence=sentence, columns=())
    if not found:
        sentence = "insufficient: reference and requests have no column in common"
        return Verdict(outcome="insufficient", sentence=sentence, columns=())
    from scipy.stats import false_discovery_control

    adjusted = false_discovery_control([d.p_value for d in found], method="bh")
    judged = tuple(
        Judged(
            difference=d,
            adjusted_p=float(p),
            drifted=bool(p <= config.false_discovery_rate and d.effect >= _floor(d, config)),
        )
        for d, p in zip(found, adjusted, strict=True)
    )
    drifted = sorted(
        (j for j in judged if j.drifted), key=lambda j: (j.adjusted_p, -j.difference.effect)
    )
    outcome: Outcome = "drift" if len(drifted) >= config.minimum_drifted_columns else "no drift"
    listed = "".join(
        f"; {j.difference.column} (effect {j.difference.effect:.2g}, "
        f"adjusted {p_text(j.adjusted_p)})"
        for j in drifted[:5]
    )
    return Verdict(
        outcome=outcome,
        sentence=(
            f"{outcome}: {len(drifted)} of {len(judged)} columns drifted over {n_current} "
            f"requests; an alarm takes {config.minimum_drifted_columns}{listed}"
        ),
        columns=judged,
    )


def p_text(p: float) -> str:
    """A p-value as people write it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _floor(difference: Difference, config: MonitoringConfig) -> float:
    return config.minimum_shift if difference.kind == "number" else config.minimum_divergence
