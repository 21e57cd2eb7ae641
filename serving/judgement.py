"""Whether a challenger behaves as the champion does, by what both answered so far.

No data never passes: every check answers pass, fail or inconclusive.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from serving.config import DeploymentConfig
from serving.target import Answer

Decision = Literal["pass", "fail", "inconclusive"]
Interval = tuple[float, float]
_CHECKS = 4  # errors, latency, scores, flags: those that chance can fail


@dataclass(frozen=True)
class Sample:
    """One answer and what was known of the request.

    `side_by_side` is True if both variants served then: only such latencies compare, since
    the machine's load is the same.
    """

    answer: Answer
    expected: float | None = None
    side_by_side: bool = True


@dataclass(frozen=True)
class Check:
    """One question with its numbers; `low` and `high` bound the estimate."""

    name: str
    outcome: Decision
    sentence: str
    n: int
    estimate: float | None
    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True)
class Judgement:
    """All checks of one look."""

    outcome: Decision
    checks: tuple[Check, ...]


def judge(
    baseline: Sequence[Sample] | None,
    canary: Sequence[Sample],
    digest: str,
    config: DeploymentConfig,
    looks: int = 1,
) -> Judgement:
    """Compare what the challenger answered with the champion and with its own offline scores.

    Args:
        baseline: The champion's samples; None for a first release, which is held against
            absolute bounds.
        canary: The challenger's samples, and those of which nobody knows who failed.
        digest: The model that must have answered.
        looks: How many looks share the chance of a false rollback.

    Returns:
        "fail" if any check fails, "pass" if all pass, otherwise "inconclusive".
    """
    alpha = config.false_rollback / (looks * _CHECKS)
    checks = [_identity(canary, digest), _errors(baseline, canary, config, alpha)]
    # A first release has nothing but its offline scores to be compared with.
    if baseline is None or any(s.expected is not None for s in canary):
        checks.append(_skew(canary, config))
    if baseline is not None:
        checks += [
            _latency(baseline, canary, config, alpha),
            _scores(baseline, canary, config, alpha),
            _flags(baseline, canary, config, alpha),
        ]
    outcomes = {check.outcome for check in checks}
    worst: Decision = (
        "fail" if "fail" in outcomes else "pass" if outcomes == {"pass"} else "inconclusive"
    )
    return Judgement(worst, tuple(checks))


def newcombe(x1: int, n1: int, x2: int, n2: int, alpha: float) -> Interval:
    """Interval of the difference x1/n1 - x2/n2 of two proportions, two-sided at 1 - alpha.

    Newcombe, "Interval estimation for the difference between independent proportions",
    Statistics in Medicine 17, 1998, method 10: it keeps its level for rates near 0.
    """
    p1, p2 = x1 / n1, x2 / n2
    (l1, u1), (l2, u2) = _wilson(x1, n1, alpha), _wilson(x2, n2, alpha)
    difference = p1 - p2
    return (
        difference - math.hypot(p1 - l1, u2 - p2),
        difference + math.hypot(u1 - p1, p2 - l2),
    )


def clopper_pearson(x: int, n: int, alpha: float) -> Interval:
    """Exact interval of a proportion (Biometrika 26, 1934), two-sided at 1 - alpha."""
    from scipy.stats import beta

    low = float(beta.ppf(alpha / 2, x, n - x + 1)) if x else 0.0
    high = float(beta.ppf(1 - alpha / 2, x + 1, n - x)) if x < n else 1.0
    return low, high


def hodges_lehmann(a: np.ndarray, b: np.ndarray, alpha: float) -> tuple[float, float, float]:
    """How far `b` (m,) lies above `a` (n,): estimate and interval at 1 - alpha.

    The median of all pairwise differences, with Moses' interval from the Mann-Whitney
    distribution (normal approximation; Hollander and Wolfe, section 4.3). One slow request moves
    neither. Too few values give an infinite interval.
    """
    differences = np.sort((b[:, None] - a[None, :]).ravel())
    n, m = len(a), len(b)
    spread = NormalDist().inv_cdf(1 - alpha / 2) * math.sqrt(n * m * (n + m + 1) / 12)
    k = math.floor(n * m / 2 - spread)
    estimate = float(np.median(differences))
    if k < 1:
        return estimate, -math.inf, math.inf
    return estimate, float(differences[k - 1]), float(differences[-k])


def _wilson(x: int, n: int, alpha: float) -> Interval:
    z = NormalDist().inv_cdf(1 - alpha / 2)
    p, scale = x / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _empty(name: str, method: str, what: str) -> Check:
    return Check(name, "inconclusive", f"there are no {what} yet", 0, None, None, None, method)


def _identity(canary: Sequence[Sample], digest: str) -> Check:
    told = [s.answer.digest for s in canary if s.answer.error is None]
    if not told:
        return _empty("identity", "exact", "answers of the challenger")
    strangers = sum(found != digest for found in told)
    sentence = f"{strangers} of {len(told)} answers came from another model than {digest[:12]}…"
    outcome: Decision = "fail" if strangers else "pass"
    return Check("identity", outcome, sentence, len(told), float(strangers), None, None, "exact")


def _errors(
    baseline: Sequence[Sample] | None,
    canary: Sequence[Sample],
    config: DeploymentConfig,
    alpha: float,
) -> Check:
    method = "Clopper-Pearson" if baseline is None else "Newcombe"
    if not canary or (baseline is not None and not baseline):
        return _empty("errors", method, "answers of both variants")
    x, n = _failed(canary), len(canary)
    margin = config.error_margin
    if baseline is None:
        estimate, (low, high) = x / n, clopper_pearson(x, n, alpha)
        fails, against = low > margin, ""
    else:
        x0, n0 = _failed(baseline), len(baseline)
        estimate, (low, high) = x / n - x0 / n0, newcombe(x, n, x0, n0, alpha)
        fails, against = low > 0, f", the champion's {x0} of {n0}"
    outcome: Decision = "fail" if fails else "pass" if high <= margin else "inconclusive"
    sentence = (
        f"{x} of {n} of the challenger's requests failed{against}; "
        f"at most {high:.1%} more is shown, {margin:.1%} may remain"
    )
    return Check("errors", outcome, sentence, n, estimate, low, high, method)


def _skew(canary: Sequence[Sample], config: DeploymentConfig) -> Check:
    gaps = [
        abs(s.answer.score - s.expected)
        for s in canary
        if s.answer.score is not None and s.expected is not None
    ]
    if not gaps:
        return _empty("training-serving skew", "exact", "answers with a known offline score")
    worst = max(gaps)
    # Written so that NaN fails.
    outcome: Decision = (
        "fail"
        if not worst <= config.score_tolerance
        else "pass"
        if len(gaps) >= config.requests_per_step
        else "inconclusive"
    )
    sentence = (
        f"{len(gaps)} served scores differ from the offline scores by at most {worst:.2g}; "
        f"{config.score_tolerance:.2g} is allowed"
    )
    return Check("training-serving skew", outcome, sentence, len(gaps), worst, None, None, "exact")


def _latency(
    baseline: Sequence[Sample], canary: Sequence[Sample], config: DeploymentConfig, alpha: float
) -> Check:
    a, b = _latencies(baseline), _latencies(canary)
    if not len(a) or not len(b):
        return _empty("latency", "Hodges-Lehmann", "answers of both variants side by side")
    ratio, low, high = np.exp(hodges_lehmann(np.log(a), np.log(b), alpha)).tolist()
    limit = max(config.latency_ratio, 1 + config.latency_slack_ms / float(np.median(a)))
    outcome: Decision = "fail" if low > limit else "pass" if high <= limit else "inconclusive"
    sentence = (
        f"the challenger takes {ratio:.2f} times the champion's {np.median(a):.1f} ms "
        f"({low:.2f} to {high:.2f}); {limit:.2f} times is allowed"
    )
    finite = high if math.isfinite(high) else None
    return Check("latency", outcome, sentence, len(b), ratio, low, finite, "Hodges-Lehmann")


def _scores(
    baseline: Sequence[Sample], canary: Sequence[Sample], config: DeploymentConfig, alpha: float
) -> Check:
    method = "Kolmogorov-Smirnov with Massart's bound"
    a, b = _numbers(baseline), _numbers(canary)
    if not len(a) or not len(b):
        return _empty("scores", method, "scores of both variants")
    steps = np.concatenate([a, b])
    below = [np.searchsorted(np.sort(x), steps, side="right") / len(x) for x in (a, b)]
    distance = float(np.abs(below[0] - below[1]).max())
    # Each empirical distribution is this close to its own (Massart 1990), at 1 - alpha together.
    half = sum(math.sqrt(math.log(4 / alpha) / (2 * len(x))) for x in (a, b))
    return _beyond(
        "scores",
        "the two distributions of scores lie apart by",
        len(b),
        distance,
        (max(0.0, distance - half), min(1.0, distance + half)),
        half,
        config.score_shift,
        method,
    )


def _flags(
    baseline: Sequence[Sample], canary: Sequence[Sample], config: DeploymentConfig, alpha: float
) -> Check:
    a = [s.answer.flagged for s in baseline if s.answer.flagged is not None]
    b = [s.answer.flagged for s in canary if s.answer.flagged is not None]
    if not a or not b:
        return _empty("flags", "Newcombe", "labels of both variants")
    interval = newcombe(sum(b), len(b), sum(a), len(a), alpha)
    return _beyond(
        "flags",
        "the shares of studies called positive differ by",
        len(b),
        sum(b) / len(b) - sum(a) / len(a),
        interval,
        (interval[1] - interval[0]) / 2,
        config.flag_shift,
        "Newcombe",
    )


def _beyond(
    name: str,
    what: str,
    n: int,
    estimate: float,
    interval: Interval,
    half: float,
    floor: float,
    method: str,
) -> Check:
    """A new model may differ somewhat: fail beyond the floor and beyond chance; pass below the
    floor if a difference of that size would have shown."""
    low, high = interval
    surely = low > 0 or high < 0
    outcome: Decision = "inconclusive"
    if surely and abs(estimate) > floor:
        outcome = "fail"
    elif abs(estimate) <= floor and half <= floor:
        outcome = "pass"
    sentence = f"{what} {estimate:.2f} ({low:.2f} to {high:.2f}); {floor:.2f} is allowed"
    return Check(name, outcome, sentence, n, estimate, low, high, method)


def _failed(samples: Sequence[Sample]) -> int:
    return sum(s.answer.error is not None for s in samples)


def _latencies(samples: Sequence[Sample]) -> np.ndarray:
    values = [s.answer.latency_ms for s in samples if s.side_by_side and s.answer.error is None]
    return np.maximum(np.array(values, dtype=np.float64), 1e-3)


def _numbers(samples: Sequence[Sample]) -> np.ndarray:
    return np.array([s.answer.score for s in samples if s.answer.score is not None], np.float64)
