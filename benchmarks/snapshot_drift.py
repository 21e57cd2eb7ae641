"""How often validation calls a column drifted since the champion's snapshot, if it is or is not.

    python benchmarks/snapshot_drift.py [--runs 300] > snapshot_drift.md

Each run draws an earlier snapshot and new patients: nine image statistics that rise and fall
together, age, sex, label, a scanner of four values and one that is often missing. Intervals are
Wilson's, 95 %.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from imaging.config import Drift
from imaging.manifest import STATISTICS
from imaging.validation.snapshot_drift import changes

CAUSES = {
    "nothing": {},
    "one statistic by 0.5 sd": {"shift": 0.5, "of": ("noise_sigma",)},
    "one statistic by 1 sd": {"shift": 1.0, "of": ("noise_sigma",)},
    "a new scanner sends 30 %": {"new_scanner": 0.3},
    "manufacturer missing in 80 %, not 30 %": {"missing": 0.8},
}


def draw(rng, patients, each, first, shift=0.0, of=(), new_scanner=0.0, missing=0.3):
    mine = np.repeat(np.arange(patients), each)
    common = rng.normal(size=(patients, 1))
    alone = rng.normal(size=(patients, len(STATISTICS)))
    of_patient = (np.sqrt(0.7) * common + np.sqrt(0.3) * alone)[mine]
    numbers = np.sqrt(0.5) * of_patient + np.sqrt(0.5) * rng.normal(size=of_patient.shape)
    table = pd.DataFrame(numbers, columns=list(STATISTICS))
    for name in of:
        table[name] += shift
    table["patient_id"] = [f"p{first + i}" for i in mine]
    table["age_years"] = rng.normal(55, 15, patients)[mine]
    table["sex"] = rng.choice(["F", "M"], patients)[mine]
    table["label"] = rng.integers(2, size=patients)[mine]
    scanners = rng.choice(["S1", "S2", "S3", "S4"], patients, p=[0.5, 0.3, 0.19, 0.01])
    scanners[rng.random(patients) < new_scanner] = "S9"
    table["scanner"] = scanners[mine]
    makers = np.where(rng.random(patients) < missing, None, "A")
    table["manufacturer"] = makers[mine]
    return table


def share(k, n):
    low, high = binomtest(k, n).proportion_ci(method="wilson")
    return f"{k / n:.1%} ({low:.1%} to {high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=300)
    runs = parser.parse_args().runs
    print(f"Runs with a drifted column, of {runs}; the defaults of `validation.drift`.\n")
    print("| cause | patients before | new patients | images each | drifted |")
    print("|---|---|---|---|---|")
    for number, (cause, change) in enumerate(CAUSES.items()):
        for before, new in ((30, 30), (300, 50), (300, 300)):
            for each in (1, 5):
                alarms = 0
                for run in range(runs):
                    rng = np.random.default_rng([number, before, new, each, run])
                    former = draw(rng, before, each, 0)
                    now = draw(rng, new, each, 100_000, **change)
                    alarms += any(c.drifted for c in changes(former, now, Drift()))
                print(
                    f"| {cause} | {before} | {new} | {each} | {share(alarms, runs)} |", flush=True
                )


if __name__ == "__main__":
    main()
