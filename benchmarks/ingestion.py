"""What ingest costs per instance, in time and memory, as a folder grows.

    python benchmarks/ingestion.py [--large] [--folder DIR] > ingestion.md

Instances are synthetic radiographs of 64 x 64 pixels in 16 bits, ten of a patient: so small that
what is measured is the cost of the way, not of the pixels. For each size: everything new, then
grown by 1 %, then as it is; and once a run that is killed when half is done, and goes on. Memory
is the peak resident set (VmHWM) of the process and of the largest of its workers; processor time
is that of all of them.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SIZES, LARGE = (1_000, 10_000), 100_000
PER_PATIENT, PER_FOLDER = 10, 1_000
UID = "1.2.826.0.1.3680043.9.99"


@dataclass(frozen=True)
class Run:
    """One ingest in a process of its own."""

    seconds: float
    cpu_seconds: float
    parent_mib: float
    worker_mib: float
    read: int
    known: int
    killed: bool


def make(folder: Path, first: int, last: int) -> None:
    """Write instances `first` to `last`; the same number gives the same bytes."""
    import numpy as np
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset

    scan = Dataset()
    scan.SOPClassUID, scan.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", f"{UID}.1.9000000"
    scan.StudyDate, scan.StudyTime, scan.Modality = "20190305", "101500", "DX"
    scan.Manufacturer, scan.ManufacturerModelName = "Aldebaran", "Clarus 3"
    scan.InstitutionName, scan.AccessionNumber = "Mount Doom Infirmary", "ACC000000"
    scan.PatientName, scan.PatientID, scan.PatientSex = "Quernstein^Adalbert", "MRN-000000", "F"
    scan.PatientAge, scan.ViewPosition, scan.BodyPartExamined = "047Y", "PA", "CHEST"
    scan.StudyInstanceUID, scan.SeriesInstanceUID = f"{UID}.2.9000000", f"{UID}.3.9000000"
    scan.SamplesPerPixel, scan.PhotometricInterpretation = 1, "MONOCHROME2"
    scan.Rows = scan.Columns = 64
    scan.BitsAllocated, scan.BitsStored, scan.HighBit, scan.PixelRepresentation = 16, 12, 11, 0
    scan.PixelData = bytes(64 * 64 * 2)
    scan["PixelData"].VR = "OW"
    scan.file_meta = FileMetaDataset()
    scan.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, scan, enforce_file_format=True)
    head = buffer.getvalue()[: -64 * 64 * 2]
    for number in range(first, last):
        patient = number // PER_PATIENT
        data = head.replace(b".1.9000000", b".1.9%06d" % number)
        for word in (b".2.9", b".3.9", b"ACC", b"MRN-"):
            data = data.replace(word + b"000000", word + b"%06d" % patient)
        pixels = np.random.default_rng(number).integers(0, 4096, 64 * 64, np.uint16)
        place = folder / f"{number // PER_FOLDER:03d}" / f"{number:06d}.dcm"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data + pixels.tobytes())


def ingest(scans: Path, home: Path, kill_at: int = 0) -> Run:
    """Run it as the pipeline does, from the table on; killed when `kill_at` files are done."""
    rmtree(home / "out", ignore_errors=True)
    words = [sys.executable, __file__, "--ingest", str(scans), str(home)]
    parent_mib = worker_mib = 0.0
    read = known = 0
    killed = False
    started = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    told = b""
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        parent_mib = max(parent_mib, peak_mib(process.pid))
        worker_mib = max([worker_mib, *map(peak_mib, children(process.pid))])
        told += process.stdout.read() or b""
        done = int((told.splitlines() or [b"0"])[-1].split()[0])
        if kill_at and done >= kill_at and not killed:
            os.killpg(process.pid, signal.SIGKILL)
            killed = True
        time.sleep(0.05)
    seconds, (_, status, used) = time.monotonic() - started, ended
    told += process.stdout.read() or b""
    if not killed:
        if status:
            raise SystemExit(f"ingest ended with {status}")
        read, known = map(int, told.splitlines()[-1].split()[1:])
    cpu_seconds = 0.0 if killed else used.ru_utime + used.ru_stime  # of those it has waited for
    return Run(seconds, cpu_seconds, parent_mib, worker_mib, read, known, killed)


def ingest_here(scans: Path, home: Path) -> None:
    """The science of components/ingest.py; tells on standard output how far it has come."""
    from imaging.config import IngestionConfig
    from imaging.labelling.labels import read_labels
    from imaging.snapshots.snapshot import keep_map, take_snapshot

    os.environ["LIGHTBOX_HOME"] = str(home)
    table = scans.with_name("labels.csv")
    labels = {"key": "file", "key_column": "file", "column": "label", "classes": ["no", "yes"]}
    config = IngestionConfig.model_validate({"labels": labels})
    known = 0

    def report(done: int, total: int, note: str) -> None:
        nonlocal known
        known = int(note.split()[0]) if note else known
        if done % 50 == 0:
            print(done, flush=True)

    (home / "out").mkdir(parents=True)
    key, label_of = b"k" * 32, read_labels(table, config.labels)
    outcome = take_snapshot(config, scans, label_of, home / "out", key, report, home / "ingested")
    keep_map(outcome, home / "out", key)
    print(outcome.counts["found"], outcome.counts["read"], known)


def peak_mib(pid: int) -> float:
    """The largest resident set that a process has had."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def children(pid: int) -> list[int]:
    """Its processes."""
    with suppress(OSError):
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def measure(folder: Path, size: int) -> list[str]:
    """The rows of one size."""
    scans, home = folder / "scans", folder / "home"
    make(scans, 0, size)
    grown = size + size // 100
    rows = [f"{number // PER_FOLDER:03d}/{number:06d}.dcm" for number in range(grown)]
    table = "\n".join(f"{name},{'yes' if i % 3 else 'no'}" for i, name in enumerate(rows))
    (folder / "labels.csv").write_text(f"file,label\n{table}\n")
    time.sleep(2.1)  # files that were just written are not known by their looks
    lines = [_line(size, "all new", size, first := ingest(scans, home))]
    assert first.read == size, first
    make(scans, size, grown)
    more = ingest(scans, home)
    assert (more.read, more.known) == (grown, size), more
    lines.append(_line(grown, "grown by 1 %", grown - size, more))
    time.sleep(2.1)
    lines.append(_line(grown, "as it is, its snapshot lost", 0, ingest(scans, home)))
    rmtree(home)
    broken = ingest(scans, home, kill_at=size // 2)
    rest = ingest(scans, home)
    lines.append(_line(grown, "killed when half was done", 0, broken))
    lines.append(_line(grown, "the same again", grown - rest.known, rest))
    assert broken.killed and rest.read == grown, (broken, rest)
    return lines


def _line(found: int, what: str, new: int, run: Run) -> str:
    each = [f"{1000 * s / new:.2f}" if new and s else "" for s in (run.seconds, run.cpu_seconds)]
    memory = (f"{run.parent_mib:.0f}", f"{run.worker_mib:.0f}")
    cells = (str(found), what, str(new or ""), f"{run.seconds:.1f}", *each, *memory)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help=f"up to {LARGE} instances, too")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--ingest", type=Path, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ingest:
        ingest_here(*args.ingest)
        return
    print(f"{os.cpu_count()} cores; seconds include the start of the process and its workers.\n")
    print("| instances | run | cleaned | s | ms each | CPU ms each | process, MiB | worker, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for size in (*SIZES, *((LARGE,) if args.large else ())):
        folder = Path(mkdtemp(dir=args.folder))
        try:
            print("\n".join(measure(folder, size)), flush=True)
        finally:
            rmtree(folder)


if __name__ == "__main__":
    main()
