"""The tutorial, typed in as it stands: every command of it is run, and what it shows is held
against what the command says, numbers aside."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "first-hour.md"
pytestmark = pytest.mark.timeout(900)  # two trainings on real radiographs
# Who is in which split hangs on these; fixed, the story has the same end each time.
KEYS = {f"LIGHTBOX_SECRET_{name}_KEY": "5a" * 32 for name in ("PSEUDONYM", "SPLIT")}
VARYING = re.compile(r"\b[0-9a-f]{12}\b|\d+(?:[.,:]\d+)*")  # digests and numbers


@dataclass(frozen=True)
class Typed:
    """One command of the page, what the page shows of its answer, and how it is to end."""

    command: str
    shown: tuple[str, ...]
    exit_codes: tuple[int, ...]


def typed() -> Iterator[Typed]:
    for block in re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, *shown = part.replace("\\\n", "").splitlines()
            command, _, comment = command.partition("  # ")
            codes = tuple(int(code) for code in re.findall(r"\d+", comment)) or (0,)
            lines = tuple(line.strip() for line in shown if line.strip() not in ("", "…"))
            yield Typed(command.strip(), lines, codes)


def pattern(line: str) -> str:
    """Any number or digest may stand where the page shows one, any text for an ellipsis."""
    parts = [part for part in re.split(r"(…)|\s+", line) if part]
    return r"\s*".join(".*" if part == "…" else word(part) for part in parts)


def word(text: str) -> str:
    """`\0` marks what may be another number."""
    marked = VARYING.sub("\0", text)
    return r"[\w.,:]+".join(re.escape(fixed) for fixed in marked.split("\0"))


def test_the_page_can_be_typed_in(real_data, tmp_path: Path) -> None:
    commands = list(typed())
    assert len(commands) > 8
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "chest").symlink_to(real_data / "chest")
    (tmp_path / "bin").mkdir()
    # The very command that an installation puts there, from wherever these tests run.
    script = tmp_path / "bin" / "lightbox"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipelines.cli "$@"\n')
    script.chmod(0o755)
    environment = {
        **os.environ,
        **KEYS,
        "PATH": f"{script.parent}:{os.environ['PATH']}",
        "LIGHTBOX_HOME": str(tmp_path / ".lightbox"),
        "COLUMNS": "140",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    try:
        for each in commands:
            done = subprocess.run(
                ["bash", "-c", each.command],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=600,
            )
            said = done.stdout + done.stderr
            assert done.returncode in each.exit_codes, (each.command, said)
            for line in each.shown:
                assert re.search(pattern(line), said), (each.command, line, said)
    finally:
        subprocess.run([script, "endpoint", "stop"], env=environment, cwd=tmp_path, check=False)
