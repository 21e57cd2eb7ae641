"""The endpoint on this machine: start it, find it, talk to it, stop it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineage.errors import BadInput, StepFailed
from lineage.progress import Report
from lineage.workspace import Workspace
from serving.config import TOKEN
from serving.target import Answer, Tag, Variant

if TYPE_CHECKING:
    import httpx

_LOAD_TIMEOUT_S = 300.0  # a model's first load imports the preprocessing library
_STOP_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Address:
    """Where a living endpoint listens."""

    host: str
    port: int
    pid: int


@dataclass(frozen=True)
class LocalEndpoint:
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
            self._ask("POST", "/stop")
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

    def deploy(
        self, variant: str, directory: Path, digest: str, version: str, share: float
    ) -> None:
        """Load a model; see `Target`.

        Raises:
            StepFailed: The endpoint refuses it, with its reason, or does not answer.
        """
        wanted = {"directory": str(directory), "digest": digest, "version": version, "share": share}
        self._ask("PUT", f"/variants/{variant}", wanted)

    def shift(self, shares: Mapping[str, float]) -> None:
        """Set all shares; see `Target`."""
        self._ask("PUT", "/shares", dict(shares))

    def remove(self, variant: str) -> None:
        """Unload a variant; see `Target`."""
        self._ask("DELETE", f"/variants/{variant}")

    def state(self) -> tuple[Variant, ...]:
        """What is loaded; see `Target`."""
        return tuple(Variant(**each) for each in self._ask("GET", "/state")["variants"])

    def invoke(
        self, data: bytes, media_type: str, tag: Tag = "live", request_id: str | None = None
    ) -> Answer:
        """Ask for one prediction; see `Target`."""
        import httpx

        headers = {"Content-Type": media_type, "X-Lightbox-Tag": tag}
        if request_id:
            headers["X-Request-Id"] = request_id
        began = time.perf_counter()
        try:
            response = self._client().post("/invocations", content=data, headers=headers)
            told = response.json()
        except httpx.TimeoutException:
            return _lost("timeout", began)
        except (httpx.HTTPError, ValueError):
            return _lost("no answer", began)
        error = None if response.status_code == 200 else str(response.status_code)
        return Answer(
            variant=told.get("variant"),
            digest=response.headers.get("X-Model-Digest"),
            score=told.get("score"),
            flagged=told["score"] >= told["threshold"] if error is None else None,
            latency_ms=told.get("latency_ms", (time.perf_counter() - began) * 1000),
            error=error,
            label=told.get("label"),
            sentence=told.get("sentence", ""),
        )

    @cached_property
    def _token(self) -> str:
        return self.place.secret(TOKEN).hex()

    def _client(self) -> "httpx.Client":
        """One client for all requests to one address, so that connections are kept."""
        import httpx

        client: httpx.Client | None = self._kept.get("client")
        if client is None:
            address = self.start()
            client = self._kept["client"] = httpx.Client(
                base_url=f"http://{address.host}:{address.port}",
                headers={"Authorization": f"Bearer {self._token}"},
                timeout=self.timeout_s,
                trust_env=False,  # no proxy stands between this machine and itself
            )
        return client

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        import httpx

        for attempt in (1, 2):  # each of these verbs does the same when sent twice
            try:
                response = self._client().request(method, path, json=body, timeout=_LOAD_TIMEOUT_S)
                break
            except httpx.TransportError as error:
                self._kept.clear()  # it ended, or came back at another port, since we last spoke
                if attempt == 2 or isinstance(error, httpx.TimeoutException):
                    kind = type(error).__name__
                    raise StepFailed(f"the endpoint does not answer ({kind})") from None
        if not response.is_success:
            try:
                sentence = response.json()["sentence"]
            except (ValueError, KeyError, TypeError):
                sentence = "it does not say why"
            raise StepFailed(f"the endpoint refused ({response.status_code}): {sentence}")
        told: dict[str, Any] = response.json()
        return told

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


def _lost(kind: str, began: float) -> Answer:
    return Answer(None, None, None, None, (time.perf_counter() - began) * 1000, kind)


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
