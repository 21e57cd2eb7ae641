"""The commands themselves; what they call has tests of its own in tests/imaging/incoming."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pydicom
import pytest
from click.testing import CliRunner
from pynetdicom import AE
from senders import associated

from imaging.phantom import SCANNERS, write_cohort
from lineage.errors import BadInput
from pipelines.cli import cli


def invoke(*words: str) -> str:
    result = CliRunner().invoke(cli, words, standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.stdout


def test_fetch_says_how_much_then_does_it_then_has_nothing_to_do(aws: str, tmp_path: Path) -> None:
    bucket = boto3.resource("s3").Bucket("scans")
    bucket.create()
    for number in range(3):
        bucket.put_object(Key=f"chest/{number}", Body=b"12345")
    words = ("fetch", "s3://scans/chest", str(tmp_path / "scans"))
    assert invoke(*words, "--dry-run").startswith("3 to fetch (15 B), 0 here already")
    assert list(tmp_path.iterdir()) == []
    assert json.loads(invoke(*words, "--json")) == {
        "fetched": True,
        "new": 3,
        "new_bytes": 15,
        "kept": 0,
        "gone": 0,
    }
    assert len(list((tmp_path / "scans").iterdir())) == 3
    bucket.Object("chest/0").delete()
    assert invoke(*words, "--dry-run").endswith("1 to remove because they are gone at the source\n")
    assert invoke(*words).startswith("0 fetched (0 B), 2 here already, 1 removed")
    with pytest.raises(BadInput, match=r"^'data/scans' is no address that scans are read from"):
        invoke("fetch", "data/scans", str(tmp_path / "scans"))
    with pytest.raises(BadInput, match="no address that scans are read from"):
        invoke("fetch", "ftp://scans/chest", str(tmp_path / "scans"))


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`lightbox receive --json` on a free port."""
    command = [sys.executable, "-m", "pipelines.cli", "receive", str(tmp_path / "in")]
    process = subprocess.Popen(
        [*command, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.wait()


def scans(folder: Path) -> list[pydicom.Dataset]:
    write_cohort(folder, seed=2, patients=12, scanners=SCANNERS)
    found = [pydicom.dcmread(path) for path in folder.rglob("*") if path.is_file()]
    return [scan for scan in found if not scan.file_meta.TransferSyntaxUID.is_compressed]


def sender(port: int, scan: pydicom.Dataset):
    entity = AE("SENDER")
    entity.add_requested_context(scan.SOPClassUID, scan.file_meta.TransferSyntaxUID)
    return associated(entity, port)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_listener_tells_each_scan_and_ends_well(listener, tmp_path, stop) -> None:
    told = json.loads(listener.stdout.readline())
    assert told["event"] == "listening"
    found = scans(tmp_path / "cohort")
    association = sender(told["port"], found[0])
    for scan in (found[0], found[0]):
        assert association.send_c_store(scan).Status == 0
    listener.send_signal(stop)
    out, err = listener.communicate(timeout=60)
    assert listener.returncode == 0
    assert association.is_aborted or not association.is_established
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["event"] for line in lines] == ["stored", "known", "ended"]
    assert lines[0]["status"] == "0000"
    assert (lines[-1]["stored"], lines[-1]["known"], lines[-1]["refused"]) == (1, 1, 0)
    (kept,) = (tmp_path / "in").iterdir()
    assert lines[0]["bytes"] == pytest.approx(kept.stat().st_size, rel=0.2)
    scan = found[0]
    for secret in (scan.PatientID, str(scan.PatientName), scan.SOPInstanceUID, "SENDER"):
        assert secret not in out + err


def test_a_listener_ends_when_nobody_comes(tmp_path: Path) -> None:
    out = invoke("receive", str(tmp_path / "in"), "--port", "0", "--stop-after-idle-s", "0.5")
    start, end = out.splitlines()
    assert start.startswith("LIGHTBOX listens on 127.0.0.1:")
    assert end == "0 stored (0 B), 0 here before, 0 refused"


def test_settings_that_do_not_belong_together(tmp_path: Path) -> None:
    import click

    with pytest.raises(click.UsageError, match="--tls-cert and --tls-key together"):
        invoke("receive", str(tmp_path / "in"), "--tls-cert", "a.pem")
    with pytest.raises(BadInput, match="AE title"):
        invoke("receive", str(tmp_path / "in"), "--port", "0", "--ae-title", "A" * 17)
