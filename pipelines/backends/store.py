"""What steps made, by content: an output's name is its digest, so a changed one is no longer it.

objects/<digest>/    one output directory, never changed after it was put here
steps/<key>.json     what a step with this key reported and which objects it made
building/…           work in progress; renamed into place when whole, or left behind by a kill
locks/<name>         held while a key is being made, or while the outside world is changed
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from lineage.digest import digest, tree_digest
from lineage.files import write_json


@dataclass(frozen=True)
class Made:
    """One finished step: the parts of its key, the values it reported, its outputs' digests."""

    step: str
    parts: dict[str, Any]
    values: dict[str, Any]
    outputs: dict[str, str]

    @property
    def key(self) -> str:
        """The name under which this work is found again."""
        return digest("step", self.parts)


@dataclass(frozen=True)
class Store:
    """A folder of finished work, shared by every run of a workspace."""

    root: Path

    def path(self, content: str) -> Path:
        """Where the object with this digest lies, if it is here."""
        return self.root / "objects" / content

    def find(self, key: str) -> Made | None:
        """Finished work under this key, or None if there is none, or if it is no longer whole.

        Every object's bytes are compared with its name; one that was tampered with is
        removed, and its step counts as never done.
        """
        record = self.root / "steps" / f"{key}.json"
        try:
            made = Made(**json.loads(record.read_text()))
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return None
        for content in made.outputs.values():
            path = self.path(content)
            if not path.is_dir():
                return None
            if tree_digest(path) != content:
                shutil.rmtree(path)
                return None
        return made

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

    def keep(self, made: Made, outputs: dict[str, Path]) -> None:
        """Move outputs into place, then write the record: its presence means all is whole."""
        for name, built in outputs.items():
            place = self.path(made.outputs[name])
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                built.rename(place)
            except OSError:
                if not place.is_dir():  # else: equal bytes lie here already
                    raise
        write_json(self.root / "steps" / f"{made.key}.json", vars(made))

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Held by one process at a time; the kernel frees it when that process ends."""
        path = self.root / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
