"""What steps made, by content: an output's name is its digest, so a changed one is no longer it.

objects/<digest>/    one output directory, never changed after it was put here
steps/<key>.json     what a step with this key reported and which objects it made
latest/<step>.json   the key parts of a step's last result, to say what differs now
building/…           work in progress; renamed into place when whole, or left behind by a kill
known/…              digests of files that have not changed since they were last read
locks/<name>         held while a key is being made, or while the outside world is changed
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from lineage.digest import RECORD
from lineage.errors import StepFailed
from lineage.files import read_json, write_json
from lineage.known import Known

FULL_BYTES = 1 << 20  # with less than this left, whatever went wrong went wrong for lack of room


@dataclass(frozen=True)
class Made:
    """One finished step: the parts of its key, the values it reported, its outputs' digests."""

    step: str
    parts: dict[str, Any]
    values: dict[str, Any]
    outputs: dict[str, str]
    run: str  # the run that executed it
    seconds: float


@dataclass(frozen=True)
class Store:
    """A folder of finished work, shared by every run of a workspace."""

    root: Path
    known: Known = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", Known(self.root / "known"))

    def path(self, content: str) -> Path:
        """Where the object with this digest lies, if it is here."""
        return self.root / "objects" / content

    def digest(self, path: Path) -> str:
        """What lies at a path, named by content; files that look unchanged are not read again."""
        return self.known.tree_digest(path)

    def find(self, key: str) -> Made | None:
        """Finished work under this key, or None if there is none, or if it is no longer whole."""
        try:
            made = Made(**(read_json(self.root / "steps" / f"{key}.json") or {}))
        except TypeError:
            return None
        return made if all(self._whole(content) for content in made.outputs.values()) else None

    def _whole(self, content: str) -> bool:
        """An object's content is compared with its name, and its record must be readable."""
        try:
            record = read_json(self.path(content) / RECORD)
            return record is not None and self.digest(self.path(content)) == content
        except FileNotFoundError:
            return False

    @contextmanager
    def building(self, step: str) -> Iterator[Path]:
        """An empty folder to work in, gone afterwards whatever happens."""
        parent = self.root / "building"
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(prefix=f"{step}-{os.getpid()}-", dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, made: Made, outputs: dict[str, Path], names: Sequence[str]) -> None:
        """Move outputs into place, then write the record: its presence means all is whole.

        Args:
            made: What the record says.
            outputs: Each output's folder under `building`.
            names: The keys under which to find it again; none if no key tells the truth of it.
        """
        for name, built in outputs.items():
            content = made.outputs[name]
            place = self.path(content)
            place.parent.mkdir(parents=True, exist_ok=True)
            if _moved(built, place) or self._whole(content):
                continue  # or another run has just put equal bytes there
            with self.lock("objects"):  # two may find it tampered with; the second finds it mended
                if not self._whole(content):
                    place.rename(built.with_name(f"{name}.tampered"))
                    _moved(built, place)
        for key in names:
            write_json(
                self.root / "steps" / f"{key}.json", asdict(made), durable=False, indent=None
            )

    def latest(self, step: str) -> dict[str, Any] | None:
        """A step's last result, whether it ran or was reused: `parts` of its key, the digests of
        its `sources`, and the `seconds` that it took."""
        last: dict[str, Any] = read_json(self.root / "latest" / f"{step}.json") or {}
        return last if last.keys() >= {"parts", "sources", "seconds"} else None

    def set_latest(self, made: Made, parts: dict[str, Any], sources: dict[str, str]) -> None:
        """Remember them, so that the next run can say what differs."""
        path = self.root / "latest" / f"{made.step}.json"
        facts = {"parts": parts, "sources": sources, "seconds": made.seconds}
        write_json(path, facts, durable=False, indent=None)

    def is_full(self) -> bool:
        """Whether the disk is."""
        return shutil.disk_usage(self.root).free < FULL_BYTES

    @contextmanager
    def lock(self, name: str, blocked: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Held by one process at a time; the kernel frees it when that process ends.

        Args:
            name: What is being made or changed.
            blocked: Called once if another process holds it, before waiting.
        """
        with self._lock_file(name) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                blocked()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Held by every run while it goes on, so that nothing is cleared away under it."""
        with self._lock_file("store") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Held while things are cleared away.

        Raises:
            StepFailed: A run is going on.
        """
        with self._lock_file("store") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StepFailed(
                    "a run is going on in this workspace; try again after it"
                ) from None
            yield

    @contextmanager
    def _lock_file(self, name: str) -> Iterator[Any]:
        path = self.root / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            yield file


def _moved(built: Path, place: Path) -> bool:
    """Rename, unless something lies there already."""
    try:
        built.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        return False
    return True
