"""The tree of a run in a terminal."""

import io
import os
import pty
import re
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from components.progress import Work
from pipelines.live import LiveTree, window
from pipelines.runs import Run, StepState

ROOT = Path(__file__).parents[2]
GRAPH = {
    "name": "life",
    "sources": {},
    "nodes": [
        {"step": "train"},
        {"step": "gate"},
        {
            "when": "gate.passed",
            "then": [{"step": "promote"}],
            "otherwise": [{"fail": "refused", "exit_code": 3}],
        },
    ],
}


def run_of(**states: str) -> Run:
    steps = [StepState(name, states.get(name, "waiting")) for name in ("train", "gate", "promote")]
    return Run("20260101-000000-abcd", "life", "c.yaml", "", 1, "", steps, graph=GRAPH)


def drawn(tree: LiveTree, width: int = 100) -> list[str]:
    """The tree as plain lines."""
    out = io.StringIO()
    Console(file=out, width=width, height=tree.console.height).print(tree)
    return out.getvalue().splitlines()


def coloured(tree: LiveTree) -> list[str]:
    """The tree as lines with escape codes."""
    out = io.StringIO()
    Console(
        file=out, width=100, force_terminal=True, no_color=False, color_system="standard"
    ).print(tree)
    return out.getvalue().splitlines()


@pytest.fixture
def tree() -> LiveTree:
    return LiveTree(Console(file=io.StringIO(), width=100, height=40))


def test_each_state_has_its_line_under_its_branch(tree) -> None:
    run = tree.run = run_of(train="ran", gate="running")
    run.step("train").seconds, run.step("train").why = 185, "learning_rate 0.001 → 0.003"
    run.step("train").values = {"best_epoch": 7, "auroc": 0.98765}
    tree.entered = time.monotonic() - 12
    lines = drawn(tree)
    assert lines[0] == "life"
    assert lines[1] == (
        "├── ✓ train       3 min 05 s  best_epoch=7  auroc=0.988  (learning_rate 0.001 → 0.003)"
    )
    assert re.fullmatch(r"├── [⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] gate              12 s", lines[2].rstrip())
    assert [line.rstrip() for line in lines[3:]] == [
        "├── when gate.passed",
        "│   └── · promote",
        "└── otherwise",
        "    └── end as “refused”",
    ]


def test_what_was_not_reached_is_dim_and_the_rest_is_not(tree) -> None:
    tree.run = run_of(train="ran", gate="failed")
    lines = coloured(tree)
    assert "\x1b[32m✓ \x1b[0mtrain" in lines[1]
    assert "\x1b[31m✗ \x1b[0mgate" in lines[2]
    assert "\x1b[2mwhen gate.passed" in lines[3]
    assert "\x1b[2mpromote" in lines[4]


def test_the_branch_that_was_taken_stands_out(tree) -> None:
    run = tree.run = run_of(train="ran", gate="ran")
    run.step("gate").values, run.outcome = {"passed": False}, "refused"
    lines = coloured(tree)
    assert "\x1b[2mwhen gate.passed" in lines[3]
    assert "\x1b[33motherwise" in lines[5]
    assert "\x1b[1;31m■ end as “refused”: so it ended" in lines[6]
    run.step("gate").values, run.outcome = {"passed": True}, "done"
    lines = coloured(tree)
    assert "\x1b[33mwhen gate.passed" in lines[3]
    assert "\x1b[2motherwise" in lines[5]
    assert "\x1b[2mend as “refused”" in lines[6]


def test_in_the_end_nothing_seems_to_come_still(tree) -> None:
    run = tree.run = run_of(train="reused", gate="failed", promote="skipped")
    run.outcome = "interrupted"
    tree.over = True
    lines = [line.rstrip() for line in drawn(tree)]
    assert lines[1].split()[1:] == ["↺", "train", "reused"]
    assert lines[2].split()[1:] == ["■", "gate", "stopped"]
    assert lines[4] == "│   └── – promote"


def test_the_terminal_it_writes_to_is_measured_and_no_other() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (9, 33))
    with os.fdopen(theirs, "w") as screen, os.fdopen(ours):
        console = Console(file=screen)
        LiveTree(console)._fitted()
        assert console.size == (33, 9)
        termios.tcsetwinsize(theirs, (12, 50))
        LiveTree(console)._fitted()
        assert console.size == (50, 12)


def test_the_running_step_shows_the_work_inside_it(tree) -> None:
    tree.run = run_of(train="running")
    tree.work = work = Work("train")
    work.advance(5, 20, "loss 0.31")
    assert drawn(tree)[2] == "│       " + "━" * 20 + "  5/20  loss 0.31"
    assert drawn(tree, 60)[2] == "│       " + "━" * 8 + "  5/20  loss 0.31"
    work.title, work.total = "read images", 0
    assert drawn(tree)[2] == "│       read images 5  loss 0.31"
    work.ended = True
    tree.hear(work)
    assert not any("read images" in line for line in drawn(tree))


def test_a_blocked_step_says_what_it_waits_for(tree) -> None:
    tree.run = run_of(train="blocked")
    tree.entered = time.monotonic()
    assert "another run is making this; waiting" in drawn(tree)[1]


@pytest.mark.parametrize("width", [20, 60, 100])
def test_no_line_is_wider_than_the_terminal(tree, width) -> None:
    run = tree.run = run_of(train="ran", gate="running")
    run.step("train").values = {"text": "long " * 50}
    tree.work = Work("score test images", done=3, total=4, note="note " * 50)
    lines = drawn(tree, width)
    assert len(lines) == 8  # nothing is wrapped
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("height", range(1, 12))
@pytest.mark.parametrize("focus", range(10))
def test_a_low_terminal_shows_the_running_step(height, focus) -> None:
    lines = [Text(str(i)) for i in range(10)]
    shown = [line.plain for line in window(lines, focus, height)]
    assert len(shown) == min(height, 10)
    assert str(focus) in shown
    if 5 <= height < 10 and focus < 9:
        assert str(focus + 1) in shown  # the work inside it


def test_the_window_tells_what_it_leaves_out() -> None:
    shown = [line.plain for line in window([Text(str(i)) for i in range(10)], 5, 5)]
    assert shown == ["⋮ 5 more", "5", "6", "7", "⋮ 2 more"]


PROGRAM = """
import sys, time
from pathlib import Path
from pydantic import BaseModel
from components.contract import Output, component
from components.progress import progress
from lineage.workspace import workspace
from pipelines.backends import local
from pipelines.graph import Pipeline, Step
from pipelines.tell import Narrator

class Settings(BaseModel):
    seconds: float

@component()
def train(config: Settings, model: Output) -> None:
    with progress("train") as report:
        for epoch in range(10):
            time.sleep(config.seconds / 10)
            report(epoch + 1, 10, "loss 0.5")

@component()
def gate(config: Settings, verdict: Output) -> None:
    ...

settings = Settings(seconds=float(sys.argv[1]))
with Narrator() as narrator:
    local.run(Pipeline("life", [Step(train, settings), Step(gate, settings)]),
              workspace(), None, tell=narrator.tell)
"""


def shown(home: Path, seconds: float, height: int = 24, **env: str) -> str:
    """What the program writes to a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (height, 80))
    program = home.parent / "program.py"
    program.write_text(PROGRAM)  # a module on disk, as every component is
    settings = {"PYTHONPATH": str(ROOT), "LIGHTBOX_HOME": str(home), "TERM": "xterm-256color"}
    environment = {**os.environ, **settings, **env}
    # Only standard error is the terminal, as in `lightbox run … | tee`.
    child = subprocess.Popen(
        [sys.executable, str(program), str(seconds)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    found = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # how Linux tells that the other side has closed
            break
        found += chunk
    os.close(ours)
    assert child.wait() == 0
    return found.decode()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_it_is_repainted_and_stays_once_in_the_end(home) -> None:
    text = shown(home.home, 1.0)
    assert "/10" in plain(text)
    # What stands on the screen is what was written after the last return to the top.
    last = plain(text[text.rindex("\x1b[1A") :])
    assert [last.count(name) for name in ("life", "✓ train", "✓ gate", "/10")] == [1, 1, 1, 0]
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back


def test_in_a_low_terminal_the_whole_tree_stays_in_the_end(home) -> None:
    text = shown(home.home, 1.0, height=3)
    last = text.rindex("\x1b[1A")
    before = plain(text[: text.rindex("life")])
    assert "/10" in before
    # Beside the progress there was no room for it; a first picture may come before any progress.
    assert not re.search(r"/10[^\r\n]*\r\n[^\r\n]*gate", before)
    assert "✓ train" in plain(text[last:]) and "✓ gate" in plain(text[last:])


def test_a_run_that_has_nothing_to_do_is_painted_once(home) -> None:
    shown(home.home, 0.0)
    text = shown(home.home, 0.0)
    assert "\x1b[1A" not in text and "\x1b[?25l" not in text
    assert plain(text).count("train") == 1
    assert plain(text).count("reused") == 2


def test_without_colour_it_uses_none(home) -> None:
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown(home.home, 0.5, NO_COLOR="1"))


def test_a_dumb_terminal_gets_lines(home) -> None:
    text = shown(home.home, 0.0, TERM="dumb")
    assert "\x1b" not in text
    assert [line.split()[:2] for line in text.splitlines()] == [["ran", "train"], ["ran", "gate"]]
