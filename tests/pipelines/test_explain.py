from pathlib import Path

import pytest
from toys import Settings, announce, breaks, judge, read

from pipelines.backends import local
from pipelines.explain import explain
from pipelines.graph import Fail, Pipeline, Source, Step, When
from pipelines.runs import Run, StepState


def walk(folder: Path, home, *, text: str = "hello", level: float = 0.5) -> Run:
    plain = Settings(journal=str(folder / "journal.txt"))
    words = Step(
        read,
        plain.model_copy(update={"text": text}),
        source=Source("source", str(folder / "source")),
    )
    judged = Step(judge, plain.model_copy(update={"level": level}), words=words["words"])
    told = Step(announce, plain, verdict=judged["verdict"])
    refused = Fail("refused", judged["reason"], 3)
    pipeline = Pipeline("toy", [words, judged, When(judged["passed"], [told], [refused])])
    return local.run(pipeline, home, lambda source: Path(source.uri))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "in.txt").write_text("x" * 60)
    return tmp_path


def why(run: Run) -> dict[str, str]:
    return {each.step: each.why for each in explain(run)}


def test_each_step_says_why_it_ran(folder, home) -> None:
    walk(folder, home)
    run = walk(folder, home, text="hallo!")
    told = why(run)
    assert told["read"] == "text hello → hallo!"
    assert told["judge"] == "words changed (by read)"
    (difference,) = run.step("read").changed
    assert difference == {"part": "config", "name": "text", "before": "hello", "after": "hallo!"}


def test_a_reused_step_says_which_run_made_it(folder, home) -> None:
    first = walk(folder, home)
    changed = walk(folder, home, text="hallo!")
    assert (
        why(walk(folder, home, text="hallo!"))["read"]
        == f"nothing changed since run {changed.id} made it"
    )
    # Back to what it was: the older result is found again.
    back = why(walk(folder, home))["read"]
    assert back == f"text hallo! → hello; what run {first.id} made stands"


def test_a_reused_step_says_what_it_took_if_that_is_worth_a_word() -> None:
    step = StepState("train", "reused", why="unchanged", made_by="20260101", made_seconds=75)
    (told,) = explain(Run("20260102", "life", "", "", 1, "", [step], outcome="done"))
    assert told.why == "nothing changed since run 20260101 made it in 1 min 15 s"


def test_a_skipped_step_names_the_condition(folder, home) -> None:
    assert why(walk(folder, home, level=0.9))["announce"] == "judge.passed was false"


def test_a_failed_step_gives_its_reason_and_the_rest_say_so(folder, home) -> None:
    plain = Settings(journal=str(folder / "journal.txt"))
    words = Step(read, plain, source=Source("source", str(folder / "source")))
    broken = Step(breaks, plain, words=words["words"])
    after = Step(judge, plain, words=words["words"])
    run = local.run(Pipeline("p", [words, broken, after]), home, lambda source: Path(source.uri))
    assert why(run) == {
        "read": "first time",
        "breaks": "3 rows fail",
        "judge": "the run ended before: failed",
    }
