"""What may be taken from under a run: room on the disk, the right to write, its input, its results.

Each time one clear sentence, nothing half-written, and the same command goes on from there.
"""

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torture import World, stumbled
from toys import Settings, read

from components.contract import Input, Output, component
from lineage.errors import BadInput
from pipelines.backends import local
from pipelines.backends.plan import REUSE, plan
from pipelines.explain import explain
from pipelines.graph import Pipeline, Source, Step
from pipelines.runs import Run, StepState, find_run, past_runs

PAGE = 4096


def where(source: Source) -> Path:
    return Path(source.uri)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


@pytest.fixture
def undisturbed(world: World) -> Run:
    run = world.run()
    world.clear()
    return run


def mount(*args: str) -> None:
    done = subprocess.run(["mount", *args], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")


@pytest.fixture
def small_disk(world: World, undisturbed: Run) -> Iterator[Path]:
    """The workspace on a real file system of its own, of 1 MiB."""
    home = world.home.home
    home.mkdir()
    mount("-t", "tmpfs", "-o", f"size={256 * PAGE}", "tmpfs", str(home))
    yield home
    subprocess.run(["umount", "--lazy", str(home)], check=True)


def test_a_disk_that_fills_up_at_any_moment(world, undisturbed, small_disk) -> None:
    """With no room at all, with one page, with two, and so on until there is enough."""
    ended = []
    for pages in range(200):
        world.clear()
        stumbled.clear()
        free = shutil.disk_usage(small_disk).free
        (small_disk / "ballast").write_bytes(bytes(free - pages * PAGE))
        try:
            ended.append(world.run().outcome)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            ended.append("full")
        drafts = [path for path in small_disk.rglob(".*") if path.name != ".lineage.json"]
        assert not drafts and not list((world.home.store / "building").glob("*"))
        (small_disk / "ballast").unlink()
        world.check_store()
        world.finish(undisturbed)
        if ended[-3:] == ["done"] * 3:
            break
    assert ended[-1] == "done" and ended.count("full") > 30


@component()
def wraps(config: Settings, words: Input, report: Output) -> None:
    """Fails as libraries do that write databases or models."""
    try:
        (report / "large.bin").write_bytes(bytes(1 << 22))
    except OSError as error:
        raise RuntimeError("disk I/O error") from error


def test_a_library_that_words_the_lack_of_room_in_its_own_way(world, small_disk) -> None:
    config = Settings(journal=str(world.folder / "journal.txt"))
    words = Step(read, config, source=Source("source", str(world.folder / "source")))
    pipeline = Pipeline("p", [words, Step(wraps, config, words=words["words"])])
    with pytest.raises(OSError) as caught:
        local.run(pipeline, world.home, where)
    assert caught.value.errno == errno.ENOSPC
    mount("-o", f"remount,size={1 << 24}", str(small_disk))
    run = local.run(pipeline, world.home, where)
    assert [step.state for step in run.steps] == ["reused", "ran"]


def test_a_workspace_that_becomes_read_only(world, undisturbed, small_disk) -> None:
    made = world.run()
    mount("-o", "remount,ro", str(small_disk))
    with pytest.raises(OSError) as caught:
        world.run()
    assert caught.value.errno == errno.EROFS
    assert {each.action for each in plan(world.pipeline(), world.home, where)} == {REUSE}
    assert [run.id for run in past_runs(world.home)] == [made.id]
    assert len(explain(find_run(world.home, None))) == len(made.steps)
    mount("-o", "remount,rw", str(small_disk))
    world.finish(undisturbed)


@pytest.mark.parametrize("limit", [0, 20, 200, 700, 1500, 3000, 9000, 100_000])
def test_no_file_may_grow_beyond_a_limit(world, undisturbed, limit) -> None:
    """A quota that tears writes in the middle; for where nobody has the right to mount."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    _, status = os.waitpid(world.child(limited), 0)
    assert (os.waitstatus_to_exitcode(status) == 0) == (limit > 99_000)
    world.check_store()
    world.finish(undisturbed)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "in.txt").write_text("x" * 60)
    return folder


@component()
def loses(config: Settings, source: Input, words: Input, verdict: Output) -> None:
    """Something of its input is removed by somebody else while it works."""
    (words / "words.txt").read_text()
    if config.text:
        shutil.rmtree({"source": source, "words": words}[config.text])
    (verdict / "verdict.txt").write_text(
        (source / "in.txt").read_text() + (words / "words.txt").read_text()
    )


def chain(source: Path, lost: str = "") -> Pipeline:
    config = Settings(journal=str(source.with_name("journal.txt")))
    origin = Source("source", str(source))
    words = Step(read, config, source=origin)
    loser = config.model_copy(update={"text": lost})
    return Pipeline("p", [words, Step(loses, loser, source=origin, words=words["words"])])


def test_a_source_that_vanishes_before_the_step_that_reads_it(home, source) -> None:
    def meddle(run: Run, step: StepState) -> None:
        if (step.name, step.state) == ("read", "ran"):
            shutil.rmtree(source)

    with pytest.raises(BadInput, match=r"sources\.source: .* was there when the run started"):
        local.run(chain(source), home, where, tell=meddle)
    assert (past_runs(home)[0].outcome, past_runs(home)[0].exit_code) == ("bad input", 2)
    source.mkdir()
    (source / "in.txt").write_text("x" * 60)
    assert [s.state for s in local.run(chain(source), home, where).steps] == ["reused", "ran"]


def test_a_file_that_vanishes_while_its_source_is_read(home, source, monkeypatch) -> None:
    def gone(path: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr("lineage.known.file_digest", gone)
    with pytest.raises(BadInput, match=r"sources\.source: a file in .* went away while all were"):
        local.run(chain(source), home, where)


def test_a_source_that_vanishes_while_a_step_reads_it(home, source) -> None:
    with pytest.raises(BadInput, match=r"sources\.source: .* was there when the run started"):
        local.run(chain(source, "source"), home, where)
    assert not list((home.store / "building").iterdir())


def test_a_result_that_vanishes_while_a_step_reads_it(home, source) -> None:
    run = local.run(chain(source, "words"), home, where)
    assert (run.outcome, run.exit_code) == ("failed", 1)
    assert run.reason.startswith("read.words was changed after it was made")
    again = local.run(chain(source), home, where)
    assert [step.state for step in again.steps] == ["ran", "ran"]


@pytest.mark.parametrize("taken", [shutil.rmtree, lambda path: path.rename(f"{path}-gone")])
def test_results_that_are_deleted_between_runs_are_made_again(
    home, source, taken: Callable[[Path], None]
) -> None:
    first = local.run(chain(source), home, where)
    taken(home.store / "objects" / first.step("read").outputs["words"])
    again = local.run(chain(source), home, where)
    assert [step.state for step in again.steps] == ["ran", "reused"]
    assert again.step("loses").outputs == first.step("loses").outputs


def test_a_result_that_is_deleted_during_a_run_ends_it_with_a_sentence(home, source) -> None:
    def meddle(run: Run, step: StepState) -> None:
        if (step.name, step.state) == ("read", "ran"):
            shutil.rmtree(home.store / "objects" / step.outputs["words"])

    run = local.run(chain(source), home, where, tell=meddle)
    assert (run.outcome, run.exit_code) == ("failed", 1)
    assert run.reason.endswith("the same command again makes it anew")
    assert local.run(chain(source), home, where).outcome == "done"
