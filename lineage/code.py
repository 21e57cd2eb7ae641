"""Which first-party source a module can reach, and its digest: the code part of a cache key."""

import ast
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from lineage.digest import digest, file_digest
from lineage.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "pipelines",
    "components",
    "training",
    "evaluation",
    "monitoring",
    "serving",
    "registry",
    "imaging",
    "lineage",
)
LOCK = ROOT / "requirements.lock"
DATA = (".csv", ".html", ".json")  # tables and templates that modules read

# What each source imports or names, by the digest of its bytes. Parsing costs more than all else.
_mentions_of: dict[str, list[str]] = {}
_recalled = 0


def reachable(module: str) -> list[Path]:
    """Every first-party file that running `module` may execute, sorted.

    Follows imports anywhere in a file, inside functions too, because that is where the
    heavy ones live; not those for type checkers. Importing `a.b` also executes
    `a/__init__.py`. Other files that a package carries (tables, templates) count when a
    reachable module beside them names them.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or (path := _source(name)) is None:
            continue
        found[name] = path
        waiting += [*_parents(name), *_mentions(path)]
    data = [file for path in found.values() for file in _data_beside(path)]
    return sorted({*found.values(), *data})


@cache
def sources(module: str) -> dict[str, str]:
    """Each file that a module can reach, with its digest as it was when first asked for.

    Asked for at the start of a process and kept: that is the code which is loaded and runs,
    whatever an editor saves meanwhile.
    """
    return {p.relative_to(ROOT).as_posix(): file_digest(p) for p in reachable(module)}


def pin(modules: Iterable[str]) -> None:
    """Look at the sources of all these now, before any editor saves another version."""
    for module in modules:
        sources(module)


def edited(module: str) -> str | None:
    """The first file behind a module that is no longer what `sources` saw, if there is one."""
    for name, content in sources(module).items():
        path = ROOT / name
        if not path.exists() or file_digest(path) != content:
            return name
    return None


def code_digest(module: str) -> str:
    """Name the code behind a step: the sources it can reach, or the image that holds them.

    A launcher that pins an image by digest says so in `LIGHTBOX_CODE_IDENTITY`.
    """
    if identity := os.environ.get("LIGHTBOX_CODE_IDENTITY"):
        return digest("image", identity)
    return digest("code", sources(module))


@cache
def environment() -> dict[str, str]:
    """What else a result depends on: the interpreter and the exact pins."""
    lock = file_digest(LOCK) if LOCK.exists() else "absent"
    version = ".".join(map(str, sys.version_info[:3]))
    return {"python": version, "lock": lock}


def recall(path: Path) -> None:
    """Take in what an earlier process learned of imports; a fact of the bytes, so never stale."""
    global _recalled
    _mentions_of.update(read_json(path) or {})
    _recalled = len(_mentions_of)


def remember(path: Path) -> None:
    """Keep it for the next process, if there is anything new."""
    if len(_mentions_of) > _recalled:
        with suppress(OSError):  # it only saves time
            write_json(path, _mentions_of, durable=False, indent=None)


@cache
def _source(name: str) -> Path | None:
    if name.partition(".")[0] not in PACKAGES:
        return None
    path = ROOT.joinpath(*name.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((p for p in candidates if p.is_file()), None)


@cache
def _data_beside(path: Path) -> list[Path]:
    named = (path.with_name(name) for name in _mentions(path) if name.endswith(DATA))
    return [file for file in named if file.is_file()]


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


@cache
def _mentions(path: Path) -> list[str]:
    text = path.read_bytes()
    content = hashlib.sha256(text).hexdigest()
    if content not in _mentions_of:
        _mentions_of[content] = sorted(set(_names(ast.parse(text))))
    return _mentions_of[content]


def _names(tree: ast.AST) -> Iterator[str]:
    """The modules that a piece of code imports, or may: `from a import b` may mean a.b. And the
    data files that it names."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and _for_type_checkers(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and str(node.value).endswith(DATA):
            if node.value == Path(node.value).name:
                yield node.value
        waiting += ast.iter_child_nodes(node)


def _for_type_checkers(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))
