"""What a run would do, held against what it then does."""

from pathlib import Path

import pytest
from toys import Settings, announce, judge, read

from pipelines.backends import local
from pipelines.backends.plan import FOLLOW, REUSE, RUN, SKIP, plan
from pipelines.graph import Fail, Pipeline, Source, Step, When


def where(source: Source) -> Path:
    return Path(source.uri)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "in.txt").write_text("x" * 60)
    return tmp_path


def toy(folder: Path, *, text: str = "hello", level: float = 0.5, post: str = "") -> Pipeline:
    plain = Settings(journal=str(folder / "journal.txt"))
    first = Step(
        read,
        plain.model_copy(update={"text": text}),
        source=Source("source", str(folder / "source")),
    )
    second = Step(judge, plain.model_copy(update={"level": level}), words=first["words"])
    third = Step(announce, plain.model_copy(update={"text": post}), verdict=second["verdict"])
    refused = Fail("refused", second["reason"], 3)
    return Pipeline("toy", [first, second, When(second["passed"], [third], [refused])])


def planned(pipeline: Pipeline, home) -> dict[str, str]:
    return {each.step: each.action for each in plan(pipeline, home, where)}


def test_nothing_was_run_yet(folder, home) -> None:
    steps = plan(toy(folder), home, where)
    assert [(s.step, s.action, s.why, s.when) for s in steps] == [
        ("read", RUN, "first time", ""),
        ("judge", RUN, "after read: first time", ""),
        ("announce", RUN, "after judge: first time", "judge.passed"),
    ]
    assert not (folder / "journal.txt").exists()
    assert not home.runs.exists()


def test_nothing_has_changed(folder, home) -> None:
    local.run(toy(folder), home, where)
    assert planned(toy(folder), home) == dict.fromkeys(("read", "judge", "announce"), REUSE)


def test_a_changed_setting_runs_its_step_and_the_next_ones_follow(folder, home) -> None:
    local.run(toy(folder), home, where)
    steps = {each.step: each for each in plan(toy(folder, text="hallo"), home, where)}
    assert (steps["read"].action, steps["read"].why) == (RUN, "text hello → hallo")
    assert steps["read"].seconds is not None
    assert (steps["judge"].action, steps["judge"].why) == (FOLLOW, "after read")
    # What is certain to differ further down is said at once.
    both = {each.step: each for each in plan(toy(folder, text="hallo", post="x"), home, where)}
    assert (both["announce"].action, both["announce"].why) == (RUN, "after judge: text empty → x")


def test_a_branch_that_will_not_be_taken_is_skipped(folder, home) -> None:
    local.run(toy(folder, level=0.9), home, where)
    steps = {each.step: each for each in plan(toy(folder, level=0.9), home, where)}
    assert (steps["announce"].action, steps["announce"].why) == (SKIP, "another branch is taken")


def test_an_effect_that_no_longer_stands_is_done_again(folder, home) -> None:
    local.run(toy(folder), home, where)
    (folder / "board.txt").unlink()
    steps = {each.step: each for each in plan(toy(folder), home, where)}
    assert steps["announce"].action == RUN
    assert "no longer stands" in steps["announce"].why


def test_a_result_that_was_removed_is_made_again(folder, home) -> None:
    run = local.run(toy(folder), home, where)
    words = home.store / "objects" / run.step("read").outputs["words"] / "words.txt"
    words.unlink()
    steps = {each.step: each for each in plan(toy(folder), home, where)}
    assert steps["read"].action == RUN
    assert steps["read"].why == "its result is gone, or is no longer what it was"


@pytest.mark.parametrize(
    "change", [{}, {"text": "hallo"}, {"level": 0.1}, {"level": 0.99}, {"post": "x"}]
)
def test_what_is_planned_happens(folder, home, change) -> None:
    local.run(toy(folder), home, where)
    foreseen = planned(toy(folder, **change), home)
    run = local.run(toy(folder, **change), home, where)
    for step in run.steps:
        allowed = {RUN: {"ran"}, REUSE: {"reused"}, SKIP: {"skipped"}}
        # Whoever follows may be spared, or lie in a branch that is not taken.
        fits = allowed.get(foreseen[step.name], {"ran", "reused", "skipped"})
        assert step.state in fits, (step.name, foreseen[step.name])
