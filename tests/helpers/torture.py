"""A small pipeline with everything in it that a kill could tear, and the means to kill its runs.

Its world lies outside the store: a journal of what was executed, and a board on which the effect
hangs a notice, and which counts how often that really happened.
"""

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from components.contract import Input, Output, component
from lineage.digest import digest, tree_digest
from lineage.workspace import Workspace
from pipelines.backends import local
from pipelines.graph import Fail, Pipeline, Source, Step, When
from pipelines.runs import Run, past_runs

EFFECT = "hang"
# Calls that change a file system, as the interpreter announces them before it makes them.
CALLS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "fcntl.flock"}


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    world: str
    pause_s: float = 0.0  # long enough for a kill to find its way in
    text: str = "x"

    def begin(self, name: str) -> None:
        with (Path(self.world) / "journal.txt").open("a") as journal:
            journal.write(f"{name}\n")
        time.sleep(self.pause_s)


class Weighed(NamedTuple):
    passed: bool
    reason: str


class Counted(NamedTuple):
    files: int


@component()
def scatter(config: Settings, source: Input, many: Output, few: Output) -> Counted:
    """Two outputs, one of them of many files."""
    config.begin("scatter")
    text = (source / "in.txt").read_text() + config.text
    for n in range(9):
        (many / f"{n % 3}").mkdir(exist_ok=True)
        (many / f"{n % 3}" / f"{n}.txt").write_text(f"{n} {text}" * 99)
        time.sleep(config.pause_s / 9)
    (few / "words.txt").write_text(text)
    return Counted(9)


@component()
def weigh(config: Settings, many: Input, verdict: Output) -> Weighed:
    """Reports values that a branch hangs on."""
    config.begin("weigh")
    size = sum(path.stat().st_size for path in many.rglob("*.txt"))
    (verdict / "size.txt").write_text(str(size))
    return Weighed(size > 99, f"{size} bytes")


stumbled: set[int] = set()  # processes in which it did


@component(retries=2)
def stumble(config: Settings, few: Input, words: Output) -> None:
    """Fails at the first attempt of each process, leaving rubbish."""
    config.begin("stumble")
    (words / "rubbish.txt").write_text("half")
    if os.getpid() not in stumbled:
        stumbled.add(os.getpid())
        raise ConnectionError("gone")
    (words / "rubbish.txt").rename(words / "words.txt")
    (words / "words.txt").write_text((few / "words.txt").read_text().title())


def board(world: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(world / "board.db", timeout=60)
    connection.execute("CREATE TABLE IF NOT EXISTS notices (digest PRIMARY KEY, times INTEGER)")
    return connection


def hangs(notice: Path) -> bool:
    world, content = (notice / "notice.txt").read_text().split("\n")
    with closing(board(Path(world))) as connection:
        query = "SELECT count(*) FROM notices WHERE digest = ?"
        return bool(connection.execute(query, [content]).fetchone()[0])


@component(receipt=hangs)
def hang(config: Settings, verdict: Input, words: Input, notice: Output) -> None:
    """Hang a notice, once for what it says, however often it is tried."""
    config.begin("hang")
    content = digest("notice", tree_digest(verdict), tree_digest(words))
    with closing(board(Path(config.world))) as connection, connection:
        asked = "SELECT count(*) FROM notices WHERE digest = ?"
        if not connection.execute(asked, [content]).fetchone()[0]:
            connection.execute("INSERT INTO notices VALUES (?, 1)", [content])
    time.sleep(config.pause_s)
    (notice / "notice.txt").write_text(f"{config.world}\n{content}")


@component()
def polish(config: Settings, notice: Input, words: Input, shine: Output) -> None:
    """Pure, and after an effect."""
    config.begin("polish")
    (shine / "shine.txt").write_text((words / "words.txt").read_text().upper())


@component()
def sign(config: Settings, shine: Input, signed: Output) -> None:
    """The end of the chain."""
    config.begin("sign")
    (signed / "signed.txt").write_text((shine / "shine.txt").read_text() + "!")


@dataclass(frozen=True)
class World:
    """One folder with a source, a workspace, a journal and a board; always at the same place, so
    that every run of it makes the same outputs."""

    folder: Path
    pause_s: float = 0.0

    def __post_init__(self) -> None:
        self.clear()

    @property
    def home(self) -> Workspace:
        return Workspace(self.folder / "home")

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "source").mkdir(parents=True)
        (self.folder / "source" / "in.txt").write_text("word " * 20)

    def pipeline(self, text: str = "x") -> Pipeline:
        config = Settings(world=str(self.folder), pause_s=self.pause_s, text=text)
        scattered = Step(scatter, config, source=Source("source", str(self.folder / "source")))
        weighed = Step(weigh, config, many=scattered["many"])
        stumbled = Step(stumble, config, few=scattered["few"])
        hung = Step(hang, config, verdict=weighed["verdict"], words=stumbled["words"])
        polished = Step(polish, config, notice=hung["notice"], words=stumbled["words"])
        signed = Step(sign, config, shine=polished["shine"])
        light = Fail("too light", weighed["reason"], 3)
        passed = When(weighed["passed"], [hung, polished, signed], [light])
        return Pipeline("torture", [scattered, weighed, stumbled, passed])

    def run(self, text: str = "x") -> Run:
        return local.run(self.pipeline(text), self.home, lambda source: Path(source.uri))

    def child(self, arm: Callable[[], None] = lambda: None, text: str = "x") -> int:
        """Start a run in a process of its own; gives its number."""
        pid = os.fork()
        if pid:
            return pid
        status = 70
        try:
            os.setsid()
            arm()
            status = self.run(text).exit_code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def executed(self) -> list[str]:
        journal = self.folder / "journal.txt"
        return journal.read_text().split() if journal.exists() else []

    def notices(self) -> list[int]:
        """How often each notice was really hung."""
        with closing(board(self.folder)) as connection:
            return [times for (times,) in connection.execute("SELECT times FROM notices")]

    def recorded(self) -> dict[str, dict[str, str]]:
        """The outputs of each step of which a record lies in the store, as the record says."""
        found = (self.home.store / "steps").glob("[!.]*.json")
        records = [json.loads(path.read_bytes()) for path in found]
        return {record["step"]: record["outputs"] for record in records}

    def whole(self, name: str) -> bool:
        """Whether an object is what its name says, by its bytes; nothing remembered counts."""
        return tree_digest(self.home.store / "objects" / name) == name

    def phases(self) -> set[str]:
        """In the middle of what a kill struck, by what it left."""
        referred = {name for outputs in self.recorded().values() for name in outputs.values()}
        kept = self.objects() - referred
        found = {
            "building": any((self.home.store / "building").glob("*")),
            "kept, not recorded": bool(kept),
            "done outside, not recorded": self.notices() == [1] and EFFECT not in self.recorded(),
        }
        return {name for name, true in found.items() if true}

    def objects(self) -> set[str]:
        return {path.name for path in (self.home.store / "objects").glob("*")}

    def check(self) -> None:
        """What must hold whatever was killed, and whenever."""
        self.check_store()
        assert "running" not in {run.outcome for run in past_runs(self.home)}
        for lock in (self.home.store / "locks").glob("*"):
            with lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def check_store(self) -> None:
        """What must hold of it whatever happened."""
        assert all(map(self.whole, self.objects())), "a half-written object"
        for step, outputs in self.recorded().items():
            assert set(outputs.values()) <= self.objects(), f"{step} is recorded, not whole"
        assert all(times == 1 for times in self.notices()), "an effect happened twice"

    def finish(self, undisturbed: Run) -> None:
        """The same command after a kill: what stands whole is reused, the rest runs once."""
        stood, before = self.recorded(), self.executed()
        stood = {name for name, made in stood.items() if all(map(self.whole, made.values()))}
        stumbles = 1 if os.getpid() in stumbled else 2
        run = self.run()
        assert run.outcome == "done", run.reason
        states = {step.name: step.state for step in run.steps}
        assert states == {name: "reused" if name in stood else "ran" for name in states}
        since = self.executed()[len(before) :]
        for name, state in states.items():
            tries = stumbles if name == "stumble" else 1
            assert since.count(name) == (tries if state == "ran" else 0), (name, since)
        for mine, theirs in zip(run.steps, undisturbed.steps, strict=True):
            assert (mine.outputs, mine.values) == (theirs.outputs, theirs.values)
        assert self.notices() == [1]
        self.check()


def killed(pid: int) -> bool:
    """Wait for a child; False if it came to its end."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the run itself failed; see above"
    return False


def kill_at_call(number: int, folder: Path, report: int) -> Callable[[], None]:
    """Let a process kill itself at its n-th call that changes something below a folder.

    It dies before the call, except for a file that is opened for writing: that is left empty, or
    with a torn last line if it was opened to be appended to. The call's name and the place are
    written to the descriptor `report` first.
    """
    count = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal count
        flags = args[2] if event == "open" and isinstance(args[2], int) else 0
        if event not in CALLS and not flags & (os.O_WRONLY | os.O_RDWR):
            return
        # A rename tells by where it goes to; the rest by what it touches.
        touched = args[1] if event in ("os.rename", "os.symlink", "os.link") else args[0]
        place = _place(touched, folder)
        if place is None:
            return
        count += 1
        if count == number:
            os.write(report, f"{event} {place}".encode())
            if event == "open":
                file = os.open(str(touched), flags)
                os.write(file, b'{"name": "sc' if place == "runs" and flags & os.O_APPEND else b"")
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: sys.addaudithook(hook)


def _place(touched: object, folder: Path) -> str | None:
    """Which part of a world a call touches, such as `store/objects`; None if it is elsewhere."""
    if isinstance(touched, int):
        return "lock"
    text = os.fsdecode(touched) if isinstance(touched, bytes | str | os.PathLike) else ""
    if not Path(text).is_absolute():
        return "below a folder that is removed"
    if not text.startswith(f"{folder}/"):
        return None
    parts = Path(text).relative_to(folder).parts
    return "/".join(
        parts[1:3] if parts[0] == "home" and parts[1:2] == ("store",) else parts[:2][-1:]
    )


def kills_at_every_call(world: World) -> Iterator[str]:
    """Kill a run at its first call, then a fresh one at its second, and so on until one survives;
    gives what each was about to do, with the world left as the kill left it."""
    number = 0
    while True:
        number += 1
        world.clear()
        reading, writing = os.pipe()
        died = killed(world.child(kill_at_call(number, world.folder, writing)))
        os.close(writing)
        with os.fdopen(reading) as pipe:
            call = pipe.read()
        if not died:
            return
        yield call
