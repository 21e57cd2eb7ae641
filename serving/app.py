"""The endpoint: a small HTTP server that answers with the digest of the model that answered.

    GET    /ping             200 if a variant is loaded, 503 if none (SageMaker's rule); no token
    POST   /invocations      one image in, one score out; Content-Type says which kind of image
    GET    /state            variants, shares, counts
    PUT    /variants/{name}  load a model, digest checked, and give it a share
    PUT    /models/{digest}  send a model, a tar of its folder, from where there is no shared disk
    PUT    /shares           set all shares at once
    DELETE /variants/{name}  unload a variant that gets no traffic
    POST   /stop             end the process

Every answered request is captured first (`capture`); one that cannot be is refused. Requests
turned away at the door (401, 413, 415) reach no model and are not captured.
"""

import argparse
import asyncio
import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import shutil
import socket
import tarfile
import threading
import time
import uuid
import warnings
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from imaging.reading import dicom, pixels
from imaging.reading.acquisition import acquisition
from imaging.reading.pixels import DICOM, JPEG, PNG
from imaging.statistics import image_statistics
from lineage import telemetry
from lineage.digest import tree_digest
from lineage.errors import BadInput, StepFailed
from lineage.workspace import Workspace
from serving.capture import Capture, Record
from serving.config import TOKEN
from serving.predictor import Predictor
from serving.target import Tag

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI, Request

MAX_BODY_BYTES = 128 * 2**20  # a mammogram has 64 MiB
MAX_SETTINGS_BYTES = 2**16
MAX_MODEL_BYTES = 4 * 2**30
MODEL_TIMEOUT_S = 600.0
BODY_TIMEOUT_S = 60.0
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_ROUNDING = 1e-6

T = TypeVar("T")

log = logging.getLogger("lightbox.endpoint")


class Refused(Exception):
    """A request is answered with an HTTP status and a sentence, which holds no tag value."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Wanted(BaseModel):
    """Body of PUT /variants/{name}."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: Path
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    version: str = Field(min_length=1, max_length=64)
    share: float = Field(ge=0, le=1, allow_inf_nan=False)


@dataclass(frozen=True)
class Loaded:
    """A variant in memory."""

    name: str
    wanted: Wanted
    predictor: Predictor


@dataclass(frozen=True)
class Reply:
    """What one invocation comes to."""

    status: int
    body: dict[str, Any]
    variant: Loaded


class Service:
    """The variants, their shares and counts; knows nothing of HTTP. Safe to use from threads."""

    def __init__(self, folder: Path, capture: Callable[[Record], None] | None = None) -> None:
        self._saved, self._models = folder / "state.json", folder / "models"
        self._capture = capture or Capture(folder / "captured").write
        self._changing = threading.Lock()
        self._table: tuple[Loaded, ...] = ()  # replaced whole, so that a reader needs no lock
        self._counting = threading.Lock()
        self._counts: dict[str, tuple[int, int]] = {}  # requests, errors

    def restore(self) -> None:
        """Load what was served before this process; all of it, or nothing if any part is amiss."""
        for draft in self._models.glob(".*"):  # of uploads that were cut off by a kill
            shutil.rmtree(draft, ignore_errors=True)
        if not self._saved.exists():
            return
        try:
            saved = json.loads(self._saved.read_bytes())
            self._table = tuple(_load(name, Wanted(**wanted)) for name, wanted in saved.items())
        except Exception as error:
            # Half of a split would get all of the traffic: better none, and a fresh deployment.
            log.error("the last variants cannot be restored (%s)", type(error).__name__)

    def ready(self) -> bool:
        """True if there is a model to answer with."""
        return bool(self._table)

    def state(self) -> dict[str, Any]:
        """Everything that `/state` tells."""
        variants = []
        for each in self._table:
            requests, errors = self._counts.get(each.name, (0, 0))
            wanted = each.wanted
            variants.append(
                {"name": each.name, "version": wanted.version, "digest": each.predictor.digest}
                | {"share": wanted.share, "requests": requests, "errors": errors}
            )
        return {"pid": os.getpid(), "variants": variants}

    def put(self, name: str, wanted: Wanted) -> None:
        """Load a variant; the others' shares shrink or grow in proportion to fill the rest."""
        if not _NAME.fullmatch(name):
            raise Refused(422, "a variant's name is made of a-z, 0-9, dots and dashes")
        with self._changing:
            loaded = next(
                (v for v in self._table if v.name == name and v.predictor.digest == wanted.digest),
                None,
            ) or _load(name, wanted)
            others = [v for v in self._table if v.name != name]
            rest = sum(v.wanted.share for v in others)
            if not others and wanted.share != 1:
                raise Refused(409, "the only variant takes all of the traffic: share must be 1")
            if others and wanted.share < 1 and not rest:
                raise Refused(409, "no other variant has a share to fill the rest with")
            scale = (1 - wanted.share) / rest if rest else 0.0
            rescaled = [_sharing(v, v.wanted.share * scale) for v in others]
            self._replace([*rescaled, replace(loaded, wanted=wanted)])

    def draft(self) -> Path:
        """A place for a model that is being received."""
        self._models.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Path(mkdtemp(prefix=".", dir=self._models))

    def keep(self, digest: str, draft: Path) -> Path:
        """Unpack `model.tar` in `draft` and keep what it holds, if it has that digest."""
        place, unpacked = self._models / digest, draft / "model"
        if not place.exists():
            try:
                with tarfile.open(draft / "model.tar") as tar:
                    # What it unpacks to: a sparse file is small on its way.
                    if sum(member.size for member in tar) > MAX_MODEL_BYTES:
                        raise Refused(413, f"a model may have {MAX_MODEL_BYTES} bytes")
                    tar.extractall(unpacked, filter="data")
            except (tarfile.TarError, OSError) as error:
                raise Refused(422, f"that is no tar of a model ({type(error).__name__})") from None
            if tree_digest(unpacked) != digest:
                raise Refused(422, "the files that came are not of that digest; nothing was kept")
            with suppress(OSError):  # another request has just put the same one there
                unpacked.rename(place)
        return place

    def shift(self, shares: Mapping[str, float]) -> None:
        """Set all shares at once."""
        with self._changing:
            names = [v.name for v in self._table]
            if set(shares) != set(names):
                raise Refused(409, f"shares must name each of {sorted(names)}, and no other")
            # Written so that NaN, which compares False with everything, is refused too.
            if not (min(shares.values()) >= 0 and abs(sum(shares.values()) - 1) <= _ROUNDING):
                raise Refused(409, "shares must be 0 or more and sum to 1")
            total = sum(shares.values())  # a share above 1 could not be restored
            self._replace([_sharing(v, shares[v.name] / total) for v in self._table])

    def remove(self, name: str) -> None:
        """Unload a variant; nothing happens if there is none of that name."""
        with self._changing:
            kept = [v for v in self._table if v.name != name]
            gone = [v for v in self._table if v.name == name]
            if kept and gone and gone[0].wanted.share > _ROUNDING:
                raise Refused(409, f"{name} still gets traffic; set its share to 0 first")
            self._replace(kept)

    def _replace(self, table: list[Loaded]) -> None:
        saved = {v.name: v.wanted.model_dump(mode="json") for v in table}
        write_atomically(self._saved, json.dumps(saved, indent=2))
        self._table = tuple(sorted(table, key=lambda v: v.name))

    def answer(self, data: bytes, media_type: str, request_id: str | None, tag: Tag) -> Reply:
        """Score one image and capture the request.

        The variant follows from the request id, or, without one, from the image, so that the
        same image sent again meets the same model.
        """
        began = time.perf_counter()
        table = self._table
        if not table:
            raise Refused(503, "no model is loaded")
        variant = _route(table, request_id or hashlib.sha256(data).hexdigest())
        model, identity = variant.predictor, request_id or str(uuid.uuid4())
        status, score, error, sentence = 200, None, None, ""
        statistics: dict[str, float] = {}
        header: dict[str, Any] = {}
        try:
            image, header = _read(data, media_type)
            statistics = image_statistics(image)
            score = model.predict(image)
        except BadInput as refusal:
            status, error, sentence = 400, "bad_input", str(refusal)
        except Exception as failure:
            # The name only: what a library writes into its message may quote the image's header.
            kind = type(failure).__name__
            status, error, sentence = 500, f"failed:{kind}", f"the model failed with {kind}"
        latency_ms = (time.perf_counter() - began) * 1000
        with self._counting:
            requests, errors = self._counts.get(variant.name, (0, 0))
            self._counts[variant.name] = (requests + 1, errors + (error is not None))
        try:
            self._capture(
                Record(
                    identity,
                    variant.name,
                    model.digest,
                    score,
                    latency_ms,
                    error,
                    tag,
                    statistics,
                    header,
                )
            )
        except OSError:
            status, error, sentence = 503, "not_captured", "the request could not be recorded"
        told: dict[str, Any] = {"request_id": identity, "variant": variant.name}
        told |= {"model_digest": model.digest, "latency_ms": latency_ms}
        if error is not None or score is None:
            return Reply(status, {**told, "error": error, "sentence": sentence}, variant)
        label = model.classes[score >= model.threshold]
        return Reply(
            200, {**told, "score": score, "label": label, "threshold": model.threshold}, variant
        )


def _load(name: str, wanted: Wanted) -> Loaded:
    predictor = Predictor.load(wanted.directory, wanted.digest)
    # The first run allocates and is slow. The image may not suit the model, which says nothing.
    with suppress(BadInput):
        predictor.predict(np.tile(np.linspace(0, 1, 256, dtype=np.float32), (256, 1)))
    return Loaded(name, wanted, predictor)


def _sharing(variant: Loaded, share: float) -> Loaded:
    return replace(variant, wanted=variant.wanted.model_copy(update={"share": share}))


def _route(table: tuple[Loaded, ...], key: str) -> Loaded:
    """Pick by hash: as a share grows, who met that variant before meets it again."""
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
    for variant in table:
        place -= variant.wanted.share
        if place < 0:
            return variant
    return max(table, key=lambda v: v.wanted.share)  # shares sum to 1 but for rounding


def _read(data: bytes, media_type: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Pixels as `pixels.decode` gives them, and what the header says of the acquisition."""
    if media_type != DICOM:
        stored = pixels.stored_picture(data)
        rows, columns = stored.shape
        facts = {"rows": rows, "columns": columns, "bits_stored": 8 * stored.itemsize}
        return pixels.scale_picture(stored), facts
    dataset = dicom.parse(data)
    image = dicom.as_seen(dataset, dicom.one_grey_frame(dataset))
    return image, {**acquisition(dataset), "rows": image.shape[0], "columns": image.shape[1]}


def guard_decoders() -> None:
    """Keep out what one image could end the server with, and what could quote an image in the log.

    GDCM aborts its process on a few files. Without it JPEG Lossless (process 14) is refused here as
    an unsupported transfer syntax; everything else has another decoder.
    """
    import pydicom
    from pydicom.pixels import get_decoder

    for syntax in pydicom.uid.AllTransferSyntaxes:
        with suppress(NotImplementedError, ValueError):
            get_decoder(syntax).remove_plugin("gdcm")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    # A filter, because importing pydicom resets its level, and uvicorn re-enables what is disabled.
    logging.getLogger("pydicom").addFilter(lambda record: False)
    warnings.simplefilter("ignore")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one go; readable by its owner only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def create_app(service: Service, stop: Callable[[], None] | None) -> "FastAPI":
    """Translate HTTP to `service`; who may ask at all is `Door`'s business.

    Without `stop`, `/ping` and `/invocations` are all there is: nobody manages this one by HTTP.
    """
    from anyio import CapacityLimiter, to_thread
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import JSONResponse

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # As many images in memory and at work as there are processors; the rest wait their turn.
    scoring, changing = CapacityLimiter(os.cpu_count() or 1), CapacityLimiter(1)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return JSONResponse({"sentence": str(error)}, error.status)

    @app.exception_handler(BadInput)
    @app.exception_handler(StepFailed)
    async def unusable(_: Request, error: Exception) -> Response:
        return JSONResponse({"sentence": str(error)}, 422)

    @app.get("/ping")
    async def ping() -> Response:
        return Response(status_code=200 if service.ready() else 503)

    @app.post("/invocations")
    async def invocations(request: Request) -> Response:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in (DICOM, PNG, JPEG):
            raise Refused(415, f"Content-Type must be {DICOM}, {PNG} or {JPEG}")
        request_id, tag = _request_id(request), _tag(request)
        data = await _body(request)
        reply = await to_thread.run_sync(
            service.answer, data, media_type, request_id, tag, limiter=scoring
        )
        headers = {
            "X-Model-Digest": reply.variant.predictor.digest,
            "X-Variant": reply.variant.name,
        }
        return JSONResponse(reply.body, reply.status, headers)

    if stop is None:
        return app

    @app.get("/state")
    async def state() -> dict[str, Any]:
        return service.state()

    @app.put("/variants/{name}")
    async def put(name: str, request: Request) -> dict[str, Any]:
        wanted = await _settings(request, TypeAdapter(Wanted))
        await to_thread.run_sync(service.put, name, wanted, limiter=changing)
        return service.state()

    @app.put("/models/{digest}")
    async def receive(digest: str, request: Request) -> dict[str, Any]:
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise Refused(422, "a model's digest has 64 hex digits")
        draft = service.draft()
        try:
            await _save(request, draft / "model.tar")
            place = await to_thread.run_sync(service.keep, digest, draft, limiter=changing)
        finally:
            shutil.rmtree(draft)
        return {"directory": str(place)}

    @app.put("/shares")
    async def shift(request: Request) -> dict[str, Any]:
        shares = await _settings(request, TypeAdapter(dict[str, float]))
        await to_thread.run_sync(service.shift, shares, limiter=changing)
        return service.state()

    @app.delete("/variants/{name}")
    async def remove(name: str) -> dict[str, Any]:
        await to_thread.run_sync(service.remove, name, limiter=changing)
        return service.state()

    @app.post("/stop")
    async def end() -> dict[str, Any]:
        stop()
        return service.state()

    return app


def _request_id(request: "Request") -> str | None:
    text = request.headers.get("x-request-id")
    if text is None:
        return None
    try:
        # A UUID and nothing else: an accession number must not reach the captured lines.
        return str(uuid.UUID(text))
    except ValueError:
        raise Refused(400, "X-Request-Id must be a UUID") from None


def _tag(request: "Request") -> Tag:
    text = request.headers.get("x-lightbox-tag", "live")
    for tag in get_args(Tag):
        if text == tag:
            return tag  # type: ignore[no-any-return]
    raise Refused(400, "X-Lightbox-Tag must be live or replay")


async def _settings(request: "Request", kind: TypeAdapter[T]) -> T:
    """A body of a few names and numbers; the answer to a wrong one repeats nothing of it."""
    data = await _body(request, MAX_SETTINGS_BYTES)
    try:
        return kind.validate_json(data)
    except ValidationError as error:
        told = (f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in error.errors())
        raise Refused(422, "; ".join(told)) from None


async def _body(request: "Request", most: int = MAX_BODY_BYTES) -> bytes:
    too_large = Refused(413, f"the body may have {most} bytes")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise Refused(408, "the body came too slowly") from None
    return bytes(body)


async def _save(request: "Request", path: Path) -> None:
    """A body that may be too large for memory."""
    size = 0
    try:
        async with asyncio.timeout(MODEL_TIMEOUT_S):
            with path.open("wb") as file:
                async for chunk in request.stream():
                    size += file.write(chunk)
                    if size > MAX_MODEL_BYTES:
                        raise Refused(413, f"a model may have {MAX_MODEL_BYTES} bytes")
    except TimeoutError:
        raise Refused(408, "the body came too slowly") from None


class Door:
    """Lets `/ping` and bearers of the token in, and keeps what goes wrong inside out of the log.

    Without a token everybody comes in: only where a platform has asked who it is before.
    """

    def __init__(self, app: Any, token: str | None) -> None:
        self._app = app
        self._expected = None if token is None else f"Bearer {token}".encode()
        self.last_used = time.monotonic()

    async def __call__(
        self, scope: dict[str, Any], receive: Any, send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """ASGI."""
        if self._expected is not None and scope["type"] == "http" and scope["path"] != "/ping":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                await send(
                    {
                        "type": "http.response.start",
                        "status": 401,
                        "headers": [(b"www-authenticate", b"Bearer"), (b"content-length", b"0")],
                    }
                )
                await send({"type": "http.response.body", "body": b""})
                return
            self.last_used = time.monotonic()
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # answered with 500 already; a traceback could quote a request
            log.error("a request ended with %s", type(error).__name__)


def http_server(door: Door) -> "uvicorn.Server":
    """The server around it, which is the same wherever it serves."""
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            door,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=64,
            timeout_graceful_shutdown=10,
            timeout_keep_alive=75,  # longer than a client keeps a connection: it closes first
            lifespan="off",
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 is any that is free."""
    # Named as TCP, or asyncio does not turn Nagle's algorithm off and each answer waits 40 ms.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind((host, port))
    return bound


def serve(home: Path, model: str, idle_minutes: float, host: str, number: int) -> None:
    """Serve until stopped or idle. Another server of the same model ends this one at once."""
    place = Workspace(home.absolute())
    folder = place.endpoint(model)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = (folder / "server.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit("another endpoint serves this model") from None

    service = Service(folder)
    service.restore()
    door = Door(
        create_app(service, lambda: setattr(server, "should_exit", True)), place.secret(TOKEN).hex()
    )
    server = http_server(door)
    port = listen(host, number)
    asyncio.run(_run(server, port, door, folder / "endpoint.json", idle_minutes * 60))
    lock.close()


async def _run(server: Any, port: socket.socket, door: Door, note: Path, idle_s: float) -> None:
    serving = asyncio.create_task(server.serve(sockets=[port]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    host, number = port.getsockname()
    write_atomically(note, json.dumps({"host": host, "port": number, "pid": os.getpid()}))
    try:
        while not serving.done():
            await asyncio.wait([serving], timeout=min(1.0, idle_s))
            if time.monotonic() - door.last_used > idle_s:
                log.warning("idle for %.0f s: ending", idle_s)
                server.should_exit = True
        await serving
    finally:
        note.unlink(missing_ok=True)


def main() -> None:
    """`python -m serving.app --home DIR --model NAME`"""
    parser = argparse.ArgumentParser(prog="python -m serving.app")
    parser.add_argument("--home", type=Path, required=True, help="the workspace")
    parser.add_argument("--model", required=True, help="the registered model's name")
    parser.add_argument("--idle-minutes", type=float, default=30.0, help="inf: never end")
    parser.add_argument("--host", default="127.0.0.1", help="another one opens it to a network")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    args = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s", level=logging.WARNING)
    telemetry.off()
    guard_decoders()
    serve(args.home, args.model, args.idle_minutes, args.host, args.port)


if __name__ == "__main__":
    main()
