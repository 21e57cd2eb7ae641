"""Files that are whole or absent, however the process that writes them ends."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any, *, durable: bool = True, indent: int | None = 2) -> None:
    """Write or replace a JSON file in one go: a reader sees all of it or none, also after a kill.

    Args:
        path: Where; its folder is made.
        value: What.
        durable: Wait until the disk has it, so that it also survives the machine. Needless
            for what can be made again.
        indent: Spaces per level for those who read it; None is several times quicker.

    Raises:
        ValueError: The value holds NaN or an infinity, which JSON does not know.
        OSError: The disk is full or read-only, or a folder lies there; what was there before stays.
    """
    text = json.dumps(value, indent=indent, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def read_json(path: Path, kind: type = dict) -> Any:
    """A JSON file's value if it is of this kind; None if not, or if there is no whole file."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (ValueError, RecursionError):  # torn, no text, or brackets without end
        return None
    return value if isinstance(value, kind) else None


def forget_time(path: Path) -> None:
    """Date a file the first day of 2000: times in a row tell the order of what files were made of.

    Nor do archives and copies then tell it, which keep the time.
    """
    os.utime(path, (946_684_800, 946_684_800))


def sizes(path: Path) -> Iterator[int]:
    """The bytes of each file at or below a path; none where there is none, or none may be read."""
    if path.is_file() or path.is_symlink():
        yield path.lstat().st_size
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):  # gone meanwhile
                yield os.lstat(f"{folder}/{name}").st_size


def in_bytes(size: float) -> str:
    """A size in words, such as `1.4 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
