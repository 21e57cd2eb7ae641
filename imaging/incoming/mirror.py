"""A copy of what lies at an address, kept up to date: only what is new comes, whole or not at all.

Beside the folder of scans lies a state folder with what is on its way and an index, so that the
scans are a folder like any other. They may hold identities: only their owner can read them.
"""

import fcntl
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import IO, Protocol, TypeVar

from lineage.digest import digest
from lineage.errors import BadInput, StepFailed
from lineage.files import in_bytes
from lineage.progress import Report

TRIES = 6
LONGEST_PAUSE_S = 60.0
ENOUGH_FAILED = 20  # then the source itself is ill, and asking on does not help it
Answer = TypeVar("Answer")


class Again(Exception):
    """A fault that may pass: ask again, after so many seconds if the other side named them."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


@dataclass(frozen=True)
class Remote:
    """One file at its source.

    Attributes:
        name: What it is called here: a relative posix path that stays within the folder.
        place: What its origin needs to fetch it.
        stamp: Of its content: with another stamp it is fetched again.
        size_bytes: None where the source does not tell beforehand.
    """

    name: str
    place: str
    stamp: str = ""
    size_bytes: int | None = None


@dataclass(frozen=True)
class Listing:
    """All that lies at an address; `single` where the address is that of one file."""

    remotes: Sequence[Remote]
    single: bool = False


class Origin(Protocol):
    """Where scans come from. Its methods raise `Again` for faults that may pass."""

    threads: int  # that may ask it at once

    def listing(self) -> Listing:
        """Everything that is there, under names that differ; part of it must never be returned.

        Raises:
            BadInput: Nothing is there, or it may not be read.
        """

    def fetch(self, remote: Remote, part: IO[bytes]) -> None:
        """Write one file's bytes, all of them, or raise."""


@dataclass(frozen=True)
class Change:
    """What lies at the source against what was fetched."""

    listing: Listing
    new: tuple[Remote, ...]
    kept: int
    gone: tuple[str, ...]

    @property
    def new_bytes(self) -> int | None:
        """None where the source does not tell."""
        sizes = [remote.size_bytes for remote in self.new]
        return None if None in sizes else sum(size or 0 for size in sizes)


def look(origin: Origin, address: str, folder: Path, state: Path) -> Change:
    """Compare the source with what was fetched; nothing is fetched, and nothing changes."""
    index = _Index(state)
    index.require(address, folder)
    return _compare(patiently(origin.listing), index, folder)


def mirror(
    origin: Origin, address: str, folder: Path, state: Path, report: Report | None = None
) -> Change:
    """Bring `folder` to what lies at the address; what is gone there goes here, too.

    What was fetched before a kill, or before a fault, stays, and the next call goes on from there.

    Args:
        origin: See `imaging.incoming.remote.open_origin`.
        address: Its address; a folder belongs to one.
        folder: Where the files go; made if it is missing.
        state: What is on its way, and the index; made on the same file system as `folder`.
        report: Told of the progress.

    Raises:
        BadInput: The address cannot be used, or the folder holds something else.
        StepFailed: Not all came; what did come is kept.
    """
    _Index(state).require(address, folder)
    listing = patiently(origin.listing)  # before a folder is made: the address may be wrong
    for made in (state, folder):
        made.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_dev != state.stat().st_dev:
        raise BadInput(f"{folder} is a disk of its own; name a folder in it instead")
    with _alone(state):
        for part in state.glob("*.part"):  # of one that was killed
            part.unlink()
        index = _Index(state)
        index.require(address, folder)
        change = _compare(listing, index, folder)
        if change.gone:  # a listing of what changes meanwhile may have missed it: ask once more
            change = _compare(patiently(origin.listing), index, folder)
        if (change.new_bytes or 0) > shutil.disk_usage(folder).free:
            raise BadInput(
                f"{in_bytes(change.new_bytes or 0)} are to be fetched, and there is less room in "
                f"{folder}; make room, or ask for less"
            )
        if change.new or change.gone or index.address is None:
            index.write(address, change.listing.single)
            _fetch(origin, change, folder, state, index, report)
            for name in change.gone:
                _remove(folder, name)
                del index.known[name]
            index.write(address, change.listing.single)
    return change


def fetched(folder: Path, state: Path) -> Path | None:
    """What was fetched before: the folder, or its only file; None if nothing was."""
    index = _Index(state)
    if index.address is None or not folder.is_dir():
        return None
    return folder / next(iter(index.known)) if index.single and index.known else folder


def state_beside(folder: Path, purpose: str) -> Path:
    """A hidden folder beside one that somebody named, so that all files in that one are scans."""
    folder = folder.absolute()
    return folder.with_name(f".{folder.name}.{purpose}")


def patiently(ask: Callable[[], Answer], wait: Callable[[float], object] = time.sleep) -> Answer:
    """Ask, and ask again after faults that may pass, longer and longer apart.

    Args:
        ask: May raise `Again`.
        wait: Waits so many seconds; true if it was woken because nobody wants an answer any more.

    Raises:
        StepFailed: It did not pass.
    """
    for tried in range(1, TRIES + 1):
        try:
            return ask()
        except Again as fault:
            # Not all who were turned away come back at once.
            pause = 0.25 * 2**tried * random.uniform(0.5, 1)  # noqa: S311
            pause = min(pause if fault.after_s is None else fault.after_s, LONGEST_PAUSE_S)
            if tried == TRIES or wait(pause):
                raise StepFailed(f"{fault}, {tried} times in a row; run again later") from None
    raise AssertionError("TRIES is positive")


def _compare(listing: Listing, index: "_Index", folder: Path) -> Change:
    new = tuple(r for r in listing.remotes if not index.holds(r, folder))
    names = {remote.name for remote in listing.remotes}
    if len(names) < len(listing.remotes):
        raise StepFailed("the source lists two files that would bear one name here")
    gone = tuple(name for name in index.known if name not in names)
    return Change(listing, new, len(names) - len(new), gone)


def _fetch(
    origin: Origin,
    change: Change,
    folder: Path,
    state: Path,
    index: "_Index",
    report: Report | None,
) -> None:
    """Fetch what is new, some files at once; each becomes visible when all of it is on the disk."""
    total, pending, lock, stop = len(change.new), iter(change.new), Lock(), Event()
    done, came_bytes, failures = 0, 0, list[str]()

    def work(number: int) -> None:
        nonlocal done, came_bytes
        part = state / f"{number}.part"
        while not stop.is_set():
            with lock:
                remote = next(pending, None)
            if remote is None:
                return
            try:
                size = patiently(partial(_part, origin, remote, part), stop.wait)
                with lock:
                    _keep(part, folder, remote, size, index)
                    done, came_bytes = done + 1, came_bytes + size
                    if report:
                        report(done, total, in_bytes(came_bytes))
            except StepFailed as failure:
                failures.append(str(failure))
                if len(failures) >= ENOUGH_FAILED:
                    stop.set()
            except BaseException:  # a right that is missing, or room: the others need not try
                stop.set()
                raise

    with index.growing(), ThreadPoolExecutor(origin.threads) as pool:
        try:
            for worker in [pool.submit(work, n) for n in range(min(origin.threads, total))]:
                worker.result()
        finally:
            stop.set()  # also after Ctrl-C: what is on its way ends, nothing new is asked for
    for part in state.glob("*.part"):
        part.unlink()
    if failures:
        raise StepFailed(
            f"{total - done} of {total} files did not come ({failures[0]}); the others are kept, "
            "and the same command fetches what is missing"
        )


def _part(origin: Origin, remote: Remote, part: Path) -> int:
    """Bring one file to the disk under a name of its own; its size."""
    with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b") as file:
        origin.fetch(remote, file)
        file.flush()
        size = file.seek(0, os.SEEK_END)
        if remote.size_bytes not in (None, size):
            raise Again("a file came in another size than announced")
        os.fsync(file.fileno())
    return size


def _keep(part: Path, folder: Path, remote: Remote, size: int, index: "_Index") -> None:
    """In this order a kill at any point leaves a file that is missing, never one that is stale."""
    target = folder / remote.name
    for below in reversed(Path(remote.name).parents):  # `parents=True` would leave them to umask
        (folder / below).mkdir(exist_ok=True, mode=0o700)
    target.unlink(missing_ok=True)
    index.add(remote, size)
    part.rename(target)


def _remove(folder: Path, name: str) -> None:
    """Remove a file, and the folders that are empty without it."""
    (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        for above in (folder / name).relative_to(folder).parents[:-1]:
            (folder / above).rmdir()


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """One process fetches at a time; another waits, and then finds it done."""
    with (state / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Index:
    """What was fetched: JSON lines, the first about the whole, then one per file.

    Losing lines costs time only, so none is waited for.
    """

    def __init__(self, state: Path) -> None:
        self.path = state / "index.jsonl"
        self.address: str | None = None
        self.single = False
        self.known: dict[str, tuple[str, int]] = {}  # stamp and size, by name
        self._file: IO[str] | None = None
        with suppress(FileNotFoundError, ValueError):  # ValueError: torn by a kill
            head, *lines = self.path.read_text().splitlines()
            self.address, self.single = json.loads(head)
            for line in lines:
                name, stamp, size = json.loads(line)
                self.known[name] = (stamp, size)

    def require(self, address: str, folder: Path) -> None:
        """Refuse a folder that holds anything else."""
        if self.address == _named(address) or not folder.exists():
            return
        if not folder.is_dir() or next(folder.iterdir(), None):
            raise BadInput(
                f"{folder} holds what did not come from this address; name a new or empty folder"
            )

    def holds(self, remote: Remote, folder: Path) -> bool:
        stamp, size = self.known.get(remote.name, ("", -1))
        if stamp != remote.stamp:
            return False
        with suppress(OSError):
            return os.stat(f"{folder}/{remote.name}").st_size == size  # noqa: PTH116  quicker
        return False

    @contextmanager
    def growing(self) -> Iterator[None]:
        with self.path.open("a") as self._file:
            yield

    def add(self, remote: Remote, size: int) -> None:
        assert self._file
        self.known[remote.name] = (remote.stamp, size)
        self._file.write(json.dumps([remote.name, remote.stamp, size]) + "\n")
        self._file.flush()

    def write(self, address: str, single: bool) -> None:
        """Write all of it anew, without the lines that later ones replaced."""
        draft = self.path.with_suffix(".new")
        files = ([name, *known] for name, known in self.known.items())
        with draft.open("w") as file:
            for line in ([_named(address), single], *files):
                file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)


def _named(address: str) -> str:
    return digest("address", address)
