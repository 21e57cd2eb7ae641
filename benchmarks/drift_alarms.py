"""How often the drift watch alarms when nothing changed, and how often when something did.

    python benchmarks/drift_alarms.py [--runs 400] > drift.md

Columns are drawn as image statistics are: nine numbers that rise and fall together (correlation
0.7), some skewed, a score known for a third of the reference, a matrix size of three values, and
categories with a rare member. Each row is one drawn data set, judged by the code that runs in
service. Intervals are Wilson's, 95 %.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from imaging.manifest import STATISTICS
from monitoring.alarms import judge
from monitoring.config import MonitoringConfig
from monitoring.drift import comparable, differences

CHANGES = {
    "nothing": {},
    "nothing, but 2 images a patient": {"each": 2},
    "nothing, but 5 images a patient": {"each": 5},
    "all statistics by 0.2 sd": {"shift": 0.2, "of": STATISTICS},
    "all statistics by 0.5 sd": {"shift": 0.5, "of": STATISTICS},
    "noise by 0.5 sd": {"shift": 0.5, "of": ("noise_sigma",)},
    "noise by 1 sd": {"shift": 1.0, "of": ("noise_sigma",)},
    "score by 0.5 sd": {"shift": 0.5, "of": ("score",)},
    "a new scanner sends 10 %": {"new_scanner": 0.1},
    "a new scanner sends 30 %": {"new_scanner": 0.3},
}


def draw(rng, n, shift=0.0, of=(), new_scanner=0.0, each=1):
    def images(size):  # of one patient, half of the variance is the patient's
        alone = rng.normal(size=size)
        if each == 1:
            return alone
        patients = rng.normal(size=(-(-n // each), size[1]))
        return np.sqrt(0.5) * np.repeat(patients, each, axis=0)[:n] + np.sqrt(0.5) * alone

    numbers = np.sqrt(0.7) * images((n, 1)) + np.sqrt(0.3) * images((n, len(STATISTICS)))
    numbers[:, ::3] = np.exp(numbers[:, ::3] / 2)  # noise, for one, is skewed
    table = pd.DataFrame(numbers, columns=list(STATISTICS))
    table["score"] = rng.beta(1, 4, n)
    for name in of:
        table[name] += shift * table[name].std()
    table["rows"] = rng.choice([1024, 2048, 2500], n, p=[0.2, 0.5, 0.3])
    table["manufacturer"] = rng.choice(["A", "B", "C"], n, p=[0.6, 0.38, 0.02])
    scanners = rng.choice(["S1", "S2", "S3", "S4"], n, p=[0.5, 0.3, 0.19, 0.01]).astype(object)
    scanners[rng.random(n) < new_scanner] = "S9"
    table["scanner"] = scanners
    return table


def alarm_rates(n_reference, n, runs, change, minimums, seed) -> Iterator[int]:
    """How many of the runs alarm, for each minimum of drifted columns."""
    drifted = []
    config = MonitoringConfig()
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        reference = draw(rng, n_reference, each=change.get("each", 1))
        reference.loc[n_reference // 3 :, "score"] = np.nan
        columns, _ = comparable(reference, draw(rng, n, **change))
        verdict = judge(differences(columns), n, config)
        drifted.append(sum(j.drifted for j in verdict.columns))
    for minimum in minimums:
        yield sum(d >= minimum for d in drifted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=400)
    runs = parser.parse_args().runs
    minimums = (1, 2)
    print(f"Share of {runs} runs with an alarm, at least 1 / at least 2 drifted columns.\n")
    print("| change | reference | requests | alarm at 1 | 95 % | alarm at 2 | 95 % |")
    print("|---|---|---|---|---|---|---|")
    for number, (name, change) in enumerate(CHANGES.items()):
        for n_reference in (150, 600) if not change else (600,):
            for n in (50, 100, 200, 500) if not change else (50, 200, 500):
                counts = alarm_rates(n_reference, n, runs, change, minimums, number)
                cells = []
                for k in counts:
                    low, high = binomtest(k, runs).proportion_ci(method="wilson")
                    cells += [f"{k / runs:.1%}", f"{low:.1%}–{high:.1%}"]
                print(f"| {name} | {n_reference} | {n} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
