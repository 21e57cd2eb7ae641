"""Carry a challenger into service step by step, judging at each one; back out at any doubt.

No data never passes: every check answers pass, fail or inconclusive, only the last step's
answers can release, and only if all checks pass. A canary that stays undecided is withdrawn.

The walk looks at the growing samples several times. Each look at each check spends an equal
part of `false_rollback` (Bonferroni), so that a challenger which behaves as the champion does
is rolled back with at most that chance, however many looks there are. Studies are drawn from
one replayed list for both variants; chances are over which request met which variant.
`benchmarks/canary_errors.py` measures both kinds of wrong decision.
"""

import math
import time
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import numpy as np

from lineage.errors import BadInput, StepFailed
from lineage.progress import Report
from serving.config import DeploymentConfig
from serving.target import Answer, Target, Variant

Decision = Literal["pass", "fail", "inconclusive"]
Interval = tuple[float, float]
_CHECKS = 4  # errors, latency, scores, flags: those that chance can fail


@dataclass(frozen=True)
class Study:
    """One de-identified image to replay; `expected` is the challenger's score for it offline."""

    path: Path
    media_type: str
    expected: float | None = None


@dataclass(frozen=True)
class Release:
    """A model that is, or may come, in service."""

    version: str
    digest: str
    directory: Path

    @property
    def variant(self) -> str:
        """Its name at the endpoint."""
        return f"v{self.version}"


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


@dataclass(frozen=True)
class Look:
    """One look: the share that the challenger had, all requests so far, what was found."""

    share: float
    requests: int
    challenger_answers: int
    judgement: Judgement


@dataclass(frozen=True)
class Outcome:
    """How a canary ended.

    "held" means withdrawn for lack of evidence. "unknown" means that the end state is not what
    it must be, as `mismatch` says: a person has to look.
    """

    kind: Literal["released", "rolled back", "held", "unknown"]
    reason: str
    looks: tuple[Look, ...]
    end_state: tuple[Variant, ...]
    mismatch: str | None = None


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


def run_canary(
    target: Target,
    challenger: Release,
    champion: Release | None,
    studies: Iterable[Study],
    config: DeploymentConfig,
    report: Report | None = None,
) -> Outcome:
    """Move traffic to the challenger step by step; release it, or restore the champion alone.

    Whatever an interrupted canary left behind is cleared first. Studies are replayed in turn, as
    often as needed, at a bounded rate and tagged `replay`. The end state is read back: what the
    target says it serves, and which model really answers.

    Args:
        champion: What is in service; None for a first release.
        report: Told of answers so far (done, total, note).
    """
    walk = _Walk(target, challenger, champion, tuple(studies), config, report)
    restore(target, champion)
    try:
        kind, reason = walk.run()
        if kind == "released":
            if champion is not None:
                target.remove(champion.variant)
            mismatch = walk.read_back(challenger)
            if mismatch is None:
                return Outcome("released", reason, tuple(walk.looks), target.state())
            kind, reason = "rolled back", f"after the release, {mismatch}"
    except Exception as error:
        kind, reason = "rolled back", f"the canary broke off: {_said(error)}"
    except BaseException:  # Ctrl-C
        restore(target, champion)
        raise
    try:
        restore(target, champion)
        mismatch = walk.read_back(champion)
        end_state = target.state()
    except Exception as error:
        mismatch, end_state = f"the endpoint cannot be restored: {_said(error)}", ()
    if mismatch is not None:
        return Outcome("unknown", reason, tuple(walk.looks), end_state, mismatch)
    return Outcome(kind, reason, tuple(walk.looks), end_state)


def restore(target: Target, champion: Release | None) -> None:
    """Make the champion serve everything, and nothing else be loaded."""
    loaded = {v.name: v.digest for v in target.state()}
    kept = champion.variant if champion else min(loaded, default=None)
    if champion and loaded.get(champion.variant) != champion.digest:
        new = champion
        target.deploy(new.variant, new.directory, new.digest, new.version, 1.0)
    if kept:
        target.shift({**dict.fromkeys(loaded, 0.0), kept: 1.0})
    for name in loaded.keys() - {kept}:
        target.remove(name)
    if kept and not champion:
        target.remove(kept)


def _said(error: Exception) -> str:
    # Of a stranger's error the name only: what a library writes there is not ours to publish.
    return str(error) if isinstance(error, BadInput | StepFailed) else type(error).__name__


@dataclass
class _Walk:
    """The state of one canary: samples so far, looks so far."""

    target: Target
    challenger: Release
    champion: Release | None
    studies: tuple[Study, ...]
    config: DeploymentConfig
    report: Report | None
    looks: list[Look] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    # Request ids decide the routing; one namespace per walk makes them new in each.
    namespace: uuid.UUID = field(default_factory=uuid.uuid4)

    def run(self) -> tuple[Literal["released", "rolled back", "held"], str]:
        steps = self.config.steps if self.champion else (1.0,)
        new = self.challenger
        self.target.deploy(new.variant, new.directory, new.digest, new.version, steps[0])
        last = len(steps) + self.config.extensions - 1
        for i in range(last + 1):
            share = steps[min(i, len(steps) - 1)]
            if self.champion:
                self.target.shift({new.variant: share, self.champion.variant: 1 - share})
            if not self.send(share):
                return "held", "too few requests reached the challenger; nothing was shown"
            judgement = self.judge(share, looks=last + 1)
            if judgement.outcome == "fail":
                failed = (c for c in judgement.checks if c.outcome == "fail")
                return "rolled back", "; ".join(f"{c.name}: {c.sentence}" for c in failed)
            if judgement.outcome == "pass" and i >= len(steps) - 1:
                return "released", f"all {len(judgement.checks)} checks passed"
        undecided = (c for c in judgement.checks if c.outcome == "inconclusive")
        return "held", "undecided: " + "; ".join(f"{c.name}: {c.sentence}" for c in undecided)

    def send(self, share: float) -> bool:
        """Replay until the challenger has answered its number; False if it never gets there."""
        wanted = self.config.requests_per_step
        before, sent, most = len(self.mine()), 0, math.ceil(3 * wanted / share)
        while (missing := before + wanted - len(self.mine())) > 0:
            count = min(math.ceil(missing / share), most - sent)
            if count <= 0 or not self.studies:
                return False
            self.replay(count, share)
            sent += count
        return True

    def replay(self, count: int, share: float) -> None:
        began, first = time.monotonic(), len(self.samples)

        def ask(i: int) -> Sample:
            time.sleep(max(0.0, began + i / self.config.rate_per_s - time.monotonic()))
            return self.ask(first + i, side_by_side=share < 1)

        with ThreadPoolExecutor(self.config.senders) as senders:
            for sample in senders.map(ask, range(count)):
                self.samples.append(sample)
                if self.report:
                    done = len(self.samples) - first
                    self.report(
                        done, count, f"{share:.0%} of requests to {self.challenger.variant}"
                    )

    def ask(self, i: int, side_by_side: bool = False) -> Sample:
        study = self.studies[i % len(self.studies)]
        answer = self.target.invoke(
            study.path.read_bytes(),
            study.media_type,
            tag="replay",
            request_id=str(uuid.uuid5(self.namespace, str(i))),
        )
        return Sample(answer, study.expected, side_by_side)

    def mine(self) -> list[Sample]:
        """The challenger's samples: whatever the champion did not answer is held against it."""
        theirs = self.champion.variant if self.champion else None
        return [s for s in self.samples if s.answer.variant is None or s.answer.variant != theirs]

    def judge(self, share: float, looks: int) -> Judgement:
        theirs = self.champion
        baseline = (
            [s for s in self.samples if s.answer.variant == theirs.variant] if theirs else None
        )
        mine = self.mine()
        judgement = judge(baseline, mine, self.challenger.digest, self.config, looks)
        self.looks.append(Look(share, len(self.samples), len(mine), judgement))
        return judgement

    def read_back(self, wanted: Release | None) -> str | None:
        """Say how the target differs from serving `wanted` alone; None if it does not."""
        found = {v.name: (v.digest, v.share) for v in self.target.state()}
        if found != ({wanted.variant: (wanted.digest, 1.0)} if wanted else {}):
            names = ", ".join(f"{n} at {s:.0%} ({d[:12]}…)" for n, (d, s) in sorted(found.items()))
            return f"the endpoint serves {names or 'nothing'}"
        if wanted is None:
            return None
        if not self.studies:
            return None
        answers = [self.ask(len(self.samples) + i).answer for i in range(5)]
        strangers = {a.digest for a in answers if a.error is None} - {wanted.digest}
        if strangers:
            return f"a request was answered by another model ({', '.join(map(str, strangers))})"
        if all(a.error for a in answers):  # one may fail by chance, as it may under any model
            return f"no request was answered ({answers[0].error})"
        return None
