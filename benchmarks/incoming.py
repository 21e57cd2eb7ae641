"""How quickly scans come in, beside the usual tools, in one run on one machine.

    python benchmarks/incoming.py [--instances 300] [--rounds 3] > incoming.md

Needs Orthanc, its DICOMweb plugin and dcmtk (`.ci/orthanc`), and the development tools. Every
server is on loopback, so the network costs nothing; every receiver gets the same files from the
same sender. What came is compared with what was sent, and a tool that lost any is said to.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from orthanc import SENDER, USER, Orthanc, _free_port, orthanc  # noqa: E402  likewise

from imaging.incoming.mirror import mirror, state_beside  # noqa: E402  after the path
from imaging.incoming.receiver import Listener, Receiver  # noqa: E402  likewise
from imaging.incoming.remote import open_origin  # noqa: E402  likewise

DCMTK = "/usr/bin"  # pynetdicom brings programs of the same names
SIDE = 512  # pixels: 0.5 MiB, as a CT slice


def write_scans(folder: Path, count: int) -> list[Path]:
    """CT slices of noise, in one series."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(count):
        scan = Dataset()
        scan.SOPClassUID, scan.SOPInstanceUID = CTImageStorage, f"1.2.826.0.1.3680043.9.8.{number}"
        scan.StudyInstanceUID = scan.SeriesInstanceUID = "1.2.826.0.1.3680043.9.9"
        scan.PatientID, scan.PatientName, scan.Modality = "1", "Nobody", "CT"
        scan.SamplesPerPixel, scan.PhotometricInterpretation = 1, "MONOCHROME2"
        scan.Rows = scan.Columns = SIDE
        scan.BitsAllocated = scan.BitsStored = 16
        scan.HighBit, scan.PixelRepresentation = 15, 0
        scan.PixelData = rng.integers(0, 4096, (SIDE, SIDE), np.uint16).tobytes()
        scan["PixelData"].VR = "OW"
        scan.file_meta = FileMetaDataset()
        scan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        scan.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return sorted(folder.iterdir())


def send(port: int, files: list[Path], called: str) -> float:
    """Seconds of sending all of them on one association by dcmtk."""
    titles = ["-aet", SENDER, "-aec", called]
    command = [f"{DCMTK}/storescu", *titles, "127.0.0.1", str(port), *map(str, files)]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    return time.perf_counter() - started


def received_by_us(files: list[Path], folder: Path) -> tuple[float, int]:
    with Receiver(folder, Listener(port=0)) as receiver:
        return send(receiver.port, files, "LIGHTBOX"), len(list(folder.iterdir()))


def received_by_storescp(files: list[Path], folder: Path) -> tuple[float, int]:
    folder.mkdir()
    port = _free_port()
    command = [f"{DCMTK}/storescp", "--output-directory", str(folder), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        time.sleep(1)
        taken = send(port, files, "STORESCP")
        server.terminate()
    return taken, len(list(folder.iterdir()))


def received_by_orthanc(archive: Orthanc, files: list[Path]) -> tuple[float, int]:
    archive.empty()
    taken = send(archive.dicom_port, files, "ORTHANC")
    with archive.client() as client:
        return taken, len(client.get("/instances").json())


def fetched_by_us(archive: Orthanc, folder: Path) -> tuple[float, int]:
    started = time.perf_counter()
    mirror(open_origin(archive.address), archive.address, folder, state_beside(folder, "fetched"))
    return time.perf_counter() - started, len(list(folder.iterdir()))


def fetched_by_dicomweb_client(archive: Orthanc, folder: Path) -> tuple[float, int]:
    """Search, then instance by instance, as its documentation shows it."""
    import requests
    from dicomweb_client import DICOMwebClient

    folder.mkdir()
    session = requests.Session()
    session.auth = (USER, archive.password)
    client = DICOMwebClient(archive.address.removeprefix("dicomweb+"), session)
    started = time.perf_counter()
    for found in client.search_for_instances(get_remaining=True):
        study, series, uid = (found[t]["Value"][0] for t in ("0020000D", "0020000E", "00080018"))
        client.retrieve_instance(study, series, uid).save_as(folder / uid)
    return time.perf_counter() - started, len(list(folder.iterdir()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "orthanc").mkdir()
        files = write_scans(folder / "scans", given.instances)
        with orthanc(folder / "orthanc", most_answers=0) as archive:
            os.environ |= {
                "LIGHTBOX_DICOMWEB_USER": USER,
                "LIGHTBOX_DICOMWEB_PASSWORD": archive.password,
            }
            tools: dict[str, Callable[[Path], tuple[float, int]]] = {
                "C-STORE to Orthanc": lambda _: received_by_orthanc(archive, files),
                "C-STORE to storescp (dcmtk)": lambda to: received_by_storescp(files, to),
                "C-STORE to `lightbox receive`": lambda to: received_by_us(files, to),
                "DICOMweb by dicomweb-client": lambda to: fetched_by_dicomweb_client(archive, to),
                "DICOMweb by `lightbox fetch`": lambda to: fetched_by_us(archive, to),
            }
            results: dict[str, list[tuple[float, int]]] = {tool: [] for tool in tools}
            for number in range(given.rounds):
                for tool, run in tools.items():
                    to = folder / f"{number}-{len(results)}-{list(tools).index(tool)}"
                    results[tool].append(run(to))
            again = folder / f"{given.rounds - 1}-{len(results)}-{len(tools) - 1}"
            results["… again, with nothing new"] = [fetched_by_us(archive, again)]
    size = f"{len(files)} instances of {SIDE * SIDE * 2 / 2**20:g} MiB"
    print(f"{size}, {os.cpu_count()} cores, Python {platform.python_version()}; medians.\n")
    print("| | instances/s | least–most | came |\n|---|---:|---|---:|")
    for tool, rounds in results.items():
        rates = [len(files) / seconds for seconds, _ in rounds]
        came = "/".join(sorted({str(count) for _, count in rounds}))
        print(f"| {tool} | {median(rates):.0f} | {min(rates):.0f}–{max(rates):.0f} | {came} |")


if __name__ == "__main__":
    main()
