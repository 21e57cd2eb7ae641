"""De-identification side by side with others: what is left, what is lost, and how long it takes.

    python benchmarks/deidentification.py [--cache DIR] [--rounds 7] > deidentification.md

Each tool runs as its users call it (`deidentifiers.py`), in a virtual environment of its own at a
pinned version, on one core. All are given the same files: the images that pydicom brings, the traps
of our tests, and an answer key (`answer_key.py`). What they wrote is judged here, by code that
no tool shares.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom
from runner import CannotRun, Tool, interpreter, number, print_machine, say, spread, table

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]

import answer_key  # noqa: E402  after the path, so that no install is needed
from dicom_traps import MARK, TRAPS, upper_bits, written  # noqa: E402  likewise

TABLE = ROOT / "imaging/deidentification/ps315_basic_profile.csv"
CHARACTERISTICS = "retain_patient_characteristics"
FLOOR = Tool("pydicom")
TOOLS = (
    FLOOR,
    Tool("lightbox"),
    Tool("lightbox-unchecked"),
    Tool("lightbox-basic"),
    Tool("deid", "deid==0.4.13"),
    Tool("deid-stripped", "deid==0.4.13"),
    Tool("dicognito", "dicognito==0.19.0"),
    Tool("dicom-anonymizer", "dicom-anonymizer==2.1.0"),
)
LABELS = {
    "pydicom": "pydicom: read and write, the floor",
    "lightbox": "**ours**",
    "lightbox-unchecked": "ours without the verifier",
    "lightbox-basic": "ours, retaining nothing",
    "deid-stripped": "deid 0.4.13, private and sequences stripped",
}
# The answer key asks what should stay, and the time does not depend on it.
ALL_ROUND = tuple(tool for tool in TOOLS if tool.name != "lightbox-basic")
FILES_A_ROUND = 20
DIRECT = (
    "PatientID", "OtherPatientIDs", "AccessionNumber", "InstitutionName", "PatientBirthDate",
    "PatientAddress",
)  # fmt: skip
# Most of pydicom's files are secondary captures, which ours holds unless it is told of the device.
MODALITIES = (
    "CR", "CT", "DX", "ES", "MR", "NM", "OT", "PT", "RTDOSE", "RTIMAGE", "SC", "SEG", "US", "XA",
)  # fmt: skip
NO_TEXT = {"text_in_pixels": {"devices": [{"modality": modality} for modality in MODALITIES]}}


class Worker:
    """One tool's process; it is started again where a file ended it."""

    def __init__(self, tool: Tool, cache: Path, policy: dict[str, Any] | None = None) -> None:
        program = Path(__file__).with_name("deidentifiers.py")
        self.command = [interpreter(tool, cache), program, tool.name, json.dumps(policy or {})]
        self.process = self._started()

    def _started(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )  # fmt: skip

    def clean(self, source: Path, target: Path) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        order = json.dumps({"source": str(source), "target": str(target)})
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.end()
            self.process = self._started()
            return {"error": "crashed"}
        found: dict[str, Any] = json.loads(answer)
        if found["error"]:
            target.unlink(missing_ok=True)  # half of a file
        return found

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Found:
    """Of one tool."""

    held: Counter[str] = field(default_factory=Counter)
    written: int = 0
    residual: Counter[str] = field(default_factory=Counter)  # of what kind
    leaking_files: int = 0
    leaking_traps: list[str] = field(default_factory=list)
    score: dict[str, tuple[int, int]] = field(default_factory=dict)
    cpu_s: dict[str, list[float]] = field(default_factory=dict)
    wall_s: dict[str, list[float]] = field(default_factory=dict)
    reason: str = ""


def corpus() -> list[Path]:
    """What pydicom brings for its own tests, images and others."""
    return sorted((Path(pydicom.__file__).parent / "data/test_files").glob("*.dcm"))


def table_rows() -> dict[int, bool]:
    """Tags of Table E.1-1; whether the option for patient characteristics keeps them."""
    with TABLE.open(newline="") as file:
        return {
            int(row["tag"][1:5] + row["tag"][6:10], 16): row[CHARACTERISTICS] == "K"
            for row in csv.DictReader(file)
            if row["tag"].startswith("(") and "X" not in row["tag"].upper()
        }


def elements(dataset: Any) -> Iterator[tuple[int, str, str]]:
    """Tag, VR and value as text of all that is not empty, at every level."""
    for element in dataset.iterall():
        if element.VR != "SQ" and element.value not in (None, "", b"", []):
            yield int(element.tag), element.VR, str(element.value)


def residual(source: Any, target: Any, rows: dict[int, bool]) -> Counter[str]:
    """Attributes of the table, and private ones, whose value is the source's."""
    before = {(tag, text) for tag, _, text in elements(source)}
    found: Counter[str] = Counter()
    for tag, vr, text in elements(target):
        private = bool(tag >> 16 & 1)
        standard = vr == "UI" and pydicom.uid.UID(text).name != text
        if (tag, text) in before and not standard and (private or tag in rows):
            kind = "private" if private else "characteristics" if rows[tag] else "other"
            found[kind] += 1
    return found


def identifiers(source: Any) -> set[bytes]:
    """Names, numbers and places that lead to the patient straight away."""
    words: list[str] = []
    for element in source.iterall():
        if element.VR == "PN":
            words += str(element.value).replace("=", "^").split("^")
        elif element.keyword in DIRECT:
            words.append(str(element.value).strip())
    # One of the files is of a patient called Anonymized: what tools write leads to nobody.
    return {word.lower().encode() for word in words if len(word) > 4} - {b"anonymized"}


def outside_pixels(path: Path, dataset: Any) -> bytes:
    data = path.read_bytes()
    pixels = dataset.get("PixelData", b"")
    return (data.replace(pixels, b"") if pixels else data).lower()


def judge_corpus(tool: Tool, cache: Path, found: Found, folder: Path) -> None:
    rows = table_rows()
    worker = Worker(tool, cache, NO_TEXT | retaining(tool))
    for path in corpus():
        target = folder / path.name
        answer = worker.clean(path, target)
        if answer["error"]:
            found.held[answer["error"]] += 1
            continue
        source, after = pydicom.dcmread(path, force=True), pydicom.dcmread(target, force=True)
        found.written += 1
        found.residual += residual(source, after, rows)
        said = outside_pixels(target, after)
        found.leaking_files += any(word in said for word in identifiers(source))
    worker.end()


def retaining(tool: Tool) -> dict[str, Any]:
    """Ours is asked twice: as it is by default, and for the basic profile with no option."""
    return {"retain": []} if tool.name == "lightbox-basic" else {}


def judge_traps(tool: Tool, cache: Path, found: Found, folder: Path) -> None:
    worker = Worker(tool, cache, retaining(tool))
    for position, (name, trap) in enumerate(TRAPS.items()):
        source, target = folder / f"trap-{position}.dcm", folder / f"out-{position}.dcm"
        source.write_bytes(written(trap))
        if worker.clean(source, target)["error"]:
            continue
        data = target.read_bytes()
        said = data.lower()
        hidden = MARK.encode() in upper_bits(data) if "inside the pixels" in name else False
        shown = trap.rule == "D9"  # text in the pixels: written as it was
        if hidden or shown or any(secret.lower() in said for secret in trap.secrets):
            found.leaking_traps.append(name)
    worker.end()


def judge_key(tool: Tool, cache: Path, found: Found, folder: Path) -> None:
    sources, target = folder / "key", folder / "key-out"
    sources.mkdir()
    target.mkdir()
    answers = answer_key.make(sources)
    worker = Worker(tool, cache, answer_key.POLICY)  # ours knows its device and words
    for path in sorted(sources.iterdir()):
        worker.clean(path, target / path.name)
    worker.end()
    found.score = answer_key.score(answers, sources, target)


def judge(tool: Tool, cache: Path) -> Found:
    found = Found()
    with TemporaryDirectory(prefix="lightbox-benchmark-") as name:
        try:
            judge_corpus(tool, cache, found, Path(name))
            judge_traps(tool, cache, found, Path(name))
            if tool in ALL_ROUND:
                judge_key(tool, cache, found, Path(name))
        except CannotRun as error:
            found.reason = str(error)
    return found


def time_all(found: dict[str, Found], cache: Path, rounds: int) -> None:
    """Each tool in turn, round after round; round 0 is not kept."""
    small = Path(pydicom.__file__).parent / "data/test_files/CT_small.dcm"
    with TemporaryDirectory(prefix="lightbox-benchmark-") as name:
        folder = Path(name)
        large = folder / "ct.dcm"
        _write_large(small, large)
        workers = {t.name: Worker(t, cache) for t in ALL_ROUND if not found[t.name].reason}
        for turn in range(rounds + 1):
            say(f"speed, round {turn} of {rounds}")
            for tool, worker in workers.items():
                for size, path in (("small", small), ("large", large)):
                    took = [worker.clean(path, folder / "out.dcm") for _ in range(FILES_A_ROUND)]
                    if turn and not any(one["error"] for one in took):
                        for what, kept in (
                            ("cpu_s", found[tool].cpu_s), ("wall_s", found[tool].wall_s)
                        ):  # fmt: skip
                            kept.setdefault(size, []).append(median(one[what] for one in took))
        for worker in workers.values():
            worker.end()


def _write_large(small: Path, large: Path) -> None:
    """A CT of 512 x 512 words of 16 bits, half a mebibyte, under the same header."""
    dataset = pydicom.dcmread(small)
    noise = np.random.default_rng(1)
    dataset.Rows = dataset.Columns = 512
    dataset.PixelData = noise.integers(-1000, 2000, (512, 512), dtype=np.int16).tobytes()
    dataset.save_as(large)


def label(tool: Tool) -> str:
    return LABELS.get(tool.name) or tool.pin.replace("==", " ")


def print_left(found: dict[str, Found]) -> None:
    count = len(corpus())
    print(f"### What is left: {count} files of pydicom's, {len(TRAPS)} traps\n")
    head = ["tool", f"written of {count}", "attributes of Table E.1-1 as they were",
            "of these characteristics", "of these private", "files with an identifier",
            f"traps leaked of {len(TRAPS)}"]  # fmt: skip
    rows = [head]
    for tool in TOOLS:
        it = found[tool.name]
        kinds = [it.residual.total(), it.residual["characteristics"], it.residual["private"]]
        row = [it.written, *kinds, it.leaking_files, len(it.leaking_traps)]
        rows.append([label(tool), *(map(str, row) if not it.reason else [it.reason, *[""] * 5])])
    table(*rows)
    for tool in TOOLS:
        it = found[tool.name]
        if it.held:
            print(f"{label(tool)} held: {_counted(it.held)}.\n")
    print("### Traps leaked, by requirement\n")
    rules = Counter(trap.rule for trap in TRAPS.values())
    order = sorted(rules, key=lambda rule: int(rule[1:]))
    rows = [["tool", *(f"{rule} of {rules[rule]}" for rule in order)]]
    for tool in TOOLS:
        leaked = Counter(TRAPS[name].rule for name in found[tool.name].leaking_traps)
        rows.append([label(tool), *(str(leaked[rule]) for rule in order)])
    table(*rows)


def print_key(found: dict[str, Found]) -> None:
    total = sum(of for _, of in found["lightbox"].score.values())
    print(f"### The answer key: right answers of {total:,}, in percent\n")
    rows = [["tool", "all", *answer_key.ACTIONS]]
    for tool in ALL_ROUND:
        score = found[tool.name].score
        if score:
            right = sum(r for r, _ in score.values())
            each = [f"{100 * r / of:.4g}" for r, of in (score[a] for a in answer_key.ACTIONS)]
            rows.append([label(tool), f"{100 * right / total:.2f}", *each])
    table(*rows)


def print_speed(found: dict[str, Found]) -> None:
    print("### Files per second on one core, and speed against the floor (by CPU time)\n")
    sizes = {"small": "39 kB CT", "large": "0.5 MiB CT"}
    rows = [["tool"]]
    for size in sizes.values():
        rows[0] += [f"{size}, files/s", f"{size}, of the floor"]
    for tool in ALL_ROUND:
        it, row = found[tool.name], [label(tool)]
        for size in sizes:
            if size not in it.cpu_s:
                row += ["", ""]
                continue
            floor = found[FLOOR.name].cpu_s[size]
            shares = [f / own for f, own in zip(floor, it.cpu_s[size], strict=True)]
            row += [spread([1 / s for s in it.wall_s[size]], "s"), spread(shares, "s")]
        rows.append(row)
    table(*rows)
    checked, unchecked = found["lightbox"].cpu_s, found["lightbox-unchecked"].cpu_s
    costs = (
        f"{1000 * (median(checked[s]) - median(unchecked[s])):.2g} ms for a {name}"
        for s, name in sizes.items()
        if s in checked and s in unchecked
    )
    print(f"The verifier, with the digest of the pixels that it compares: {', '.join(costs)}.\n")


def _counted(held: Iterable[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in Counter(held).most_common())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/lightbox-benchmarks"))
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    began = time.perf_counter()
    cache = args.cache.expanduser().resolve()
    cache.mkdir(parents=True, exist_ok=True)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    print_machine()
    found = {}
    for tool in TOOLS:
        say(tool.name)
        found[tool.name] = judge(tool, cache)
    print_left(found)
    print_key(found)
    time_all(found, cache, args.rounds)
    print_speed(found)
    say(f"{number(time.perf_counter() - began)} s")


if __name__ == "__main__":
    main()
