"""A small pipeline whose steps count their own executions, for tests of what runs it."""

from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from components.contract import Input, Output, component
from lineage.errors import BadInput, StepFailed


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    journal: str  # a file outside the store: one line per execution
    text: str = "hello"
    level: float = 0.5


class Decision(NamedTuple):
    passed: bool
    reason: str


def note(config: Settings, name: str) -> None:
    with Path(config.journal).open("a") as file:
        file.write(name + "\n")


@component()
def read(config: Settings, source: Input, words: Output) -> None:
    """Copy the source's text."""
    note(config, "read")
    (words / "words.txt").write_text((source / "in.txt").read_text() + config.text)


@component()
def judge(config: Settings, words: Input, verdict: Output) -> Decision:
    """Pass if the words are long enough."""
    note(config, "judge")
    share = len((words / "words.txt").read_text()) / 100
    (verdict / "share.txt").write_text(str(share))
    return Decision(share >= config.level, f"share {share} against {config.level}")


def announced(notice: Path) -> bool:
    """The announcement still hangs where it was hung."""
    return Path((notice / "where.txt").read_text()).exists()


@component(receipt=announced)
def announce(config: Settings, verdict: Input, notice: Output) -> None:
    """Change the world outside the store."""
    note(config, "announce")
    board = Path(config.journal).with_name("board.txt")
    board.write_text("passed")
    (notice / "where.txt").write_text(str(board))


@component(retries=2)
def stumbles(config: Settings, words: Input, report: Output) -> None:
    """Fail as a network does: at the first two attempts, leaving rubbish."""
    assert not list(report.iterdir())
    note(config, "stumbles")
    (report / "rubbish.txt").write_text("half")
    if Path(config.journal).read_text().count("stumbles") < int(config.level):
        raise ConnectionError("gone")


@component()
def breaks(config: Settings, words: Input, report: Output) -> None:
    """Write a report, then say no."""
    note(config, "breaks")
    (report / "why.txt").write_text("because")
    raise StepFailed("3 rows fail")


@component()
def compare(config: Settings, mine: Input, theirs: Input, report: Output) -> Decision:
    """Say which of two texts is longer."""
    note(config, "compare")
    lengths = [len((folder / "words.txt").read_text()) for folder in (mine, theirs)]
    (report / "lengths.txt").write_text(str(lengths))
    return Decision(lengths[0] > lengths[1], f"{lengths[0]} against {lengths[1]}")


def affordable(config: Settings) -> None:
    """Refuse a level that no text reaches, before any is read."""
    note(config, "check")
    if config.level > 1:
        raise BadInput("judging.level: no share lies above 1")


@component(check=affordable)
def rate(config: Settings, words: Input, verdict: Output) -> None:
    """Do what needs a level that was checked."""
    note(config, "rate")


@component()
def watch_grow(config: Settings, source: Input, words: Output) -> None:
    """Read a folder into which somebody puts a file at that very moment."""
    note(config, "watch_grow")
    (words / "words.txt").write_text((source / "in.txt").read_text())
    (source / "later.txt").write_text("new")
