"""Is it good enough? Pure: metrics and rules in, a verdict with its reasons out.

Fails closed: only finite numbers that form an interval count as evidence. Whatever is missing,
NaN or out of range makes a rule inconclusive, and inconclusive does not pass.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

from evaluation.config import (
    LowerBound,
    MinimumN,
    NotWorseThanChampion,
    Rule,
    SubgroupLowerBound,
    UpperBound,
)

Outcome = Literal["pass", "fail", "inconclusive"]
REASON_LENGTH = 500


@dataclass(frozen=True)
class Ruling:
    """What one rule says, with the numbers that it says it of.

    `measured` is False for a pass that rests on no number, such as "no champion yet".
    """

    rule: str
    outcome: Outcome
    sentence: str
    measured: bool = True


@dataclass(frozen=True)
class Verdict:
    """The gate's answer: fail if a rule fails, else inconclusive if one is, else pass."""

    outcome: Outcome
    rules: tuple[Ruling, ...]
    reason: str

    @property
    def passed(self) -> bool:
        """True for "pass" alone."""
        return self.outcome == "pass"


def decide(metrics: Any, rules: Sequence[Rule]) -> Verdict:
    """Judge metrics by every rule.

    Args:
        metrics: As `evaluate` writes them to metrics.json; anything else is merely no evidence.
        rules: None at all never pass.
    """
    rulings = tuple(_rule(metrics, rule) for rule in rules)
    outcomes = {ruling.outcome for ruling in rulings}
    outcome: Outcome
    if "fail" in outcomes:
        outcome = "fail"
    elif "inconclusive" in outcomes or not any(ruling.measured for ruling in rulings):
        outcome = "inconclusive"
    else:
        outcome = "pass"
    decisive = [r.sentence for r in rulings if r.outcome == outcome] or ["no rule, no evidence"]
    if outcome == "inconclusive" and "inconclusive" not in outcomes and rulings:
        decisive = ["no rule rests on a measured number, so there is no evidence"]
    reason = f"{outcome}: {'; '.join(decisive)}"
    if len(reason) > REASON_LENGTH:
        reason = reason[: REASON_LENGTH - 1] + "…"
    return Verdict(outcome, rulings, reason)


def _rule(metrics: Any, rule: Rule) -> Ruling:
    match rule:
        case LowerBound():
            return _lower_bound(metrics, rule)
        case UpperBound():
            return _upper_bound(metrics, rule)
        case MinimumN():
            return _minimum_n(metrics, rule)
        case NotWorseThanChampion():
            return _not_worse(metrics, rule)
        case SubgroupLowerBound():
            return _subgroups(metrics, rule)
        case _:
            assert_never(rule)


def _lower_bound(metrics: Any, rule: LowerBound) -> Ruling:
    found = _Evidence.of(_at(metrics, "metrics", rule.metric), rule.metric)
    return Ruling(rule.rule, *_above(found, rule.at_least))


def _upper_bound(metrics: Any, rule: UpperBound) -> Ruling:
    found = _Evidence.of(_at(metrics, "metrics", rule.metric), rule.metric)
    if found.interval is None:
        return Ruling(rule.rule, "inconclusive", found.text)
    low, high = found.interval
    if high <= rule.at_most:
        return Ruling(rule.rule, "pass", f"{found.text}: at most {rule.at_most:g}")
    if low > rule.at_most:
        return Ruling(rule.rule, "fail", f"{found.text}: above {rule.at_most:g}")
    unsure = f"{found.text}: too uncertain, the interval holds the limit {rule.at_most:g}"
    return Ruling(rule.rule, "inconclusive", unsure)


def _minimum_n(metrics: Any, rule: MinimumN) -> Ruling:
    n_images, n_positive = (_count(_at(metrics, name)) for name in ("n_images", "n_positive"))
    n_negative = None if n_images is None or n_positive is None else n_images - n_positive
    wanted = (
        ("patients", _count(_at(metrics, "n_patients")), rule.patients),
        ("positive images", n_positive, rule.positives),
        ("negative images", n_negative, rule.negatives),
    )
    text = ", ".join(
        f"{'unknown' if found is None else found} {what} (needed {needed})"
        for what, found, needed in wanted
    )
    enough = all(found is not None and found >= needed for _, found, needed in wanted)
    outcome: Outcome = "pass" if enough else "inconclusive"
    return Ruling(rule.rule, outcome, text)


def _not_worse(metrics: Any, rule: NotWorseThanChampion) -> Ruling:
    name = f"{rule.metric} candidate minus champion"
    champion = metrics.get("champion", "missing") if isinstance(metrics, Mapping) else "missing"
    if champion is None:
        return Ruling(rule.rule, "pass", "there is no champion to compare with yet", False)
    digests = [_at(metrics, side, "digest") for side in ("candidate", "champion")]
    if not all(isinstance(digest, str) and digest for digest in digests):
        return Ruling(rule.rule, "inconclusive", f"{name}: which models were compared is missing")
    if digests[0] == digests[1]:
        return Ruling(rule.rule, "pass", "the champion is this very model", False)
    found = _Evidence.of(_at(metrics, "comparison", f"{rule.metric}_difference"), name, -1.0)
    if found.interval is None:
        return Ruling(rule.rule, "inconclusive", found.text)
    low, high = found.interval
    if low > -rule.margin:
        return Ruling(rule.rule, "pass", f"{found.text}: above the margin -{rule.margin:g}")
    if high < -rule.margin:
        return Ruling(rule.rule, "fail", f"{found.text}: below the margin -{rule.margin:g}")
    sentence = f"{found.text}: the margin -{rule.margin:g} is not excluded"
    return Ruling(rule.rule, "inconclusive", sentence)


def _subgroups(metrics: Any, rule: SubgroupLowerBound) -> Ruling:
    groups = _at(metrics, "subgroups", rule.by)
    if not isinstance(groups, Mapping) or not groups:
        return Ruling(rule.rule, "inconclusive", f"no subgroups by {rule.by} were measured")
    judged: list[tuple[Outcome, str]] = []
    small = []
    for group, measures in sorted(groups.items()):
        found = _Evidence.of(_at(measures, rule.metric), f"{rule.by} {group} {rule.metric}")
        if found.interval is not None and found.patients is None:
            judged.append(("inconclusive", f"{found.text}: of how many patients is missing"))
        elif found.declined or (found.patients is not None and found.patients < rule.minimum_n):
            small.append(f"{found.text}: too small to judge")
        else:
            judged.append(_above(found, rule.at_least))
    if small and rule.on_small == "inconclusive":
        judged += [("inconclusive", text) for text in small]
        small = []
    outcomes: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")
    found_outcomes = {outcome for outcome, _ in judged}
    outcome: Outcome = next((o for o in outcomes if o in found_outcomes), "inconclusive")
    # The decisive groups first: the reason may be cut.
    ordered = [text for o in outcomes for told, text in judged if told == o]
    return Ruling(rule.rule, outcome, "; ".join(ordered + small))


@dataclass(frozen=True)
class _Evidence:
    """One measured number: its sentence, and its interval if it is sound."""

    text: str
    interval: tuple[float, float] | None
    patients: int | None
    declined: bool = False  # the evaluation itself gave no number, and said why

    @staticmethod
    def of(found: Any, name: str, least: float = 0.0) -> "_Evidence":
        """Read one entry of metrics.json, trusting none of it; values lie in [least, 1]."""
        numbers = [_at(found, key) for key in ("estimate", "low", "high")]
        patients, images = _count(_at(found, "n_patients")), _count(_at(found, "n"))
        n = f"n = {'?' if images is None else images} images"
        n += f" of {patients} patients" if patients is not None else ""
        reason = _at(found, "reason")
        if numbers == [None] * 3 and isinstance(reason, str) and reason:
            return _Evidence(f"{name} has no estimate ({reason})", None, patients, True)
        if not all(_is_number(x) and least <= x <= 1 for x in numbers) or not images:
            return _Evidence(f"{name}: no usable evidence, {n}", None, patients)
        estimate, low, high = numbers
        if not low <= estimate <= high:
            return _Evidence(f"{name}: its limits do not hold its estimate, {n}", None, patients)
        text = f"{name} {estimate:.4f} [{low:.4f}, {high:.4f}], {n}"
        return _Evidence(text, (low, high), patients)


def _above(found: _Evidence, at_least: float) -> tuple[Outcome, str]:
    if found.interval is None:
        return "inconclusive", found.text
    low, high = found.interval
    if low >= at_least:
        return "pass", f"{found.text}: at least {at_least:g}"
    if high < at_least:
        return "fail", f"{found.text}: below {at_least:g}"
    return "inconclusive", f"{found.text}: too uncertain, the interval holds the limit {at_least:g}"


def _at(found: Any, *keys: str) -> Any:
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any) -> int | None:
    return int(value) if _is_number(value) and value >= 0 else None
