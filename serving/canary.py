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
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lineage.errors import BadInput, StepFailed
from lineage.progress import Report
from serving.config import DeploymentConfig
from serving.judgement import Judgement, Sample, judge
from serving.target import Target, Variant


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
