"""Each illness is a real one: files, processes, mounts and networks as they would be."""

import http.server
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from imaging.deidentification.crosswalk import Crosswalk
from lineage.code import LOCK, ROOT
from lineage.workspace import Workspace
from pipelines import doctor
from pipelines.cli import cli
from pipelines.doctor import Check, examine
from pipelines.runs import Run, RunFolder, now
from serving.local_endpoint import LocalEndpoint


def found(place: Workspace, name: str) -> Check:
    return next(check for check in examine(place) if check.name == name)


def privileged(*command: str) -> None:
    """Run what only root may, or skip; containers often refuse it to root as well."""
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"{command[0]} is not allowed here")


@pytest.fixture
def small_disk(tmp_path: Path):
    folder = tmp_path / "disk"
    folder.mkdir()
    privileged("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_sound_machine_passes_and_nothing_is_changed(home: Workspace) -> None:
    checks = examine(home)
    assert [c for c in checks if c.state == "problem" and c.name not in ("disk", "packages")] == []
    assert not home.home.exists()


def test_the_command_ends_by_what_it_found(home: Workspace, monkeypatch) -> None:
    def ending() -> int:
        result = CliRunner().invoke(cli, ["doctor", "--json"], standalone_mode=False)
        states = [check["state"] for check in json.loads(result.output)]
        assert result.return_value == int("problem" in states)
        return result.return_value

    monkeypatch.setattr(doctor, "FREE_GIB", 0)
    pins(monkeypatch, home, "click==" + click.__version__)
    assert ending() == 0
    monkeypatch.setenv("LIGHTBOX_SECRET_SPLIT_KEY", "short")
    assert ending() == 1
    told = CliRunner().invoke(cli, ["doctor"], standalone_mode=False).output
    assert "problem  secrets    LIGHTBOX_SECRET_SPLIT_KEY: expected the secret" in told
    assert "-> set it to the secret, or unset it" in told


def pins(monkeypatch: pytest.MonkeyPatch, home: Workspace, *lines: str) -> None:
    path = home.home.parent / "requirements.lock"
    path.write_text("# a comment\n" + "\n".join(lines) + "\n")
    monkeypatch.setattr(doctor, "LOCK", path)


def test_packages_are_compared_with_their_pins(home: Workspace, monkeypatch) -> None:
    torch = next(line for line in LOCK.read_text().splitlines() if line.startswith("torch=="))
    pins(monkeypatch, home, torch, "click==0.1", "Not.There==1.0")  # torch may be 2.x.y+cpu
    check = found(home, "packages")
    assert check.state == "problem"
    assert check.told == f"missing: Not.There; click is {click.__version__}, not 0.1"
    assert "make install" in check.way

    monkeypatch.setattr(doctor, "LOCK", home.home / "nowhere")
    assert found(home, "packages").told == "could not be checked (FileNotFoundError)"


def examined_in_subprocess(command: list[str], **environment: str) -> dict[str, dict[str, str]]:
    done = subprocess.run(
        [*command, "-m", "pipelines.cli", "doctor", "--json"],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    return {check["name"]: check for check in json.loads(done.stdout)}


def test_with_nothing_but_click_it_still_answers(home: Workspace, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "click").symlink_to(Path(click.__file__).parent)
    note_endpoint(home, os.getpid())
    # -S: without the folder of installed packages
    told = examined_in_subprocess([sys.executable, "-S"], PYTHONPATH=f"{bare}:{ROOT}")
    assert told["packages"]["state"] == "problem" and "pydantic" in told["packages"]["told"]
    assert told["decoders"]["state"] == told["gpu"]["state"] == "problem"
    assert told["endpoints"]["told"].startswith("cannot be checked as long as")
    assert told["endpoints"]["way"] == "`make install`"
    assert told["runs"]["state"] == "ok"


def test_a_decoder_that_cannot_be_loaded(home: Workspace, tmp_path: Path) -> None:
    (tmp_path / "gdcm.py").write_text("raise OSError('libgdcmMSFF.so.3: cannot open')\n")
    told = examined_in_subprocess([sys.executable], PYTHONPATH=str(tmp_path))
    assert told["decoders"]["told"].startswith("gdcm cannot be loaded")


def test_no_loopback_interface(home: Workspace) -> None:
    privileged("unshare", "-n", "true")
    told = examined_in_subprocess(["unshare", "-n", sys.executable])
    assert told["ports"]["told"].startswith("no endpoint can listen on 127.0.0.1")


def test_a_gpu_that_this_torch_cannot_use(home: Workspace, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "DRIVER", tmp_path / "version")
    assert found(home, "gpu").told == "none; training runs on the CPU"
    (tmp_path / "version").write_text("NVRM version: ...")
    check = found(home, "gpu")
    if shutil.which("nvidia-smi"):
        pytest.skip("this torch may well be able to")
    assert check.state == "warning" and "torch==" in check.way


def test_a_workspace_that_cannot_be_written(home: Workspace, small_disk: Path) -> None:
    full = Workspace(small_disk / "work")
    check = found(full, "disk")
    assert (check.state, check.told[:12]) == ("problem", "8.0 MiB free")
    assert found(full, "workspace").state == "ok"

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    check = found(full, "workspace")
    assert check.state == "problem" and "(Read-only file system)" in check.told
    assert "LIGHTBOX_HOME" in check.way


def test_a_file_where_the_workspace_would_be(home: Workspace) -> None:
    home.home.write_text("no folder")
    assert "(Not a directory)" in found(home, "workspace").told


def test_secrets_that_others_read_or_that_are_torn(home: Workspace) -> None:
    home.secret("pseudonym.key")
    (home.home / "secrets" / "set_aside").mkdir(mode=0o700)  # as ingestion makes it
    assert found(home, "secrets").state == "ok"
    key = home.home / "secrets" / "pseudonym.key"

    key.chmod(0o640)
    check = found(home, "secrets")
    assert check.state == "problem" and "other accounts may read pseudonym.key" in check.told
    subprocess.run(check.way, shell=True, check=True)
    assert found(home, "secrets").state == "ok"
    assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)

    if not os.geteuid():
        os.chown(key, 12345, -1)
        assert "another account owns pseudonym.key" in found(home, "secrets").told
        subprocess.run(found(home, "secrets").way, shell=True, check=True)

    Crosswalk(home.home / "secrets" / "crosswalk.sqlite", bytes(32)).close()
    assert found(home, "secrets").state == "ok"
    key.write_text(key.read_text()[:40])
    check = found(home, "secrets")
    assert check.state == "problem" and "backup" in check.way


def test_a_secret_in_a_file_that_the_environment_names(
    home: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    monkeypatch.setenv("LIGHTBOX_SECRET_PSEUDONYM_KEY_FILE", str(file))
    check = found(home, "secrets")
    assert check.state == "problem" and "PSEUDONYM_KEY_FILE: cannot be read" in check.told
    file.write_text("ab" * 32)
    file.chmod(0o600)
    assert found(home, "secrets").state == "ok"


def database(home: Workspace, version: str) -> Check:
    home.home.mkdir(exist_ok=True)
    with sqlite3.connect(home.home / "mlflow.db") as made:
        made.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT)")
        made.execute("DELETE FROM alembic_version")
        made.execute("INSERT INTO alembic_version VALUES (?)", (version,))
    return found(home, "tracking")


def test_the_tracking_database_is_of_this_mlflow(home: Workspace) -> None:
    from mlflow.store.db.utils import _get_latest_schema_revision

    assert found(home, "tracking").state == "ok"
    assert database(home, _get_latest_schema_revision()).state == "ok"
    older = database(home, "f5a4f2784254")
    assert older.state == "problem" and f"mlflow db upgrade {home.mlflow_uri}" in older.way
    assert "newer MLflow" in database(home, "0123456789ab").told
    (home.home / "mlflow.db").write_bytes(b"no database at all, but long enough to be one" * 9)
    assert found(home, "tracking").told == "mlflow.db cannot be read (DatabaseError)"


class Sick(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/ml/health" else 500)
        self.end_headers()

    def log_message(self, *of: object) -> None: ...


def test_a_tracking_server_is_asked_and_its_password_never_told(home: Workspace, monkeypatch):
    server = http.server.HTTPServer(("127.0.0.1", 0), Sick)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_port}/ml"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:geheim@{address}?token=geheim")
    assert found(home, "tracking") == Check(
        "tracking", "ok", f"http://{address} answers with status 200"
    )
    monkeypatch.setattr(Sick, "status", 503)
    assert found(home, "tracking").state == "problem"
    server.shutdown()
    server.server_close()
    checks = examine(home)
    gone = next(check for check in checks if check.name == "tracking")
    assert gone.told == f"http://{address} does not answer (ConnectionRefusedError)"
    assert not any("geheim" in text for c in checks for text in asdict(c).values())


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def note_endpoint(home: Workspace, pid: int) -> Path:
    folder = home.endpoint("toy")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").write_text("{}")
    note = {"host": "127.0.0.1", "port": 1, "pid": pid}
    (folder / "endpoint.json").write_text(json.dumps(note))
    return folder


def test_an_endpoint_that_was_killed(home: Workspace) -> None:
    for pid in (dead_pid(), os.getpid()):  # a number may be somebody else's by now
        folder = note_endpoint(home, pid)
        check = found(home, "endpoints")
        assert check.state == "warning" and check.told.startswith("toy crashed or was killed")
        assert "lightbox endpoint start toy" in check.way
        assert not (home.home / "secrets").exists()
    (folder / "endpoint.json").unlink()
    assert found(home, "endpoints").told == "none of 1 running"

    (folder / "state.json").unlink()
    endpoint = LocalEndpoint(home, "toy")
    try:
        endpoint.start()
        (folder / "state.json").write_text("{}")
        assert found(home, "endpoints") == Check("endpoints", "ok", "toy of 1 running")
    finally:
        endpoint.stop()


def test_an_interrupted_run_until_it_is_done_again(home: Workspace) -> None:
    run = Run("a", "lifecycle", "own.yaml", "", dead_pid(), now(), [])
    RunFolder(home.runs / "a").begin(run)
    check = found(home, "runs")
    assert (check.state, check.told) == ("warning", "interrupted: a")
    assert "lightbox run own.yaml" in check.way
    RunFolder(home.runs / "b").begin(replace(run, id="b", started_at=now(), outcome="done"))
    assert found(home, "runs").state == "ok"


def test_a_clock_that_was_set_back(home: Workspace) -> None:
    assert found(home, "clock").state == "ok"
    later = (datetime.now(UTC) + timedelta(hours=3)).isoformat(timespec="milliseconds")
    RunFolder(home.runs / "a").begin(Run("a", "lifecycle", "", "", 1, later, [], outcome="done"))
    assert "the clock was set back" in found(home, "clock").told


def test_what_a_killed_run_left_behind(home: Workspace) -> None:
    building = home.store / "building"
    (building / f"train-{os.getpid()}-abcdef").mkdir(parents=True)
    assert found(home, "store").state == "ok"
    left = building / f"ingest-{dead_pid()}-abcdef"
    left.mkdir()
    (left / "x").write_bytes(bytes(2**20))
    check = found(home, "store")
    assert check == Check(
        "store",
        "warning",
        "killed runs left 1 unfinished outputs, 1.0 MiB",
        "`lightbox gc --yes` removes them",
    )
