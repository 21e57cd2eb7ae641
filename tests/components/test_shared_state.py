"""The workspace in S3: real HTTP to moto's server through boto3."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from components.shared_state import fetch_state, shared_state
from imaging.deidentification.crosswalk import Crosswalk
from lineage.code import ROOT
from lineage.errors import BadInput, StepFailed
from registry import audit_log

PATTERNS = ("audit.db", "ledgers/splits-*.jsonl")


@pytest.fixture
def s3(aws, monkeypatch: pytest.MonkeyPatch):
    client = boto3.client("s3")
    client.create_bucket(Bucket="lightbox")
    monkeypatch.setenv("LIGHTBOX_STATE", "s3://lightbox/workspace")
    return client


def kept(s3, key: str) -> bytes:
    return s3.get_object(Bucket="lightbox", Key=f"workspace/{key}")["Body"].read()


def names(s3) -> list[str]:
    found = s3.list_objects_v2(Bucket="lightbox").get("Contents", [])
    return sorted(item["Key"] for item in found)


def test_what_one_job_adds_the_next_one_finds(s3, tmp_path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with shared_state(PATTERNS, first, 1):
        (first / "ledgers").mkdir(parents=True)
        (first / "audit.db").write_bytes(b"one")
        (first / "ledgers/splits-a.jsonl").write_bytes(b"a")
        (first / "ledgers/other.txt").write_bytes(b"not named")
    with shared_state(PATTERNS, second, 1):
        assert (second / "audit.db").read_bytes() == b"one"
        assert (second / "ledgers/splits-a.jsonl").read_bytes() == b"a"
        (second / "audit.db").write_bytes(b"one two")
    assert kept(s3, "audit.db") == b"one two"
    assert names(s3) == ["workspace/audit.db", "workspace/ledgers/splits-a.jsonl"]


def test_names_drawn_by_a_worker_that_was_killed_reach_the_next_job(s3, tmp_path) -> None:
    draw = (
        "import os, signal, sys; from pathlib import Path; "
        "from imaging.deidentification.crosswalk import Crosswalk; "
        "print(Crosswalk(Path(sys.argv[1]), b'k' * 32).patient('MRN'), flush=True); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    first, second = (tmp_path / job / "secrets/crosswalk.sqlite" for job in ("first", "second"))
    with shared_state(["secrets/crosswalk.sqlite"], tmp_path / "first", 1):
        command = [sys.executable, "-c", draw, str(first)]
        said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    with shared_state(["secrets/crosswalk.sqlite"], tmp_path / "second", 1):
        assert Crosswalk(second, b"k" * 32).who(said) == "MRN"
    assert names(s3) == ["workspace/secrets/crosswalk.sqlite"]


def test_a_step_that_fails_has_written_all_the_same(s3, tmp_path) -> None:
    with pytest.raises(ZeroDivisionError), shared_state(PATTERNS, tmp_path, 1):
        (tmp_path / "audit.db").write_bytes(b"refused")
        raise ZeroDivisionError
    assert names(s3) == ["workspace/audit.db"]


def test_nothing_happens_without_a_place_or_without_patterns(s3, tmp_path, monkeypatch) -> None:
    with shared_state((), tmp_path, 1):
        (tmp_path / "audit.db").touch()
    monkeypatch.delenv("LIGHTBOX_STATE")
    with shared_state(PATTERNS, tmp_path, 1):
        pass
    assert names(s3) == []


def test_what_another_wrote_meanwhile_is_never_overwritten(s3, tmp_path) -> None:
    s3.put_object(Bucket="lightbox", Key="workspace/audit.db", Body=b"1")
    with pytest.raises(StepFailed, match="another run"), shared_state(PATTERNS, tmp_path, 1):
        s3.put_object(Bucket="lightbox", Key="workspace/audit.db", Body=b"1 theirs")
        (tmp_path / "audit.db").write_bytes(b"1 mine")
    assert kept(s3, "audit.db") == b"1 theirs"
    with pytest.raises(StepFailed, match="another run"), shared_state(PATTERNS, tmp_path / "x", 1):
        s3.put_object(Bucket="lightbox", Key="workspace/ledgers/splits-b.jsonl", Body=b"theirs")
        (tmp_path / "x/ledgers").mkdir()
        (tmp_path / "x/ledgers/splits-b.jsonl").write_bytes(b"mine")
    assert kept(s3, "ledgers/splits-b.jsonl") == b"theirs"


def test_runs_side_by_side_wait_for_each_other(s3, tmp_path) -> None:
    program = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from components.shared_state import shared_state
home = Path(sys.argv[1])
with shared_state(("log.txt",), home, 1):
    path = home / "log.txt"
    path.write_text((path.read_text() if path.exists() else "") + sys.argv[1] + "\\n")
"""
    homes = []
    for i in range(4):
        homes.append(tmp_path / str(i))
        homes[-1].mkdir()

    def start(home) -> int:
        return subprocess.run([sys.executable, "-c", program, str(home)]).returncode

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(start, homes)) == [0] * 4
    assert sorted(kept(s3, "log.txt").decode().split()) == sorted(map(str, homes))


def test_a_lease_whose_holder_was_killed_runs_out(s3, tmp_path, monkeypatch, caplog) -> None:
    def lease(until: datetime) -> None:
        told = json.dumps({"holder": "gone", "until": until.isoformat()})
        s3.put_object(Bucket="lightbox", Key="workspace/leases/audit.db", Body=told)

    lease(datetime.now(UTC) - timedelta(seconds=1))
    with shared_state(("audit.db",), tmp_path, 1):
        assert names(s3) == ["workspace/leases/audit.db"]
    assert names(s3) == []
    lease(datetime.now(UTC) + timedelta(hours=1))

    def wait(seconds: float) -> None:
        assert "another run is at work on audit.db" in caplog.text
        lease(datetime.now(UTC) - timedelta(seconds=1))  # an hour passes

    monkeypatch.setattr("components.shared_state.time.sleep", wait)
    with shared_state(("audit.db",), tmp_path, 1):
        assert names(s3) == ["workspace/leases/audit.db"]


def test_a_workspace_with_a_file_of_its_own_is_neither_sent_nor_overwritten(s3, tmp_path) -> None:
    s3.put_object(Bucket="lightbox", Key="workspace/audit.db", Body=b"theirs")
    (tmp_path / "audit.db").write_bytes(b"mine")
    for use in (
        lambda: fetch_state(("audit.db",), tmp_path),
        lambda: shared_state(("audit.db",), tmp_path, 1).__enter__(),
    ):
        with pytest.raises(BadInput, match="LIGHTBOX_HOME name an empty folder"):
            use()
    assert (tmp_path / "audit.db").read_bytes() == b"mine"
    assert kept(s3, "audit.db") == b"theirs"


def test_what_was_fetched_is_brought_up_to_date(s3, tmp_path) -> None:
    for body in (b"one", b"one two"):
        s3.put_object(Bucket="lightbox", Key="workspace/audit.db", Body=body)
        fetch_state(("audit.db",), tmp_path)
        assert (tmp_path / "audit.db").read_bytes() == body
    with shared_state(("audit.db",), tmp_path, 1):
        (tmp_path / "audit.db").write_bytes(b"one two three")
    fetch_state(("audit.db",), tmp_path)
    assert kept(s3, "audit.db") == b"one two three"


@pytest.mark.parametrize("place", ["bucket/workspace", "s3://bucket", "gs://bucket/x", "s3:///x"])
def test_what_is_no_place_in_s3_is_refused(place: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LIGHTBOX_STATE", place)
    state = shared_state(PATTERNS, tmp_path, 1)
    with pytest.raises(BadInput, match="is not s3://BUCKET/PREFIX"), state:
        pass


def test_an_unreachable_place_is_one_sentence(s3, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LIGHTBOX_STATE", "s3://no-such-bucket/workspace")
    state = shared_state(PATTERNS, tmp_path, 1)
    with pytest.raises(StepFailed, match=r"cannot be reached \(NoSuchBucket\)"), state:
        pass


def test_a_row_is_kept_before_what_it_tells_of_is_done(s3, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LIGHTBOX_HOME", str(tmp_path))
    row = {"actor": "ada", "action": "approved", "subject": "chest:1", "reason": "good"}
    with shared_state(("audit.db",), tmp_path, 1) as keep, audit_log.kept_by(keep):
        audit_log.append(**row)
        assert kept(s3, "audit.db") == (tmp_path / "audit.db").read_bytes()
        s3.put_object(Bucket="lightbox", Key="workspace/audit.db", Body=b"theirs")
        with pytest.raises(StepFailed, match="another run"):
            audit_log.append(**row)
        (tmp_path / "audit.db").unlink()


class Deaf:
    """S3 whose answer to every first write is lost, so that boto3 sends it again."""

    def __init__(self, s3) -> None:
        self._s3, self.exceptions = s3, s3.exceptions

    def __getattr__(self, name: str):
        return getattr(self._s3, name)

    def put_object(self, **request):
        if hasattr(request["Body"], "read"):
            body = request.pop("Body").read()
            request["Body"] = body
        self._s3.put_object(**request)
        return self._s3.put_object(**request)


def test_a_lost_answer_neither_blocks_a_job_on_itself_nor_denies_a_row(
    s3, tmp_path, monkeypatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(boto3, "client", lambda name: Deaf(s3))
        with shared_state(("log.txt",), tmp_path, 1):
            (tmp_path / "log.txt").write_text("row")
    assert kept(s3, "log.txt") == b"row"
    assert names(s3) == ["workspace/log.txt"]


def test_a_key_that_leads_out_of_the_workspace_is_not_followed(s3, tmp_path) -> None:
    s3.put_object(Bucket="lightbox", Key="workspace/requests/../../evil.json", Body=b"{}")
    fetch_state(("requests/*.json",), tmp_path / "home")
    assert not list(tmp_path.rglob("evil.json"))
