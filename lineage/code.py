"""Which first-party source a module can reach, and its digest: the code part of a cache key."""

import ast
import os
import sys
from functools import cache
from pathlib import Path

from lineage.digest import digest, file_digest

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
DATA = {".csv", ".html", ".json"}  # tables and templates that modules read


def reachable(module: str) -> list[Path]:
    """Every first-party file that running `module` may execute, sorted.

    Follows imports anywhere in a file, inside functions too, because that is where the
    heavy ones live. Importing `a.b` also executes `a/__init__.py`. Other files that a
    package carries (tables, templates) count when they lie beside a reachable module.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _source(name)
        if name in found or path is None:
            continue
        found[name] = path
        waiting += [*_parents(name), *_imports(path)]
    folders = {path.parent for path in found.values()}
    data = [p for f in folders for p in f.iterdir() if p.is_file() and p.suffix in DATA]
    return sorted({*found.values(), *data})


def code_digest(module: str) -> str:
    """Name the code behind a step: the sources it can reach, or the image that holds them.

    A launcher that pins an image by digest says so in `LIGHTBOX_CODE_IDENTITY`.
    """
    if identity := os.environ.get("LIGHTBOX_CODE_IDENTITY"):
        return digest("image", identity)
    return digest("code", [[p.relative_to(ROOT).as_posix(), _file(p)] for p in reachable(module)])


def environment() -> dict[str, str]:
    """What else a result depends on: the interpreter and the exact pins."""
    lock = _file(LOCK) if LOCK.exists() else "absent"
    version = ".".join(map(str, sys.version_info[:3]))
    return {"python": version, "lock": lock}


@cache
def _file(path: Path) -> str:
    return file_digest(path)


@cache
def _source(name: str) -> Path | None:
    if name.partition(".")[0] not in PACKAGES:
        return None
    path = ROOT.joinpath(*name.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((p for p in candidates if p.is_file()), None)


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


@cache
def _imports(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from a import b` may name a module b of package a, or a name in a.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)
