"""The endpoint on this machine: start it, find it, talk to it, stop it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lineage.errors import BadInput, StepFailed
from lineage.progress import Report
from lineage.workspace import Workspace
from serving.config import TOKEN
from serving.verbs import Verbs

_STOP_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Address:
    """Where a living endpoint listens."""

    host: str
    port: int
    pid: int


@dataclass(frozen=True)
class LocalEndpoint(Verbs):
    """The endpoint of one registered model; a `Target` for canaries.

    It is started at the first need. If it ends later, only the verbs that manage variants start it
    again: a crash must show as failed requests.

    Attributes:
        place: The workspace.
        model: The registered model's name; two models never share an endpoint.
        timeout_s: Bounds each prediction.
        idle_minutes: A started endpoint ends by itself after that long without a request.
        startup_timeout_s: How long to wait for it; loading the models is part of it.
        report: Told while waiting (seconds, of how many, note).
    """

    place: Workspace
    model: str
    timeout_s: float = 30.0
    idle_minutes: float = 30.0
    startup_timeout_s: float = 120.0
    report: Report | None = None
    _kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """Where its address, state, log and captured traffic lie."""
        return self.place.endpoint(self.model)

    def status(self) -> Address | None:
        """Where it listens; None if it does not.

        Believes the note only if the process named there answers to our token and says the same
        process number: after a crash or a reboot that number may be anybody's.
        """
        try:
            noted = json.loads((self.folder / "endpoint.json").read_bytes())
            address = Address(noted["host"], int(noted["port"]), int(noted["pid"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        if not _alive(address.pid):
            return None
        told = quick_state(address, self._token)
        return address if told and told.get("pid") == address.pid else None

    def served(self) -> dict[str, float] | None:
        """Share by model digest, quickly and without starting anything; None if it does not run."""
        address = self.status()
        told = address and quick_state(address, self._token)
        return {v["digest"]: v["share"] for v in told["variants"]} if told else None

    def start(self) -> Address:
        """Start it unless it runs; it comes back with the variants and shares that it last had.

        The process is detached: it outlives this one, and logs to `server.log` in its folder.

        Raises:
            StepFailed: It did not come up in time.
        """
        if address := self.status():
            return address  # nothing is started, so nothing is locked: a reader may not write here
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._starting():
            if address := self.status():
                return address
            command = [sys.executable, "-m", "serving.app", "--home", str(self.place.home)]
            command += ["--model", self.model]
            with (self.folder / "server.log").open("ab") as log:
                process = subprocess.Popen(
                    [*command, "--idle-minutes", str(self.idle_minutes)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            began = time.monotonic()
            limit = self.startup_timeout_s
            while (waited := time.monotonic() - began) < limit and process.poll() is None:
                if address := self.status():
                    return address
                if self.report:
                    self.report(round(waited), round(limit), "the endpoint starts")
                time.sleep(0.05)
            if process.poll() is None:
                process.kill()
                process.wait()
            raise StepFailed("the endpoint did not start; server.log in its folder may say why")

    def stop(self) -> bool:
        """End it; True if there was one.

        Asks first. A process that no longer answers is ended by signals, but only if its command
        line says that it is the endpoint of this very model.
        """
        try:
            pid = int(json.loads((self.folder / "endpoint.json").read_bytes())["pid"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False
        if self.status():
            self.ask("POST", "/stop")
            self._kept.clear()
            if _gone(pid, _STOP_TIMEOUT_S):
                return True
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self._ours(pid):
                break
            os.kill(pid, number)
            if _gone(pid, _STOP_TIMEOUT_S):
                return True
        (self.folder / "endpoint.json").unlink(missing_ok=True)
        return False

    def bearer(self) -> str:
        """The workspace's own."""
        return self._token

    @cached_property
    def _token(self) -> str:
        return self.place.secret(TOKEN).hex()

    def base_url(self) -> str:
        """Where it listens; started if it does not run."""
        address = self.start()
        return f"http://{address.host}:{address.port}"

    def _ours(self, pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        except (OSError, UnicodeDecodeError):
            return False
        return {"serving.app", str(self.place.home), self.model} <= set(words)

    @contextmanager
    def _starting(self) -> Iterator[None]:
        with (self.folder / "start.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # freed when the file closes, also by a kill
            yield


def endpoints(place: Workspace, model: str | None = None) -> list[LocalEndpoint]:
    """The endpoints that this workspace has had, or the one of a registered model.

    Raises:
        BadInput: No model of that name was ever in service here.
    """
    folders = sorted(place.endpoint("x").parent.glob("*/state.json"))
    names = [folder.parent.name for folder in folders]
    if model is not None and model not in names:
        known = f"those with an endpoint: {', '.join(names)}" if names else "none has an endpoint"
        raise BadInput(f"{model!r} was never in service here; {known}")
    return [LocalEndpoint(place, name) for name in names if model in (None, name)]


def quick_state(address: Address, token: str, timeout_s: float = 5.0) -> dict[str, Any] | None:
    """Ask `/state` with the standard library only, for receipts; None if nobody of ours answers."""
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(address.host, address.port, timeout=timeout_s)
    try:
        connection.request("GET", "/state", headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        told = json.loads(response.read()) if response.status == 200 else None
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return told if isinstance(told, dict) else None


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # a child of ours that ended and that nobody asked about yet


def _gone(pid: int, timeout_s: float) -> bool:
    until = time.monotonic() + timeout_s
    while _alive(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
