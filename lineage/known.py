"""File digests remembered between runs: size, times and inode as the fast path, bytes as the truth.

Hashing a large input is done once per change. What is remembered is only ever believed for a
file that looks exactly as it did then, and had been at rest for a while when it was read: a
file may change twice within one tick of its clock (git calls such an entry racily clean).

This believes the kernel's times. A process that writes through `mmap` to a page that it has already
made dirty moves none of them until the page is written back, and on FUSE and network file systems
whoever serves them sets the times: there a change can pass unseen.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lineage.digest import digest, file_digest, tree_digest
from lineage.files import read_json, write_json

AT_REST_NS = 2_000_000_000  # the coarsest clock of a file system in use, FAT's, ticks every 2 s
Look = tuple[int, int, int, int, int]  # device, inode, size, modified, status changed


@dataclass(frozen=True)
class Known:
    """A folder of remembered digests, one JSON file per tree; losing it costs time only.

    Files are told apart by their inodes: names of scans may be names of patients.
    """

    folder: Path

    def tree_digest(self, path: Path) -> str:
        """Same as `lineage.digest.tree_digest`, reading only files that look changed.

        Raises:
            FileNotFoundError: Nothing lies there.
        """
        memory = self.folder / f"{digest('path', str(path))}.json"
        before: dict[str, str] = read_json(memory) or {}
        after: dict[str, str] = {}

        def of(name: str) -> str:
            look = _look(name)
            if content := before.get(_told(look)):
                after[_told(look)] = content
                return content
            now = time.time_ns()
            content = file_digest(name)
            # Modified just now, or while it was being read: its look proves nothing.
            if max(look[3:]) < now - AT_REST_NS and look == _look(name):
                after[_told(look)] = content
            return content

        content = tree_digest(path, of)
        with suppress(OSError):  # a full or read-only disk: then all is read again next time
            if after != before:
                write_json(memory, after, durable=False, indent=None)
            elif after:
                os.utime(memory)  # still of use
        return content


def _look(name: str) -> Look:
    found = os.stat(name)  # noqa: PTH116  as text, see lineage.digest
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _told(look: Look) -> str:
    return " ".join(map(str, look))
