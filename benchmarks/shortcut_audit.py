"""How often the shortcut audit raises an alarm over nothing, and how often it finds what is there.

    python benchmarks/shortcut_audit.py [--runs 300] > shortcuts.md

Each run draws a manifest: 12 fields that say nothing of the label (numbers and categories of 2 to
200 values, half of them the patient's own, some often missing), and, for power, a 13th that tells
the classes apart with a given AUROC. An alarm is a field, or all together, whose lower limit lies
above the default bound. Intervals are Wilson's, 95 %.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evaluation.shortcuts import TOGETHER, audit
from imaging.config import Shortcuts

NAMES = {  # a field of the manifest, and how many values it has; None: a number
    "file_bytes": None,
    "border_mean": None,
    "pixel_spacing_mm": None,
    "study_date": None,
    "manufacturer": 2,
    "scanner": 5,
    "site": 20,
    "model_name": 200,
    "view_position": 3,
    "body_part": 4,
    "source_order_decile": 10,
    "patient_order_decile": 10,
}


def draw(rng, patients, each, share, patient_labels, told=None):
    of = np.repeat(np.arange(patients), each)
    n = len(of)
    label = rng.random(patients)[of] < share if patient_labels else rng.random(n) < share
    table = pd.DataFrame({"patient_id": [f"p{i}" for i in of], "label": label.astype(int)})
    for number, (name, values) in enumerate(NAMES.items()):
        by_patient = number % 2 == 0
        size = patients if by_patient else n
        drawn = rng.normal(size=size) if values is None else rng.integers(values, size=size)
        column = pd.Series(drawn[of] if by_patient else drawn)
        if values is not None and not name.endswith("decile"):
            column = column.map(lambda v: f"v{v}")
        if name == "study_date":
            column = pd.Timestamp("2020-01-01") + pd.to_timedelta(column * 300, unit="D")
        if number % 3 == 2:
            column = column.mask(pd.Series(rng.random(n) < 0.3))
        table[name] = column
    if told is not None:
        from scipy.special import ndtri

        # Normal in each class, so far apart; half of the spread is the patient's.
        spread = np.sqrt(0.5) * (rng.normal(size=patients)[of] + rng.normal(size=n))
        table["instance_number"] = spread + np.sqrt(2) * ndtri(told) * label
    return table


def part(k, n):
    low, high = binomtest(k, n).proportion_ci(method="wilson")
    return f"{k / n:.1%} ({low:.1%} to {high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=300)
    runs = parser.parse_args().runs
    fields = Shortcuts(fields=(*NAMES, "instance_number"))

    print(f"Runs with an alarm, of {runs}; the bound is {fields.lower_bound_above:g}.\n")
    print("| patients | images each | positive | label of | nothing there | highest AUROC seen |")
    print("|---|---|---|---|---|---|")
    for patients in (30, 100, 300, 1000, 2000):
        for each in (1, 5):
            for share, by_patient in ((0.5, True), (0.1, True), (0.3, False)):
                alarms, most = 0, 0.0
                for run in range(runs):
                    rng = np.random.default_rng([patients, each, int(100 * share), run])
                    found = audit(draw(rng, patients, each, share, by_patient), fields)
                    alarms += any(s.strong for s in found)
                    most = max([most, *(s.auroc.estimate or 0 for s in found)])
                what = "patients" if by_patient else "images"
                told = part(alarms, runs)
                print(
                    f"| {patients} | {each} | {share:.0%} | {what} | {told} | {most:.2f} |",
                    flush=True,
                )

    aurocs = (0.6, 0.7, 0.75, 0.8, 0.9)
    print(f"\nRuns in which one field of that AUROC was found, of {runs}.\n")
    print(f"| patients | images each | {' | '.join(f'AUROC {a}' for a in aurocs)} |")
    print("|---" * (2 + len(aurocs)) + "|")
    for patients in (100, 300, 1000):
        for each in (1, 5):
            cells = []
            for told in aurocs:
                hits = 0
                for run in range(runs):
                    rng = np.random.default_rng([patients, each, int(100 * told), run])
                    found = audit(draw(rng, patients, each, 0.5, True, told), fields)
                    hits += any(
                        s.strong for s in found if s.field not in NAMES and s.field != TOGETHER
                    )
                cells.append(part(hits, runs))
            print(f"| {patients} | {each} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
