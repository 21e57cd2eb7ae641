"""How often a canary decides wrongly: whole walks, by `run_canary`, against simulated endpoints.

    python benchmarks/canary_errors.py [--walks 2000] [--table FILE]

Both variants answer at random: scores from Beta(2, 3) of the replayed study, latencies lognormal
with occasional stalls that strike both. The first rows are challengers that deserve release
(the first is the champion's equal in everything, "A/A"); the others must not be released, and get
a fifth of the walks. With the default of 2,000 walks a share of 1 % is known to about 0.4 points.
"""

import argparse
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from serving.canary import Release, Study, run_canary
from serving.config import DeploymentConfig
from serving.target import Answer, Variant

STUDIES = 60  # a small validation split, replayed several times over
CONFIG = DeploymentConfig(rate_per_s=1e9, senders=1)


@dataclass(frozen=True)
class Behaviour:
    """How a challenger differs from its champion."""

    name: str
    good: bool
    errors: float = 0.0
    champion_errors: float = 0.0
    latency: float = 1.0
    slow_share: float = 0.0  # of requests, ten times as slow
    noise: float = 0.0  # of its scores around the champion's
    shift: float = 0.0
    constant: bool = False
    skew: float = 0.0
    first: bool = False
    studies: int = STUDIES


BEHAVIOURS = (
    Behaviour("equal to the champion (A/A)", True),
    Behaviour("A/A, both fail 3 % of requests", True, errors=0.03, champion_errors=0.03),
    Behaviour("A/A, 3 studies only", True, studies=3),
    Behaviour("a new model, scores differ by 0.1", True, noise=0.1),
    Behaviour("1.2 times as slow", True, latency=1.2),
    Behaviour("first release, no champion", True, first=True),
    Behaviour("5 % of requests fail", False, errors=0.05),
    Behaviour("10 % of requests fail", False, errors=0.10),
    Behaviour("20 % of requests fail", False, errors=0.20),
    Behaviour("every request fails", False, errors=1.0),
    Behaviour("4 times as slow", False, latency=4.0),
    Behaviour("10 times as slow", False, latency=10.0),
    Behaviour("scores 0.3 higher", False, shift=0.3),
    Behaviour("scores 0.5 higher", False, shift=0.5),
    Behaviour("always the same score", False, constant=True),
    Behaviour("served scores 0.001 off the offline ones", False, skew=0.001),
    Behaviour("first release, 20 % of requests fail", False, errors=0.20, first=True),
    Behaviour("first release, served scores off", False, skew=0.001, first=True),
    Behaviour("no traffic", False, studies=0),
)


@dataclass
class Simulated:
    """A `Target` whose variants answer at random."""

    behaviour: Behaviour
    rng: np.random.Generator
    variants: dict[str, Variant] = field(default_factory=dict)

    def deploy(self, variant, directory, digest, version, share):
        self.shift({v.name: v.share * (1 - share) for v in self.variants.values()})
        self.variants[variant] = Variant(variant, version, digest, share)

    def shift(self, shares):
        for name, share in shares.items():
            self.variants[name] = replace(self.variants[name], share=share)

    def remove(self, variant):
        self.variants.pop(variant, None)

    def state(self):
        return tuple(self.variants.values())

    def invoke(self, data, media_type, tag="live", request_id=None):
        names = sorted(self.variants)
        # Drawn, not hashed from the request id, which is new in each process: a seed is a walk.
        name = names[-1] if self.rng.random() < self.variants[names[-1]].share else names[0]
        new, b = name == "v2", self.behaviour
        latency = 8 * self.rng.lognormal(0, 0.35) * (30 if self.rng.random() < 0.005 else 1)
        if new:
            latency *= b.latency
        digest = self.variants[name].digest
        if self.rng.random() < (b.errors if new else b.champion_errors):
            return Answer(name, digest, None, None, latency, "500")
        offline = np.frombuffer(data, np.float64)
        score = float(offline[1] + b.skew if new else offline[0])
        return Answer(name, digest, score, score >= 0.5, latency, None)


@dataclass(frozen=True)
class Bytes:
    """Stands for a path: `read_bytes` gives the scores of both models."""

    data: bytes

    def read_bytes(self):
        return self.data


def walk(behaviour: Behaviour, seed: int) -> tuple[str, int]:
    """One canary: how it ended, and after how many requests."""
    rng = np.random.default_rng(seed)
    old = rng.beta(2, 3, behaviour.studies)
    new = np.clip(old + rng.normal(0, behaviour.noise, old.shape) + behaviour.shift, 0, 1)
    if behaviour.constant:
        new = np.full_like(old, 0.2)
    studies = [
        Study(Bytes(np.array([a, b]).tobytes()), "image/png", float(b))  # type: ignore[arg-type]
        for a, b in zip(old, new, strict=True)
    ]
    champion = None if behaviour.first else Release("1", "a" * 64, Path())
    target = Simulated(behaviour, rng)
    outcome = run_canary(target, Release("2", "b" * 64, Path()), champion, studies, CONFIG)
    return outcome.kind, outcome.looks[-1].requests if outcome.looks else 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--walks", type=int, default=2000, help="per behaviour")
    parser.add_argument("--table", type=Path, help="write the table here as well")
    args = parser.parse_args()
    lines = [
        f"Steps {CONFIG.steps}, {CONFIG.requests_per_step} answers of "
        f"the challenger per step, up to {CONFIG.extensions} extensions, false_rollback "
        f"{CONFIG.false_rollback:.0%} at most",
        "",
        "| challenger | walks | must be | released | rolled back | held | requests, 50 % (95 %) |",
        "|---|---|---|---|---|---|---|",
    ]
    began = perf_counter()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for i, behaviour in enumerate(BEHAVIOURS):
            walks = args.walks if behaviour.good else max(1, args.walks // 5)
            seeds = range(i * 1_000_000, i * 1_000_000 + walks)
            ends = list(pool.map(partial(walk, behaviour), seeds, chunksize=20))
            count = Counter(kind for kind, _ in ends)
            shares = (f"{count[k] / walks:.2%}" for k in ("released", "rolled back", "held"))
            half, most = np.percentile([requests for _, requests in ends], (50, 95))
            wanted = "released" if behaviour.good else "kept out"
            row = [behaviour.name, str(walks), wanted, *shares, f"{half:.0f} ({most:.0f})"]
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    lines += ["", f"{perf_counter() - began:.0f} s on {os.cpu_count()} processors"]
    if args.table:
        args.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
