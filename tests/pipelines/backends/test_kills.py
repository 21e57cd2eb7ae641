"""`kill -9` at any moment, then the same command: what was whole is reused, the rest runs once.

LIGHTBOX_KILLS sets how many runs die at random moments; `make torture` asks for thousands.
"""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from torture import World, killed, kills_at_every_call

from lineage.digest import tree_digest
from pipelines.backends.plan import plan
from pipelines.runs import Run, past_runs

KILLS = int(os.environ.get("LIGHTBOX_KILLS", "200"))
SEED = int(os.environ.get("LIGHTBOX_SEED") or random.SystemRandom().randrange(10**6))
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


def test_a_kill_before_every_single_call(world, undisturbed) -> None:
    hit: Counter[str] = Counter()
    for call in kills_at_every_call(world):
        hit[call] += 1
        world.check()
        if world.home.runs.exists():
            assert {run.outcome for run in past_runs(world.home)} <= {"interrupted", "done"}, call
        world.finish(undisturbed)
    # All that could be torn was cut: while building, around each rename, before each record.
    print(hit.total(), hit)
    assert hit.total() > 100
    for call, times in {
        "open store/building": 15,  # a file of an output
        "os.rename store/objects": 7,  # an output is whole, and not yet in its place
        "open store/steps": 6,  # its outputs are in place, and its record is not begun
        "os.rename store/steps": 6,  # the record is written, and not yet valid
        "os.rename store/latest": 6,
        "open runs": 13,
        "lock": 6,
        "open journal.txt": 7,
    }.items():
        assert sum(n for what, n in hit.items() if call in what) >= times, (call, hit)
