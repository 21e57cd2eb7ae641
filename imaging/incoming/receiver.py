"""A DICOM listener: takes what others send (C-STORE, PS3.4 annex B) and answers C-ECHO.

Success is answered when the bytes are on the disk under their final name, so whoever has that
answer may delete its own copy. Who sends is not believed: sizes are bounded, and nothing of a data
set is read but the two UIDs that say what it is.
"""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import ssl
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from tempfile import mkstemp
from threading import Lock
from types import TracebackType
from typing import Any

from imaging.incoming.mirror import state_beside
from lineage.errors import BadInput

SUCCESS, OUT_OF_RESOURCES, MISMATCH, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000  # PS3.4 B.2.3
HEAD_BYTES = 2**20  # of a data set, in which its UIDs must stand
LONGEST_ASSOCIATE_BYTES = 2**20  # a request for 128 contexts with 50 transfer syntaxes takes half
LONGEST_GREETING_S = 10.0
GRACE_S = 60.0  # for the objects in flight when the listener is told to end


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Where to listen, to whom, and how much of it to bear.

    Attributes:
        host: Loopback, if nobody says otherwise.
        port: 0 takes a free one.
        ae_title: Ours.
        allowed: AE titles that may call; empty: all. Anyone can claim one, so this keeps out
            mistakes, and certificates keep out people.
        require_called: Refuse who calls another AE title than ours.
        max_pdu_bytes: Of one protocol data unit.
        max_object_mib: Of one data set; memory holds one for each association.
        max_associations: At once.
        timeout_s: Of silence, then an association is ended.
        tls: Demanded of all who call, if given.
    """

    host: str = "127.0.0.1"
    port: int = 11112
    ae_title: str = "LIGHTBOX"
    allowed: tuple[str, ...] = ()
    require_called: bool = False
    max_pdu_bytes: int = 2**17
    max_object_mib: int = 512
    max_associations: int = 8
    timeout_s: float = 60.0
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True)
class Received:
    """What became of one data set; nothing here says whose it is."""

    status: int  # as answered; 0 is success
    size_bytes: int
    known: bool = False  # the same bytes were here before
    why: str = ""

    @property
    def outcome(self) -> str:
        """`stored`, `known` or `refused`."""
        return "refused" if self.status else "known" if self.known else "stored"


class Receiver:
    """Listens while it is entered; what is in flight when it is left comes to its end."""

    def __init__(
        self, folder: Path, listener: Listener, hear: Callable[[Received], None] = lambda _: None
    ) -> None:
        self.folder, self.listener, self._tell = folder.absolute(), listener, hear
        self._incoming = state_beside(folder, "receiving")  # so that all in `folder` are scans
        self._unhandled: Counter[Any] = Counter()  # bytes, by association
        self._busy: set[Any] = set()  # associations with an object in flight
        self._associated: set[Any] = set()
        self.turned_away = 0  # callers who got no association: certificate, AE title, or no DICOM
        self._heard = time.monotonic()
        self._stopping, self._lock, self._telling = False, Lock(), Lock()
        self._server: Any = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def idle_s(self) -> float:
        """For how long nobody has said anything; 0 while somebody is connected."""
        return 0.0 if self._server.active_associations else time.monotonic() - self._heard

    def __enter__(self) -> "Receiver":
        from pynetdicom import _config

        # Its logs quote AE titles and data sets.
        _config.LOG_HANDLER_LEVEL = "none"
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
        self._lock_file = self._locked_folder()
        try:
            self._clear_incoming()
            self._server = self._started()
        except BaseException:
            self._leave()
            raise
        return self

    def _started(self) -> Any:
        """The server, which takes calls from now on."""
        from pynetdicom import AE, AllStoragePresentationContexts, evt

        given = self.listener
        try:
            entity = AE(given.ae_title)
            entity.require_calling_aet = list(given.allowed)
        except ValueError as error:
            raise BadInput(f"an AE title has 1 to 16 letters, digits or signs: {error}") from None
        entity.require_called_aet = given.require_called
        entity.maximum_associations = given.max_associations
        entity.maximum_pdu_size = given.max_pdu_bytes
        entity.dimse_timeout = entity.network_timeout = given.timeout_s
        # Who connects and says nothing has a place that others may wait for.
        entity.acse_timeout = min(given.timeout_s, LONGEST_GREETING_S)
        syntaxes = readable_syntaxes()
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax, syntaxes)
        entity.add_supported_context("1.2.840.10008.1.1")  # Verification: C-ECHO
        handlers = [
            (evt.EVT_CONN_OPEN, self._bound),
            (evt.EVT_ESTABLISHED, self._associate),
            (evt.EVT_PDU_RECV, self._count),
            (evt.EVT_PDU_SENT, self._answered),
            (evt.EVT_CONN_CLOSE, self._forget),
            (evt.EVT_C_STORE, self._store),
        ]
        try:
            return entity.start_server(
                (given.host, given.port),
                block=False,
                evt_handlers=handlers,
                ssl_context=given.tls,
            )
        except OSError as error:
            raise BadInput(f"{given.host}:{given.port}: {error.strerror}; name another") from None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()  # nobody new
        self._stopping = True
        until = time.monotonic() + GRACE_S
        while True:
            waiting = self._server.active_associations
            busy = [association for association in waiting if association in self._busy]
            for association in waiting:
                if association not in busy or time.monotonic() > until:
                    _end(association)
            if not busy or time.monotonic() > until:
                break
            time.sleep(0.05)
        self._leave()

    def _leave(self) -> None:
        shutil.rmtree(self._incoming, ignore_errors=True)
        os.close(self._lock_file)

    def _hear(self, received: Received) -> None:
        with self._telling:  # associations are threads
            self._tell(received)

    def _locked_folder(self) -> int:
        """Two listeners would take what is in flight at the other for leftovers of a kill."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(self.folder, os.W_OK | os.X_OK):  # every scan would be refused
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            lock_file = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise self._unwritable(error) from None
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock_file)
                raise BadInput(
                    f"{self.folder}: another process fills it; end that one first, or name another"
                ) from None
        return lock_file

    def _clear_incoming(self) -> None:
        try:
            self._incoming.mkdir(exist_ok=True, mode=0o700)
            for left in self._incoming.iterdir():  # by a kill; its sender knows of no success
                left.unlink()
        except OSError as error:
            raise self._unwritable(error) from None
        if self.folder.stat().st_dev != self._incoming.stat().st_dev:
            raise BadInput(f"{self.folder} is a disk of its own; name a folder in it instead")

    def _unwritable(self, error: OSError) -> BadInput:
        return BadInput(f"{self.folder}: {error.strerror}; name a folder to write to")

    # --- how much a sender may ask for -----------------------------------------------------------

    def _bound(self, event: Any) -> None:
        """Read no more of a connection at once than was agreed on, and wait no longer for it.

        pynetdicom believes a unit that announces 4 GiB, and waits for the rest of one for ever.
        """
        connection, most = event.assoc.dul.socket, self.listener.max_pdu_bytes
        connection.socket.settimeout(self.listener.timeout_s)
        receive = connection.recv

        def bounded(size: int) -> bytearray:
            if size > max(most, LONGEST_ASSOCIATE_BYTES):
                raise OSError("a protocol data unit is larger than agreed on")
            return bytearray(receive(size))

        connection.recv = bounded

    def _count(self, event: Any) -> None:
        self._heard = time.monotonic()
        if type(event.pdu).__name__ != "P_DATA_TF":
            return
        with self._lock:
            self._busy.add(event.assoc)
            self._unhandled[event.assoc] += event.pdu.pdu_length
            size = self._unhandled[event.assoc]
        if size > self.listener.max_object_mib * 2**20:
            event.assoc.abort()
            self._hear(Received(OUT_OF_RESOURCES, size, why="larger than --max-object-mib"))

    def _answered(self, event: Any) -> None:
        if type(event.pdu).__name__ == "P_DATA_TF":
            with self._lock:
                self._busy.discard(event.assoc)
            if self._stopping:
                event.assoc.abort()

    def _associate(self, event: Any) -> None:
        with self._lock:
            self._associated.add(event.assoc)

    def _forget(self, event: Any) -> None:
        with self._lock:
            self.turned_away += event.assoc not in self._associated
            self._associated.discard(event.assoc)
            self._busy.discard(event.assoc)
            self._unhandled.pop(event.assoc, None)

    # --- one object ------------------------------------------------------------------------------

    def _store(self, event: Any) -> int:
        """Answer a C-STORE request: with success only once nothing can be lost any more."""
        with self._lock:
            self._unhandled[event.assoc] = 0
        request, syntax = event.request, str(event.context.transfer_syntax)
        data = request.DataSet.getbuffer()
        received = self._judged(event, data, syntax)
        if received is None:
            uid = str(request.AffectedSOPInstanceUID)
            try:
                known = self._keep(_name(uid, syntax, data), _preamble(event), data)
                received = Received(SUCCESS, len(data), known)
            except OSError as error:
                why = error.strerror or "cannot be written"
                received = Received(OUT_OF_RESOURCES, len(data), why=why)
        self._hear(received)
        # The time that a slow disk took was not the sender's silence.
        event.assoc.dul._idle_timer.restart()
        return received.status

    def _judged(self, event: Any, data: memoryview, syntax: str) -> Received | None:
        """Why a data set is refused, if it is."""
        found = _uids(data, syntax)
        if found is None:
            return Received(NOT_UNDERSTOOD, len(data), why="no DICOM data set")
        asked = (str(event.request.AffectedSOPClassUID), str(event.request.AffectedSOPInstanceUID))
        if found != asked or asked[0] != str(event.context.abstract_syntax):
            return Received(MISMATCH, len(data), why="not what its request says it is")
        return None

    def _keep(self, name: str, preamble: bytes, data: memoryview) -> bool:
        """Write one file, whole or not at all; whether it was here already."""
        target = self.folder / name
        known = target.exists()
        if not known:
            descriptor, part = mkstemp(dir=self._incoming)  # mode 0600
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(preamble)
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                Path(part).rename(target)
            finally:
                Path(part).unlink(missing_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the name, too: also where another has just written it
        finally:
            os.close(descriptor)
        return known


def readable_syntaxes() -> list[str]:
    """Every transfer syntax whose pixels can be read here; the others are better refused."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import AllTransferSyntaxes

    found = []
    for syntax in AllTransferSyntaxes:
        with suppress(NotImplementedError):  # of video
            if not syntax.is_compressed or syntax.is_deflated or get_decoder(syntax).is_available:
                found.append(str(syntax))
    return found


def tls_context(certificate: Path, key: Path, authority: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer (BCP 195, PS3.15 B.12); with an authority, callers show certificates too.

    Raises:
        BadInput: A file is not what it should be, or the certificate has expired.
    """
    from cryptography import x509

    context = _LateHandshake(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
        if authority:
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError):
        raise BadInput(
            "the certificate, its key or the authority cannot be read, or do not belong together"
        ) from None
    ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    if ends < datetime.now(UTC):
        raise BadInput(
            f"the certificate expired on {ends:%Y-%m-%d}; renew it, or callers refuse it"
        )
    return context


class _LateHandshake(ssl.SSLContext):
    """Shakes hands when it first reads, in the thread of that association.

    pynetdicom would where it accepts, and who says nothing would keep out all others.
    """

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*args, **kwargs | {"do_handshake_on_connect": False})


def _end(association: Any) -> None:
    if association.is_established:
        association.abort()
    else:  # nobody is there to be told
        association.kill()


def _name(uid: str, syntax: str, data: memoryview) -> str:
    """By instance and content: what came before has the same name, and nothing is overwritten.

    Another data set under the same UID is kept beside the first; ingestion sees the conflict.
    """
    content = hashlib.sha256(syntax.encode() + b"\0")
    content.update(data)
    return f"{hashlib.sha256(uid.encode()).hexdigest()[:32]}-{content.hexdigest()[:16]}.dcm"


def _preamble(event: Any) -> bytes:
    """Preamble, prefix and file meta information (PS3.10 7.1)."""
    from pynetdicom.dsutils import encode_file_meta

    return b"\0" * 128 + b"DICM" + bytes(encode_file_meta(event.file_meta))


def _uids(data: memoryview, syntax: str) -> tuple[str, str] | None:
    """SOP Class and SOP Instance UID, which stand at the beginning of every data set."""
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID

    try:
        head, encoding = bytes(data[:HEAD_BYTES]), UID(syntax)
        if encoding.is_deflated:
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, HEAD_BYTES)
        found = read_dataset(
            BytesIO(head),
            is_implicit_VR=encoding.is_implicit_VR,
            is_little_endian=encoding.is_little_endian,
            stop_when=lambda tag, vr, length: tag > 0x00080018,
        )
        raw = [bytes(found.get_item(tag).value) for tag in (0x00080016, 0x00080018)]
        return raw[0].rstrip(b"\0 ").decode("ascii"), raw[1].rstrip(b"\0 ").decode("ascii")
    except Exception:  # a parser of untrusted bytes may raise anything
        return None
