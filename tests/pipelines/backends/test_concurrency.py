"""Several runs at once in one store: none corrupts another, nor keeps it waiting for more than the
step that both need. Each runs in a process of its own, and is held inside a step by a test."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict
from torture import World, killed

from components.contract import Input, Output, component
from lineage import known
from lineage.digest import tree_digest
from lineage.errors import StepFailed
from lineage.files import read_json, write_json
from lineage.known import Known
from lineage.workspace import Workspace
from pipelines.backends import local
from pipelines.backends.store import Made, Store
from pipelines.garbage import free
from pipelines.graph import Pipeline, Source, Step
from pipelines.runs import Run, past_runs

PATIENCE_S = 60.0
fork = get_context("fork")


class Held(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    gate: str = ""  # held until a file of this name lies in the folder
    text: str = ""

    def wait(self, name: str) -> None:
        with (Path(self.folder) / "journal.txt").open("a") as journal:
            journal.write(f"{name}{self.text}\n")
        until(lambda: not self.gate or (Path(self.folder) / self.gate).exists())


@component()
def before(config: Held, source: Input, words: Output) -> None:
    config.wait("before")
    (words / "words.txt").write_text(config.text)


def stands(notice: Path) -> bool:
    return True


@component(receipt=stands)
def outside(config: Held, words: Input, notice: Output) -> None:
    config.wait("outside")
    (notice / "notice.txt").write_text(config.text)


@component()
def after(config: Held, notice: Input, end: Output) -> None:
    config.wait("after")
    (end / "end.txt").write_text(config.text)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


@dataclass
class Runs:
    """Starts runs, and looks at them from outside."""

    folder: Path
    home: Workspace
    children: list[int] = field(default_factory=list)

    def start(self, text: str, **gates: str) -> int:
        """Start a run in a child; `outside="gate"` holds that step until `open("gate")`."""
        child = os.fork()
        if child == 0:
            status = 70
            try:
                status = self.walk(text, **gates).exit_code or 0
            finally:
                os._exit(status)
        self.children.append(child)
        return child

    def walk(self, text: str, **gates: str) -> Run:
        def config(step: str) -> Held:
            return Held(folder=str(self.folder), gate=gates.get(step, ""), text=text)

        first = Step(before, config("before"), source=Source("source", str(self.folder / "in")))
        second = Step(outside, config("outside"), words=first["words"])
        third = Step(after, config("after"), notice=second["notice"])
        pipeline = Pipeline("held", [first, second, third])
        return local.run(pipeline, self.home, lambda source: Path(source.uri), config=text)

    def states(self, pid: int) -> dict[str, str]:
        found = [run for run in past_runs(self.home) if run.pid == pid]
        return {step.name: step.state for step in found[0].steps} if found else {}

    def open(self, gate: str) -> None:
        (self.folder / gate).touch()

    def executed(self) -> list[str]:
        journal = self.folder / "journal.txt"
        return journal.read_text().split() if journal.exists() else []

    def end(self, *children: int) -> None:
        """Wait for these; each must have ended well."""
        for child in children:
            self.children.remove(child)
            assert not killed(child)


@pytest.fixture
def runs(tmp_path: Path, home: Workspace) -> Iterator[Runs]:
    (tmp_path / "in").mkdir()
    made = Runs(tmp_path, home)
    yield made
    for child in made.children:  # of a test that failed
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_run_does_not_wait_for_the_long_step_of_another(runs) -> None:
    held = runs.start("a", before="gate")
    until(lambda: runs.states(held).get("before") == "running")
    runs.end(runs.start("b"))
    assert runs.states(held)["before"] == "running"
    runs.open("gate")
    runs.end(held)
    assert [run.outcome for run in past_runs(runs.home)] == ["done", "done"]


def test_effects_wait_for_one_another_and_for_nothing_more(runs) -> None:
    """Two changes of one world at once could cross; what comes before and after need not wait."""
    held = runs.start("a", outside="gate", after="later")
    until(lambda: "outsidea" in runs.executed())
    other = runs.start("b")
    until(lambda: runs.states(other).get("outside") == "blocked")
    assert runs.states(other)["before"] == "ran"
    assert "outsideb" not in runs.executed()
    runs.open("gate")
    runs.end(other)  # while the first one is in its next long step
    assert runs.states(held)["after"] == "running"
    runs.open("later")
    runs.end(held)


def test_who_waits_for_the_very_same_reuses_it(runs) -> None:
    held = runs.start("a", before="gate")
    until(lambda: "beforea" in runs.executed())  # a step is "running" before it has its lock
    waiting = [runs.start("a", before="gate") for _ in range(2)]
    for child in waiting:
        until(lambda child=child: runs.states(child).get("before") == "blocked")
    runs.open("gate")
    runs.end(held, *waiting)
    assert sorted(runs.executed()) == ["aftera", "beforea", "outsidea"]


def test_who_waits_for_a_run_that_is_killed_does_it_instead(runs) -> None:
    held = runs.start("a", before="gate")
    until(lambda: "beforea" in runs.executed())
    waiting = [runs.start("a", before="gate") for _ in range(2)]
    for child in waiting:
        until(lambda child=child: runs.states(child).get("before") == "blocked")
    os.kill(held, signal.SIGKILL)
    assert killed(held)
    runs.children.remove(held)
    runs.open("gate")
    runs.end(*waiting)
    assert sorted(runs.executed()) == ["aftera", "beforea", "beforea", "outsidea"]
    outcomes = [run.outcome for run in past_runs(runs.home)]
    assert sorted(outcomes) == ["done", "done", "interrupted"]


def test_nothing_is_cleared_away_under_a_run_and_nothing_that_counts_after_it(runs) -> None:
    runs.walk("a")
    (runs.home.store / "building" / "left-by-a-kill").mkdir()
    held = runs.start("b", after="gate")
    until(lambda: runs.states(held).get("after") == "running")
    with pytest.raises(StepFailed, match="a run is going on"):
        free(runs.home)
    runs.open("gate")
    runs.end(held)
    free(runs.home)
    assert not list((runs.home.store / "building").iterdir())
    again = runs.walk("a"), runs.walk("b", after="gate")
    assert {step.state for run in again for step in run.steps} == {"reused"}


def test_a_reader_never_sees_half_a_run(runs) -> None:
    """Whoever looks while runs come and go sees each as it was at some moment."""
    seen: set[str] = set()
    for number in range(12):
        children = [runs.start(f"{number}"), runs.start(f"{number % 3}-again")]
        while children:
            for run in past_runs(runs.home):
                seen.add(run.id)
                assert run.outcome in ("running", "done"), run
                assert [step.name for step in run.steps] == ["before", "outside", "after"]
                if run.outcome == "done":
                    assert {step.state for step in run.steps} <= {"ran", "reused"}
            for child in list(children):
                if os.waitpid(child, os.WNOHANG)[0]:
                    children.remove(child)
                    runs.children.remove(child)
        assert len(past_runs(runs.home)) == len(seen | {run.id for run in past_runs(runs.home)})
    assert len(past_runs(runs.home)) == 24


def test_whole_pipelines_at_once_make_each_thing_once(tmp_path) -> None:
    world = World(tmp_path / "world", pause_s=0.003)
    for text in ("x", "y"):
        children = [world.child(text=text) for _ in range(3)]
        endings = [killed(child) for child in children]
        assert not any(endings)
    names = ("scatter", "weigh", "hang", "polish", "sign")
    assert {name: world.executed().count(name) for name in names} == dict.fromkeys(names, 2)
    assert world.notices() == [1, 1]
    world.check()


def in_children(number: int, work: Callable[[int], None]) -> None:
    """Do it in several processes at once; an assertion that fails in one fails here."""
    children = [fork.Process(target=work, args=(n,)) for n in range(number)]
    for child in children:
        child.start()
    for child in children:
        child.join(PATIENCE_S)
        assert child.exitcode == 0


@pytest.mark.parametrize("spoilt", [False, True])
def test_equal_outputs_of_different_steps_at_the_same_moment(tmp_path, spoilt) -> None:
    """Two keys, one content: whoever comes second must not clear away what the first put there."""
    rounds, processes = 80, 3
    barrier = fork.Barrier(processes)

    def work(number: int) -> None:
        store = Store(tmp_path / "store")
        for turn in range(rounds):
            with store.building("step") as folder:
                built = folder / "words"
                built.mkdir()
                for n in range(9):
                    (built / f"{n}.txt").write_text(f"{turn}")
                content = tree_digest(built)
                (built / ".lineage.json").write_text("{}")
                if spoilt and number == 0:
                    store.path(content).mkdir(parents=True)
                    (store.path(content) / "spoilt.txt").write_text("by hand")
                key = f"{number}-{turn}"
                made = Made("step", {}, {}, {"words": content}, "run", 0.0)
                barrier.wait(PATIENCE_S)
                store.keep(made, {"words": built}, [key])
            if not spoilt:  # who mends makes way for a moment
                assert store.find(key) == made
            barrier.wait(PATIENCE_S)
            assert store.find(key) == made
            assert not folder.exists()

    in_children(processes, work)


def test_json_is_whole_whoever_writes_it(tmp_path) -> None:
    path = tmp_path / "facts.json"
    write_json(path, {"who": 0, "text": "0" * 20_000})

    def work(number: int) -> None:
        for turn in range(150):
            write_json(path, {"who": number, "text": f"{number}" * 20_000}, durable=turn % 9 == 0)
            found = read_json(path)
            assert found and found["text"] == f"{found['who']}" * 20_000

    in_children(4, work)
    assert [p.name for p in tmp_path.iterdir()] == ["facts.json"]


def test_remembered_digests_are_right_whoever_remembers(tmp_path, monkeypatch) -> None:
    """Some remember, some forget, one tears what is remembered."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for n in range(20):
        (tree / f"{n}.txt").write_text(f"{n}")
    content, moment = tree_digest(tree), time.time_ns
    monkeypatch.setattr(known.time, "time_ns", lambda: moment() + 60_000_000_000)  # all is at rest

    def work(number: int) -> None:
        memory = Known(tmp_path / "known")
        for _ in range(150):
            assert memory.tree_digest(tree) == content
            for file in (tmp_path / "known").glob("[!.]*.json"):
                with suppress(FileNotFoundError):  # the other one was quicker
                    if number == 0:
                        os.truncate(file, 99)
                    if number == 1:
                        file.unlink()

    in_children(4, work)
    assert Known(tmp_path / "known").tree_digest(tree) == content
    (memory,) = (tmp_path / "known").iterdir()
    assert len(read_json(memory)) == 20
