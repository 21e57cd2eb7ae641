"""`kill -9` at any moment, then the same command: what was whole is reused, the rest runs once.

LIGHTBOX_KILLS sets how many runs die at random moments, LIGHTBOX_SEED which; `make torture` asks
for thousands, by another seed each time.
"""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from torture import World, killed, kills_at_every_call

from pipelines.backends.plan import plan
from pipelines.runs import Run, past_runs

KILLS = int(os.environ.get("LIGHTBOX_KILLS", "200"))
SEED = int(os.environ.get("LIGHTBOX_SEED", "0"))
pytestmark = pytest.mark.timeout(120 + KILLS)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


@pytest.fixture
def undisturbed(world: World) -> Run:
    run = world.run()
    assert run.outcome == "done"
    world.clear()
    return run


def test_a_kill_at_every_single_call(world, undisturbed) -> None:
    calls: Counter[str] = Counter()
    phases: Counter[str] = Counter()
    for call in kills_at_every_call(world):
        calls[call] += 1
        phases.update(world.phases())
        world.check()
        assert len(past_runs(world.home)) == len(list(world.home.runs.glob("*/run.json")))
        world.finish(undisturbed)
    assert calls.total() > 150
    steps, outputs = 6, 7
    for call, times in {
        "open store/building": outputs,  # a file of an output is begun
        "os.rename store/objects": outputs,  # an output is whole, and not yet in its place
        "open store/steps": steps,  # its outputs are in place, and its record is not begun
        "os.rename store/steps": steps,  # the record is written, and not yet valid
        "os.rename store/latest": steps,
        "fcntl.flock lock": steps,
        "os.symlink runs": outputs,
        "open runs": steps,
    }.items():
        assert calls[call] >= times, (call, calls)
    assert min(phases[p] for p in ("building", "kept, not recorded")) > steps, phases
    assert phases["done outside, not recorded"] > 5, phases


def test_kills_at_random_moments(world, undisturbed) -> None:
    """Some follow upon one another; after some, a hand meddles with what lies in the store."""
    chance = random.Random(SEED)
    print(f"LIGHTBOX_SEED={SEED}")  # shown if this fails
    world = World(world.folder, pause_s=0.004)
    started = time.perf_counter()
    assert not killed(world.child())
    whole_run_s = time.perf_counter() - started
    world.clear()
    deaths, phases, reached = 0, Counter[str](), Counter[int]()
    wanted = {"building", "done outside, not recorded"}
    # Few moments fall into the last step: as many kills as it takes.
    while deaths < KILLS or len(reached) < 7 or not set(phases) >= wanted:
        pid = world.child()
        time.sleep(chance.uniform(0, whole_run_s))
        os.kill(pid, signal.SIGKILL)
        if killed(pid):
            deaths += 1
            phases.update(world.phases())
            reached[len(world.recorded())] += 1
            world.check()
            if chance.random() < 0.5:  # and again, while this one is made good
                continue
        if chance.random() < 0.3:
            tamper(world, chance)
        world.finish(undisturbed)
        world.clear()
    assert len(reached) == 7 and set(phases) >= wanted, phases


def tamper(world: World, chance: random.Random) -> None:
    """Change one byte of one file in the store; it keeps its size, and the time it was modified."""
    files = sorted((world.home.store / "objects").rglob("*.txt"))
    if files:
        file = chance.choice(files)
        stat, content = file.stat(), bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= 1
        file.write_bytes(content)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_torn_records_cost_work_and_nothing_else(world, undisturbed) -> None:
    """A crash of the machine, unlike a kill, may leave any file short."""
    chance = random.Random(SEED)
    print(f"LIGHTBOX_SEED={SEED}")
    world.run()
    again: Counter[str] = Counter()
    for _ in range(max(20, KILLS // 5)):
        records = {path for path in world.folder.rglob("*.json*") if not path.is_symlink()}
        for path in sorted(records):
            if chance.random() < 0.15:
                os.truncate(path, chance.randrange(path.stat().st_size or 1))
        past_runs(world.home)
        foreseen = plan(world.pipeline(), world.home, lambda source: Path(source.uri))
        run = world.run()
        assert run.outcome == "done"
        assert [step.outputs for step in run.steps] == [s.outputs for s in undisturbed.steps]
        again.update(step.name for step in run.steps if step.state == "ran")
        for each in foreseen:
            assert each.action in ("run", "follow") or run.step(each.step).state == "reused"
        assert world.notices() == [1]
        world.check()
        for path in (world.home.store / "objects").glob("*/.lineage.json"):
            assert path.stat().st_size > 100
    assert len(again) == 6, again
