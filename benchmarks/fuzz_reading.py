"""Damaged DICOM, thousands of files of it: what the reader makes of each, in what time and memory.

    python benchmarks/fuzz_reading.py [--files 20000] [--seed 0] [--folder FOLDER] [--keep FOLDER]
                                      [--table FILE]

Mutates those of pydicom's own test files (or of FOLDER) that are read, and reads each mutant whole,
in the workers that ingestion uses: parsed, decoded, scaled in all three ways. Mutant `i` of seed
`s` is always the same one. With --keep, the mutants that ended a process, ran out of time or
memory, or met an error of ours are written there. Ends with exit code 1 after an error of ours.
"""

import argparse
import random
import re
import struct
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from imaging.reading import dicom
from imaging.reasons import SetAside
from imaging.worker import map_isolated

TIMEOUT_S, MEMORY_GIB = 20.0, 2.0  # as ingestion has them by default
LARGEST_BYTES = 600_000  # of a file to mutate
ELEMENT = re.compile(
    rb"..[\0\x02\x28\x40\x7f]?.(?:AE|AS|AT|CS|DA|DS|DT|FD|FL|IS|LO|LT|PN|SH|SL|SS|ST|TM|UI|UL|US"
    rb"|OB|OD|OF|OL|OV|OW|SQ|SV|UC|UN|UR|UT|UV)..",
    re.DOTALL,
)
IMAGE_ATTRIBUTE = re.compile(rb"\x28\0[\x02-\x08\x10\x11\x00-\x03]\0US\x02\0", re.DOTALL)
LENGTHS = (0, 1, 2, 7, 8, 0x7FFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
BAD = ("decoder_aborted", "too_slow", "too_large", "unexpected_error")
WORST_KEPT = 3


def place(rng, data):
    """Headers are small and pixels are large: half of the time, the first kilobytes."""
    start = 132 if data[128:132] == b"DICM" else 0
    end = min(len(data), start + 4096) if rng.random() < 0.5 else len(data)
    return rng.randrange(min(start, end - 1), end)


def flip_bits(rng, data, _other):
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        data[place(rng, data)] ^= 1 << rng.randrange(8)


def flip_pixels(rng, data, _other):
    """Behind the header everything stays as long as it is, so that decoders get to see it."""
    start = max(data.rfind(b"\xe0\x7f\x10\0"), 0) + 12
    for _ in range(rng.choice((1, 2, 8, 64))):
        if start < len(data):
            position = start + int((len(data) - start) * rng.random() ** 4)  # headers come first
            data[position] = rng.choice((0, 0xFF, rng.randrange(256)))


def overwrite(rng, data, other):
    start, length = place(rng, data), rng.choice((2, 16, 256, 4096))
    piece = other[place(rng, other) :][: min(length, len(data) - start)]
    data[start : start + len(piece)] = piece


def set_bytes(rng, data, _other):
    for _ in range(rng.choice((1, 2, 4))):
        data[place(rng, data)] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))


def edit_length(rng, data, _other):
    found = [m.end() - 2 for m in ELEMENT.finditer(data)]
    position = rng.choice(found) if found else place(rng, data)
    layout = rng.choice(("<H", "<L"))
    length = rng.choice(LENGTHS)
    if layout == "<H":
        length &= 0xFFFF
    elif rng.random() < 0.7:
        position += 2  # of a VR with long lengths
    if position + struct.calcsize(layout) <= len(data):
        struct.pack_into(layout, data, position, length)


def edit_image_attribute(rng, data, _other):
    found = [m.end() for m in IMAGE_ATTRIBUTE.finditer(data) if m.end() + 2 <= len(data)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        if found:
            value = rng.choice((0, 1, 2, 3, 7, 8, 12, 16, 24, 32, 64, 0x7FFF, 0x8000, 0xFFFF))
            struct.pack_into("<H", data, rng.choice(found), value)


def truncate(rng, data, _other):
    del data[place(rng, data) :]


def duplicate(rng, data, _other):
    found = [m.start() for m in ELEMENT.finditer(data)] or [place(rng, data)]
    start = rng.choice(found)
    piece = bytes(data[start : start + rng.choice((8, 12, 64, 1024, 65536))])
    target = rng.choice(found)
    data[target:target] = piece * rng.choice((1, 1, 2, 50))


def splice(rng, data, other):
    cut = place(rng, data)
    data[cut:] = other[place(rng, other) :]


def remove(rng, data, _other):
    start = place(rng, data)
    del data[start : start + rng.choice((1, 2, 8, 64, 4096))]


MUTATIONS = {
    flip_bits: 3,
    set_bytes: 2,
    flip_pixels: 6,
    overwrite: 2,
    edit_length: 2,
    edit_image_attribute: 3,
    truncate: 1,
    duplicate: 1,
    splice: 1,
    remove: 1,
}


def mutant(number, seed, files):
    """The bytes of one mutant, and the file that it comes from."""
    rng = random.Random(f"{seed} {number}")
    name = rng.choice(files)
    data, other = bytearray(Path(name).read_bytes()), Path(rng.choice(files)).read_bytes()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if len(data) > 200:
            (mutate,) = rng.choices(list(MUTATIONS), MUTATIONS.values())
            mutate(rng, data, other)
    return bytes(data), name


def reader(setup):
    """For the worker: read a mutant, and tell what came of it."""
    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

    def read(number):
        data, _ = mutant(number, setup["seed"], setup["files"])
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, began = memory_mib("VmRSS"), time.perf_counter()
        try:
            dataset = dicom.parse(data)
            stored = dicom.stored_pixels(dataset)
            for scale in (dicom.modality_values, dicom.as_seen, dicom.displayed):
                scale(dataset, stored)
            outcome = "read"
        except SetAside as caught:
            outcome = caught.reason
        taken_ms = 1000 * (time.perf_counter() - began)
        return {"outcome": outcome, "ms": taken_ms, "mib": memory_mib("VmHWM") - before}

    return read


def readable(path):
    if path.stat().st_size > LARGEST_BYTES:
        return False
    try:
        dicom.stored_pixels(dicom.parse(path.read_bytes()))
    except SetAside:
        return False
    return True


def memory_mib(field):
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", status)[1]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.folder is None:
        import pydicom

        options.folder = Path(pydicom.__file__).parent / "data" / "test_files"
    files = [str(p) for p in sorted(options.folder.rglob("*")) if p.is_file() and readable(p)]
    began = time.perf_counter()
    numbers = range(options.first, options.first + options.files)
    results = map_isolated(
        "fuzz_reading:reader",
        {"seed": options.seed, "files": files},
        numbers,
        timeout_s=TIMEOUT_S,
        memory_gib=MEMORY_GIB,
    )
    taken_s = time.perf_counter() - began
    by_outcome = defaultdict(list)
    for number, result in zip(numbers, results, strict=True):
        by_outcome[result.get("outcome") or result["reason"]].append((number, result))
        if options.keep and result.get("reason") in BAD:
            data, name = mutant(number, options.seed, files)
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / f"{result['reason']}-{number}-{Path(name).stem}.dcm").write_bytes(data)
            print(number, Path(name).name, result, file=sys.stderr)
    lines = [
        f"{options.files:,} mutants of {len(files)} files, seed {options.seed}: {taken_s:.0f} s.",
        "",
        "| outcome | files | slowest, ms | most memory, MiB |",
        "|---|---|---|---|",
    ]
    for outcome, found in sorted(by_outcome.items(), key=lambda kv: -len(kv[1])):
        slowest = max((r["ms"] for _, r in found if "ms" in r), default=float("nan"))
        largest = max((r["mib"] for _, r in found if "mib" in r), default=float("nan"))
        lines.append(f"| {outcome} | {len(found)} | {slowest:.0f} | {largest:.0f} |")
    timed = [(r["ms"], n) for found in by_outcome.values() for n, r in found if "ms" in r]
    for ms, number in sorted(timed, reverse=True)[:WORST_KEPT]:
        print(f"slow: {number} {Path(mutant(number, options.seed, files)[1]).name} {ms:.0f} ms")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.table:
        options.table.write_text(text)
    return 1 if by_outcome["unexpected_error"] else 0


if __name__ == "__main__":
    sys.exit(main())
