"""Which first-party source a module can reach, and its digest: the code part of a cache key."""

import ast
import hashlib
import marshal
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path

from lineage.digest import digest, file_digest
from lineage.errors import BadInput
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

_pinned: dict[Path, tuple[tuple[int, ...], str]] = {}  # how each file looked, and its digest


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
        if name in found or (path := _source(name) or _loaded_from(name, module)) is None:
            continue
        found[name] = path
        waiting += [*_parents(name), *_mentions(path)]
    data = [file for path in found.values() for file in _data_beside(path)]
    return sorted({*found.values(), *data})


@cache
def sources(module: str) -> dict[str, str]:
    """Each file that a module can reach, with its digest as it was when steps were loaded."""
    paths = reachable(module)
    # Joined to the root, an absolute path stays what it is.
    return {str(p).removeprefix(f"{ROOT}/"): _pinned_digest(p) for p in paths}


def pin() -> None:
    """Note what every first-party file holds, before the first step's module is loaded.

    That is the code which runs, whatever an editor saves meanwhile, so it is what keys name.

    Raises:
        BadInput: Something was loaded already from a compiled form that is none of its file.
    """
    for package in PACKAGES:
        for folder, below, names in os.walk(ROOT / package):
            below[:] = [name for name in below if name != "__pycache__"]
            for name in names:
                path = Path(folder, name)
                if path.suffix == ".py":
                    _refuse_stale_bytecode(path)
                if path.suffix in (".py", *DATA):
                    _pinned_digest(path)


def edited(module: str) -> str | None:
    """The first file behind a module that is no longer what was loaded, if there is one."""
    for name, content in sources(module).items():
        path = ROOT / name
        if not path.exists() or (_look(path) != _pinned[path][0] and file_digest(path) != content):
            return name
    return None


def _pinned_digest(path: Path) -> str:
    if path not in _pinned:
        _pinned[path] = (_look(path), file_digest(path))
    return _pinned[path][1]


def _look(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _refuse_stale_bytecode(path: Path) -> None:
    """Python believes a `.pyc` by the size and the second of its source; an edit may keep both."""
    compiled, source = Path(cache_from_source(str(path))), path.stat()
    try:
        if compiled.stat().st_mtime_ns > max(source.st_mtime_ns, source.st_ctime_ns):
            return  # made after the last change of whatever kind
        header, body = (text := compiled.read_bytes())[:16], text[16:]
        _, flags, seconds, size = struct.unpack("<4sIII", header)  # PEP 552
        if (flags, seconds, size) != (0, int(source.st_mtime) & 0xFFFFFFFF, source.st_size):
            return  # Python would not take it
        code = compile(path.read_bytes(), path, "exec", dont_inherit=True)
        same = marshal.loads(body) == code  # noqa: S302  as Python itself would load it
    except (OSError, EOFError, ValueError, TypeError, SyntaxError, struct.error):
        return  # there is none, or none that Python could load
    with suppress(OSError):  # read-only: then it is compared each time
        os.utime(compiled) if same else compiled.unlink()
    if not same and any(getattr(m, "__file__", None) == str(path) for m in sys.modules.values()):
        name = path.relative_to(ROOT)
        raise BadInput(f"{name} was edited behind Python's back; the same command again loads it")


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


def recall(folder: Path) -> None:
    """Take in what earlier processes learned of sources: facts of their bytes, so never stale."""
    global _recalled
    _mentions_of.update(read_json(_memory(folder)) or {})
    _recalled = len(_mentions_of)


def remember(folder: Path) -> None:
    """Keep it for the next process, if there is anything new."""
    if len(_mentions_of) > _recalled:
        with suppress(OSError):  # it only saves time
            write_json(_memory(folder), _mentions_of, durable=False, indent=None)


def _memory(folder: Path) -> Path:
    """Named by this very file: another version of it may read sources otherwise."""
    return folder / f"mentions-{_pinned_digest(Path(__file__))[:12]}.json"


@cache
def _source(name: str) -> Path | None:
    if name.partition(".")[0] not in PACKAGES:
        return None
    path = ROOT.joinpath(*name.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((p for p in candidates if p.is_file()), None)


def _loaded_from(name: str, module: str) -> Path | None:
    """The file of a step that lives outside our packages, in a plugin or a test."""
    file = getattr(sys.modules.get(name), "__file__", None) if name == module else None
    return Path(file) if file else None


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
        data = any(suffix.encode() in text for suffix in DATA)
        _mentions_of[content] = sorted(set(_names(ast.parse(text), data=data)))
    return _mentions_of[content]


def _names(tree: ast.AST, *, data: bool) -> Iterator[str]:
    """The modules that a piece of code imports, or may: `from a import b` may mean a.b. And, if
    asked for, the data files that it names."""
    # Imports are statements; to look into expressions as well takes four times as long.
    within = ast.AST if data else (ast.stmt, ast.excepthandler, ast.match_case)
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
        elif isinstance(node, ast.Constant) and _names_data(node.value):
            yield str(node.value)
        waiting += (child for child in ast.iter_child_nodes(node) if isinstance(child, within))


def _names_data(value: object) -> bool:
    return isinstance(value, str) and value.endswith(DATA) and "/" not in value


def _for_type_checkers(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))
