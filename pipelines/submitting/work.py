"""The commit that a run is made from, and what is not committed yet."""

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lineage.errors import BadInput

# What decides what a run computes. Data never travels in a patch: it may hold identities.
CODE = {".py", ".pyi", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".sh", ".md", ".lock", ".html"}
NAMES = {"Dockerfile", "Makefile"}
MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Work:
    """A commit, and a patch on top of it."""

    commit: str
    patch: bytes = b""  # what `git apply` takes

    @property
    def patch_digest(self) -> str:
        """Empty if all is committed."""
        return hashlib.sha256(self.patch).hexdigest() if self.patch else ""


def read_work(folder: Path, *, dirty: bool) -> Work:
    """Say from what the files of a repository came.

    Changed files that git knows count, and new ones that are code; new data does not.

    Args:
        folder: Anywhere in the repository.
        dirty: Take uncommitted work as a patch, instead of refusing it.

    Raises:
        BadInput: There is uncommitted work and `dirty` is not set, or no patch can tell it; or
            there is no repository.
    """
    if (root := _git(folder, "rev-parse", "--show-toplevel")) is None:
        if dirty:
            return Work("")
        raise BadInput(
            "the settings lie in no git repository, or in one that git does not let this user "
            "read, so no commit can be recorded; commit them, or say --dirty to go on without"
        )
    top = Path(root.decode().rstrip("\n"))
    if (head := _git(top, "rev-parse", "--verify", "--quiet", "HEAD")) is None:
        raise BadInput("the repository has no commit yet; make one")
    changed = _names(top, "diff", "--name-only", "-z", "HEAD")
    new = [n for n in _names(top, "ls-files", "-z", "--others", "--exclude-standard") if _code(n)]
    if not changed and not new:
        return Work(head.decode().strip())
    if not dirty:
        told = ", ".join(sorted([*changed, *new])[:3])
        more = f" and {len(changed) + len(new) - 3} more" if len(changed) + len(new) > 3 else ""
        raise BadInput(
            f"uncommitted work: {told}{more}; commit it, or say --dirty to have it recorded as a "
            "patch"
        )
    if data := [name for name in changed if not _code(name)]:
        raise BadInput(
            f"{len(data)} changed files are data, not code, and data never travels in a patch; "
            "commit or undo the change"
        )
    return Work(head.decode().strip(), _patch(top, changed, new))


def _patch(top: Path, changed: list[str], new: list[str]) -> bytes:
    # Whatever the user's own settings are, `git apply` shall take it.
    options = ["--no-ext-diff", "--no-textconv", "--no-color", "--binary", "--full-index"]
    options += ["--src-prefix=a/", "--dst-prefix=b/", "--unified=3"]
    parts = [_git(top, "diff", *options, "HEAD", "--", *changed)] if changed else []
    for name in sorted(new):
        # It ends with 1, for the files differ.
        parts.append(_git(top, "diff", *options, "--no-index", "--", "/dev/null", name, ends=(1,)))
    patch = b"".join(part for part in parts if part is not None)
    if len(patch) > MOST_BYTES:
        raise BadInput(f"the uncommitted work is larger than {MOST_BYTES >> 20} MiB; commit it")
    return patch


def _code(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix in CODE or path.name in NAMES


def _names(top: Path, *arguments: str) -> list[str]:
    if (told := _git(top, *arguments)) is None:
        raise BadInput("git cannot say what is not committed (`git status` tells why)")
    listed = told.decode(errors="surrogateescape")
    return [name for name in listed.split("\0") if name]


def _git(folder: Path, *arguments: str, ends: tuple[int, ...] = (0,)) -> bytes | None:
    """What git says; None where it says no."""
    if (git := shutil.which("git")) is None:
        return None
    done = subprocess.run([git, "-C", str(folder), *arguments], capture_output=True, check=False)
    return done.stdout if done.returncode in ends else None
