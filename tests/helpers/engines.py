"""One pipeline on each engine, and what came of it in one form.

Containers are started by the SDKs' own local runners on this machine's container engine. Nothing
here runs on a cluster or in a cloud.
"""

import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.runtime import as_text
from lineage.code import ROOT
from lineage.digest import tree_digest
from lineage.errors import BadInput
from lineage.record import read_record
from lineage.workspace import Workspace
from pipelines.backends import local
from pipelines.graph import Pipeline
from pipelines.runs import past_runs

HELPERS = Path(__file__).resolve().parent
IMAGE = "lightbox/conformance"
USER = 10001
# What an engine says of itself, and what says when.
ENGINE_FIELDS = {"made_at"}


@dataclass
class Ended:
    """What a run came to. Outputs are digests and records by `step.output`."""

    exit_code: int = 0
    failed: str | None = None  # the step, or the outcome of a Fail
    reason: str = ""
    steps: set[str] = field(default_factory=set)  # those that ran to their end
    values: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take_output(self, step: str, name: str, folder: Path) -> None:
        """Note what lies in an output directory."""
        self.outputs[f"{step}.{name}"] = tree_digest(folder)
        record = read_record(folder)
        self.records[f"{step}.{name}"] = {
            key: value for key, value in record.items() if key not in ENGINE_FIELDS
        }


# ---------------------------------------------------------------------------------- the containers


def engine_at_hand() -> str | None:
    """Why there is no container engine here, or None if there is one."""
    if subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        return None
    return "no container engine answers (DOCKER_HOST)"


@contextmanager
def container_engine(folder: Path) -> Iterator[None]:
    """A container engine: the one that answers, or Debian's own daemon, started here as root.

    Raises:
        RuntimeError: There is none and none can be started.
    """
    if engine_at_hand() is None:
        yield
        return
    if not shutil.which("dockerd") or os.geteuid() != 0:
        raise RuntimeError(engine_at_hand())
    address = f"unix://{folder}/docker.sock"
    flags = ["--data-root", folder / "root", "--exec-root", folder / "exec", "--pidfile"]
    command = ["dockerd", *flags, folder / "pid", "-H", address, "--log-level", "warn"]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = address
    try:
        for _ in range(600):
            if engine_at_hand() is None:
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"dockerd did not answer: {(folder / 'log').read_text()[-2000:]}")
        yield
    finally:
        daemon.terminate()
        daemon.wait(30)
        os.environ.pop("DOCKER_HOST")
        if before:
            os.environ["DOCKER_HOST"] = before


def mounts() -> dict[str, str]:
    """What a container sees of this machine, read-only: its Python, the environment, the project.

    Heavy layers need not be built so, and what is tested is the code as it lies here.
    """
    places = {"/usr", sys.base_prefix, sys.prefix, str(ROOT)}
    return {place: place for place in sorted(places)}


def build_image() -> str:
    """An image without layers of its own; its id, which pins it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for link in ("bin", "lib", "lib64", "sbin"):
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{link}"
            tar.addfile(entry)
        for folder in ("usr", "tmp", "proc", "sys", "dev", "etc", "opt/ml", "lightbox"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(entry)
        names = f"root:x:0:0::/tmp:/bin/sh\nlightbox:x:{USER}:{USER}::/tmp:/bin/sh\n".encode()
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(names)
        tar.addfile(entry, io.BytesIO(names))
    changes = [
        f"ENV PATH={sys.prefix}/bin:/usr/bin:/bin",
        f"ENV PYTHONPATH={ROOT}:{HELPERS}",
        "ENV PYTHONDONTWRITEBYTECODE=1 HOME=/tmp LIGHTBOX_HOME=/tmp/lightbox",
        'ENTRYPOINT ["python", "-m", "components"]',
    ]
    command = ["docker", "import"]
    for change in changes:
        command += ["-c", change]
    done = subprocess.run([*command, "-", IMAGE], input=packed.getvalue(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def free_port(host: str) -> int:
    """A port on which nobody listens there just now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


# ----------------------------------------------------------------------------------------- targets


def run_locally(pipeline: Pipeline, sources: Mapping[str, Path], home: Path) -> Ended:
    """The embedded default, as the command would end it."""
    place, code = Workspace(home), None
    try:
        local.run(pipeline, place, lambda source: sources[source.name])
    except BadInput:
        code = 2
    except Exception:  # a step that breaks, which the command ends with 1 as well
        code = 1
    run = past_runs(place)[0]
    ended = Ended(exit_code=run.exit_code if code is None else code, reason=run.reason)
    if ended.exit_code:
        failed = [state.name for state in run.steps if state.state == "failed"]
        ended.failed = failed[0] if failed else run.outcome
    for state in run.steps:
        if state.state in ("ran", "reused"):
            ended.steps.add(state.name)
            ended.values |= {f"{state.name}.{n}": as_text(v) for n, v in state.values.items()}
            for name, content in state.outputs.items():
                ended.take_output(state.name, name, place.store / "objects" / content)
    return ended
