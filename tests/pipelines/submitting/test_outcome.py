"""What an engine tells, in our words: the same graph as in the engines' own tests."""

from datetime import UTC, datetime, timedelta

import pytest
from small_lifecycle import small_lifecycle

from pipelines.runs import Run
from pipelines.submitting.engine import Execution, Task
from pipelines.submitting.outcome import conclude, update
from pipelines.submitting.record import submitted

BEGAN = datetime(2026, 1, 2, 3, tzinfo=UTC)
RELEASED = ("take_in", "fit", "evaluate", "enter", "approve", "watch")


def run() -> Run:
    pipeline = small_lifecycle()
    return submitted(pipeline, "a.yaml", ())


def ended(state: str, tasks: dict[str, str], reason: str = "", **why: str) -> Run:
    told = tuple(
        Task(name, status, BEGAN, BEGAN + timedelta(seconds=30), why.get(name, ""))
        for name, status in tasks.items()
    )
    found, execution = run(), Execution("id", state, reason=reason, tasks=told)
    update(found, execution)
    conclude(found, execution)
    return found


def ran(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "ran")


def test_done() -> None:
    found = ended("succeeded", {**ran(*RELEASED), "take_in": "reused"})
    assert (found.outcome, found.exit_code, found.reason) == ("done", 0, "")
    assert found.step("evaluate").values == {"passed": True}
    assert found.step("fit").seconds == 30


@pytest.mark.parametrize("spelled", ["refused", "Refused", "refused-2"])
def test_a_fail_that_was_reached_is_the_outcome(spelled) -> None:
    tasks = {**ran("take-in", "fit", "evaluate", "enter"), spelled: "failed"}
    found = ended("failed", tasks, "a step failed", **{spelled: "refused: auroc 0.5 < 0.8"})
    assert (found.outcome, found.exit_code) == ("refused", 3)
    assert found.reason == "auroc 0.5 < 0.8"
    assert found.step("take_in").state == "ran"
    assert found.step("approve").state == "skipped"
    assert found.step("evaluate").values == {"passed": False}


def test_an_outcome_of_several_words() -> None:
    tasks = {**ran("take-in", "fit", "evaluate", "enter", "approve")}
    found = ended("failed", {**tasks, "waiting-for-approval": "failed"})
    assert (found.outcome, found.exit_code) == ("waiting for approval", 4)
    assert "waiting-for-approval" in found.reason  # where to look for it
    assert found.step("evaluate").values == {"passed": True}
    assert found.step("approve").values == {"approved": False}


def test_a_step_that_failed_outweighs_how_the_graph_ended() -> None:
    tasks = {**ran("take_in", "fit", "evaluate"), "enter": "failed", "refused": "failed"}
    found = ended("failed", tasks, enter="no registry")
    assert (found.outcome, found.exit_code) == ("failed", 1)
    assert found.reason == "enter failed: no registry"


def test_a_step_that_failed_is_believed_though_the_engine_says_success() -> None:
    # A run whose last task is an exit handler may succeed by Argo's count.
    assert ended("succeeded", {**ran(*RELEASED), "fit": "failed"}).exit_code == 1


def test_what_is_no_step_of_ours_fails_a_run_too() -> None:
    found = ended("failed", {**ran("take_in"), "fit-driver": "failed"})
    assert (found.outcome, found.exit_code) == ("failed", 1)
    assert found.reason == "fit-driver failed"


def test_a_failure_without_a_word() -> None:
    found = ended("failed", ran("take_in"))
    assert (found.outcome, found.exit_code) == ("failed", 1)
    assert "does not say" in found.reason


def test_stopped_on_the_engine() -> None:
    found = ended("stopped", {"take_in": "ran", "fit": "stopped"})
    assert (found.outcome, found.exit_code) == ("interrupted", 1)
    assert found.step("fit").state == "failed"


@pytest.mark.parametrize(
    "tasks",
    [
        {},  # an emulator that calls success what never ran
        ran("take_in", "fit"),
        ran("take_in", "fit", "evaluate", "enter"),  # neither branch was taken, and one must be
        {**ran(*RELEASED), "watch": "running"},
        {**ran(*RELEASED), "fit": "skipped"},
        {n: "ran" for n in RELEASED if n != "fit"},
    ],
)
def test_what_the_graph_does_not_explain_is_no_success(tasks) -> None:
    found = ended("succeeded", tasks)
    assert (found.outcome, found.exit_code) == ("failed", 1)
    assert "the engine says that the run succeeded, but not that" in found.reason


def test_a_fail_that_the_engine_overlooks_is_no_success_either() -> None:
    tasks = {**ran("take_in", "fit", "evaluate", "enter"), "refused": "failed"}
    assert ended("succeeded", tasks).exit_code == 3


def test_only_what_is_new_is_told() -> None:
    found = run()
    look = Execution("id", "running", tasks=(Task("take-in", "running", BEGAN),))
    assert [step.name for step in update(found, look)] == ["take_in"]
    assert update(found, look) == []
    look = Execution("id", "running", tasks=(Task("take-in", "ran", BEGAN, values={"n": 1}),))
    assert [(s.state, s.values) for s in update(found, look)] == [("ran", {"n": 1})]
