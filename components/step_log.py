"""What a step says while it runs goes to its log, and to nobody's terminal.

A step that reads identities must not leave library text anywhere, because messages such as
pydicom's quote tag values. Its log holds our own lines; of what else was said, warnings and log
records are counted by kind and place, and text is not kept at all.
"""

import logging
import os
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from components.progress import duration, listening, now_and_then
from lineage.code import ROOT
from lineage.errors import BadInput, StepFailed

if TYPE_CHECKING:
    from ctypes import CDLL

# What libraries tell each other's authors, and no user can act on.
FOR_AUTHORS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning)
_in_use = False


@contextmanager
def captured(path: Path | None, *, identities: bool, why: str = "") -> Iterator[None]:
    """Send all that is said inside, by Python code, by C code and by children, to a log.

    The log is added to, and is there from the start, for those who look meanwhile or after
    a kill.

    Args:
        path: The log; None is the standard error of this process, which a cluster keeps.
        identities: The step reads data that may name patients.
        why: Why the step runs, for the log's first line.

    Raises:
        OSError: The log cannot be made.
        RuntimeError: Another step's output is being captured in this process.
    """
    with _one_at_a_time(), ExitStack() as stack:
        _open_the_closed()
        log = _Log(_opened(path))
        stack.callback(os.close, log.file)
        text = log.file
        if identities:
            text = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            stack.callback(os.close, text)
        log.line(f"started: {why}" if why else "started")
        if identities:
            log.line(
                "what libraries print is not kept: this step reads data that may name patients"
            )
        started = time.perf_counter()
        try:
            with _streams_to(text), _heard(log, identities), listening(now_and_then(log.line)):
                yield
        except BaseException as error:
            log.line("\n".join(_failure(error, identities)))
            raise
        finally:
            for (kind, place), count in log.counts.items():
                log.line(f"{kind} at {place}, {'once' if count == 1 else f'{count} times'}")
            log.line(f"ended after {duration(time.perf_counter() - started)}")


def _opened(path: Path | None) -> int:
    if path is None:
        return os.dup(2)
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """The streams belong to the whole process."""
    global _in_use
    if _in_use:
        raise RuntimeError("the output of one step at a time can be captured")
    _in_use = True
    try:
        yield
    finally:
        _in_use = False


class _Log:
    """Our own lines, each with its time, and the counts of what is not written."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.counts: Counter[tuple[str, str]] = Counter()

    def line(self, text: str) -> None:
        """Add a line; a full disk fails the step where it writes results, not here."""
        told = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}\n"
        with suppress(OSError):
            os.write(self.file, told.encode(errors="backslashreplace"))


@contextmanager
def _streams_to(file: int) -> Iterator[None]:
    """Point file descriptors 1 and 2 at a file, and Python's streams at them."""
    _flush()
    streams = sys.stdout, sys.stderr
    kept = {fd: os.dup(fd) for fd in (1, 2)}
    try:
        for fd in kept:
            os.dup2(file, fd)
        with ExitStack() as stack:
            # A notebook and pytest put streams of their own in the place of Python's.
            if not is_descriptor(sys.stdout, 1):
                stack.enter_context(redirect_stdout(_stream(1)))
            if not is_descriptor(sys.stderr, 2):
                stack.enter_context(redirect_stderr(_stream(2)))
            try:
                yield
            finally:
                _flush()
    finally:
        for fd, copy in kept.items():
            os.dup2(copy, fd)
            os.close(copy)
        # A step may have closed them, or put others in their place.
        sys.stdout, sys.stderr = (
            _stream(fd) if stream and stream.closed else stream
            for fd, stream in zip((1, 2), streams, strict=True)
        )


def _open_the_closed() -> None:
    """Streams that whoever started us has closed: or the log would be opened in their place."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def is_descriptor(stream: TextIO | None, fd: int) -> bool:
    """Whether what is written to a stream goes straight to a file descriptor."""
    try:
        return stream is not None and stream.fileno() == fd
    except (OSError, AttributeError, ValueError):  # no file behind it
        return False


_streams: dict[int, TextIO] = {}


def _stream(fd: int) -> TextIO:
    """A stream onto a descriptor. We never close it: libraries keep the stream they first see."""
    if fd not in _streams or _streams[fd].closed:
        _streams[fd] = os.fdopen(fd, "w", 1, "utf-8", "backslashreplace", closefd=False)
    return _streams[fd]


@cache
def _c_library() -> "CDLL":
    import ctypes

    return ctypes.CDLL(None)


def _flush() -> None:
    """What was said so far belongs to where it was said; C code keeps buffers of its own."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError, ValueError):  # closed, or there is none
            stream.flush()
    _c_library().fflush(None)


@contextmanager
def _heard(log: _Log, identities: bool) -> Iterator[None]:
    """Take in Python's log records and warnings, instead of whoever took them so far."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    with warnings.catch_warnings():
        warnings.simplefilter("always" if identities else "default")
        for category in FOR_AUTHORS:
            warnings.simplefilter("ignore", category)

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            place = f"{Path(filename).name}:{lineno}"
            kind = f"{_package(filename)} {category.__name__}"
            if identities:
                log.counts[kind, place] += 1
            else:
                log.line(f"{kind} at {place}: {message}")

        warnings.showwarning = show
        root.handlers = [_Handler(log, identities)]
        root.setLevel(logging.WARNING)
        try:
            yield
        finally:
            root.handlers = handlers
            root.setLevel(level)


class _Handler(logging.Handler):
    """Writes records, or counts them."""

    def __init__(self, log: _Log, identities: bool) -> None:
        super().__init__(logging.WARNING)
        self.log, self.identities = log, identities

    def emit(self, record: logging.LogRecord) -> None:
        kind, place = f"{record.name} {record.levelname}", f"{record.filename}:{record.lineno}"
        if self.identities:
            self.log.counts[kind, place] += 1
            return
        try:
            self.log.line(f"{kind} at {place}: {self.format(record)}")
        except Exception:  # a caller's wrong format string is not our failure
            self.handleError(record)


def _failure(error: BaseException, identities: bool) -> Iterator[str]:
    """Kind and frames of an error and its causes: file, line and function, never a value.

    The message stands there only if it is our own sentence, or the step sees no identities.
    """
    if isinstance(error, KeyboardInterrupt):
        yield "stopped by the user"
        return
    if isinstance(error, SystemExit) and not error.code:
        yield "nothing more to do here"  # a machine that only helped another one
        return
    told = isinstance(error, (BadInput, StepFailed)) or not identities
    yield f"{type(error).__name__}: {error}" if told else type(error).__name__
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if code.co_filename != __file__:
            yield f"  {_place(code.co_filename)}:{line} in {code.co_name}"
    if cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        yield "caused by"
        yield from _failure(cause, identities)


def _place(filename: str) -> str:
    """A source file's name, without where this machine keeps it."""
    path = Path(filename)
    if "site-packages" in path.parts:
        return filename.rpartition("site-packages/")[2]
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def _package(filename: str) -> str:
    """The package that a source file belongs to."""
    return Path(_place(filename)).with_suffix("").parts[0]
