import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from toys import Settings, announce, breaks, compare, judge, rate, read, stumbles, watch_grow

from components.contract import Input, Output, component
from lineage.errors import BadInput
from lineage.record import read_record
from lineage.workspace import Workspace
from pipelines.backends import keys, local
from pipelines.backends.plan import plan
from pipelines.graph import Fail, Pipeline, Source, Step, When
from pipelines.runs import Run, StepState, past_runs


def toy(journal: Path, source: Path, **settings: object) -> Pipeline:
    config = Settings(journal=str(journal), **settings)
    # Only `judge` depends on the level, so only it gets it: each step has its own section.
    plain = config.model_copy(update={"level": 0.5})
    first = Step(read, plain, source=Source("source", str(source)))
    second = Step(judge, config, words=first["words"])
    third = Step(announce, plain, verdict=second["verdict"])
    refused = Fail("refused", second["reason"], 3)
    return Pipeline("toy", [first, second, When(second["passed"], [third], [refused])])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "in.txt").write_text("x" * 60)
    return folder


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.txt"


def walk(pipeline: Pipeline, home: Workspace) -> Run:
    return local.run(pipeline, home, lambda source: Path(source.uri))


def executions(journal: Path) -> list[str]:
    return journal.read_text().split() if journal.exists() else []


def states(run: Run) -> dict[str, str]:
    return {step.name: step.state for step in run.steps}


def test_a_run_stops_where_it_was_asked_to_and_the_next_goes_on(home, source, journal) -> None:
    first = local.run(toy(journal, source), home, lambda source: Path(source.uri), until="judge")
    assert (first.outcome, first.exit_code) == ("stopped", 0)
    assert first.reason.startswith("after judge, as asked")
    assert states(first) == {"read": "ran", "judge": "ran", "announce": "skipped"}
    assert past_runs(home)[0].outcome == "stopped"
    second = walk(toy(journal, source), home)
    assert states(second) == {"read": "reused", "judge": "reused", "announce": "ran"}


def test_a_run_that_ends_before_where_it_was_to_stop_ends_as_ever(home, source, journal) -> None:
    run = local.run(
        toy(journal, source, level=2.0), home, lambda source: Path(source.uri), until="announce"
    )
    assert (run.outcome, run.exit_code) == ("refused", 3)


def test_an_unknown_step_to_stop_after_is_refused_before_anything(home, source, journal) -> None:
    with pytest.raises(BadInput, match="there are read, judge, announce"):
        local.run(toy(journal, source), home, lambda source: Path(source.uri), until="reed")
    assert not executions(journal) and not past_runs(home)


def test_a_first_run_executes_and_a_second_reuses_everything(home, source, journal) -> None:
    first = walk(toy(journal, source), home)
    assert (first.outcome, first.exit_code) == ("done", 0)
    assert states(first) == dict.fromkeys(("read", "judge", "announce"), "ran")
    second = walk(toy(journal, source), home)
    assert states(second) == dict.fromkeys(("read", "judge", "announce"), "reused")
    assert executions(journal) == ["read", "judge", "announce"]
    assert [s.outputs for s in first.steps] == [s.outputs for s in second.steps]


def test_a_setting_reruns_only_the_steps_that_it_can_affect(home, source, journal) -> None:
    walk(toy(journal, source), home)
    run = walk(toy(journal, source, level=0.1), home)
    assert states(run) == {"read": "reused", "judge": "ran", "announce": "reused"}
    assert run.step("judge").why == "level 0.5 → 0.1"


def test_a_changed_byte_of_the_input_is_noticed(home, source, journal) -> None:
    walk(toy(journal, source), home)
    (source / "in.txt").write_text("y" * 60)
    run = walk(toy(journal, source), home)
    assert states(run)["read"] == "ran"
    assert run.step("read").why == "source changed"


def test_a_refusal_is_never_a_success(home, source, journal) -> None:
    run = walk(toy(journal, source, level=0.9), home)
    assert (run.outcome, run.exit_code) == ("refused", 3)
    assert run.reason == "share 0.65 against 0.9"
    assert states(run)["announce"] == "skipped"


def test_an_effect_whose_receipt_no_longer_holds_is_done_again(home, source, journal) -> None:
    walk(toy(journal, source), home)
    journal.with_name("board.txt").unlink()
    run = walk(toy(journal, source), home)
    assert states(run) == {"read": "reused", "judge": "reused", "announce": "ran"}


def test_a_tampered_output_is_noticed_and_made_again(home, source, journal) -> None:
    first = walk(toy(journal, source), home)
    words = home.store / "objects" / first.step("read").outputs["words"] / "words.txt"
    words.write_text("tampered")
    run = walk(toy(journal, source), home)
    assert states(run)["read"] == "ran"
    assert words.read_text().startswith("x")


def test_an_output_that_is_edited_while_the_run_goes_on_is_not_used(home, source, journal) -> None:
    def meddle(run: Run, step: StepState) -> None:
        if step.name == "read" and step.state == "ran":
            (home.store / "objects" / step.outputs["words"] / "words.txt").write_text("x" * 999)

    run = local.run(toy(journal, source), home, lambda source: Path(source.uri), tell=meddle)
    assert (run.outcome, executions(journal)) == ("failed", ["read"])
    assert "read.words was changed after it was made" in run.reason
    again = walk(toy(journal, source), home)
    assert (again.outcome, states(again)["read"]) == ("done", "ran")


def test_a_torn_record_counts_as_never_done(home, source, journal) -> None:
    first = walk(toy(journal, source), home)
    record = home.store / "steps" / f"{first.step('read').key}.json"
    record.write_text(record.read_text()[:40])
    assert states(walk(toy(journal, source), home))["read"] == "ran"


def test_what_a_failing_step_wrote_is_kept(home, source, journal) -> None:
    first = Step(read, Settings(journal=str(journal)), source=Source("source", str(source)))
    second = Step(breaks, Settings(journal=str(journal)), words=first["words"])
    run = walk(Pipeline("p", [first, second]), home)
    assert (run.outcome, run.exit_code, run.reason) == ("failed", 1, "3 rows fail")
    kept = home.runs / run.id / "failed" / "breaks" / "report" / "why.txt"
    assert kept.read_text() == "because"
    assert not list((home.store / "building").iterdir())


@pytest.mark.parametrize(("good_at", "tries"), [(3, 3), (4, 3)])
def test_a_stumbling_step_is_tried_as_often_as_it_allows(
    home, source, journal, good_at, tries
) -> None:
    config = Settings(journal=str(journal), level=good_at)
    first = Step(read, config, source=Source("source", str(source)))
    pipeline = Pipeline("p", [first, Step(stumbles, config, words=first["words"])])
    if good_at <= tries:
        assert walk(pipeline, home).outcome == "done"
    else:
        with pytest.raises(ConnectionError):
            walk(pipeline, home)
        assert past_runs(home)[0].outcome == "failed"
    assert executions(journal).count("stumbles") == tries


def test_every_output_says_what_made_it(home, source, journal) -> None:
    run = walk(toy(journal, source), home)
    record = read_record(home.runs / run.id / "judge.verdict")
    assert record["step"] == "judge"
    assert record["inputs"] == {"words": run.step("read").outputs["words"]}
    assert record["content"] == run.step("judge").outputs["verdict"]
    assert record["environment"]["python"].startswith("3.")


def test_a_source_that_is_not_there_is_bad_input_and_recorded(home, source, journal) -> None:
    def nowhere(source: Source) -> Path:
        raise BadInput("sources.source: nowhere")

    with pytest.raises(BadInput):
        local.run(toy(journal, source), home, nowhere)
    (run,) = past_runs(home)
    assert (run.outcome, run.exit_code) == ("bad input", 2)


KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = [{helpers!r}, {root!r}, {here!r}]
import toys, test_local
from lineage.workspace import Workspace
from pipelines.backends import local
from pipelines.backends.plan import plan
def tell(run, step):
    if step.name == {at!r} and step.state == {state!r}:
        print("here", flush=True)
        time.sleep(60)
local.run(test_local.toy(Path({journal!r}), Path({source!r})), Workspace(Path({home!r})),
          lambda source: Path(source.uri), tell=tell)
"""


@pytest.mark.parametrize("at", ["read", "judge", "announce"])
@pytest.mark.parametrize("state", ["running", "ran"])
def test_a_killed_run_resumes_with_the_same_command(home, source, journal, at, state) -> None:
    here = Path(__file__).parent
    program = KILLED.format(
        helpers=str(here.parents[1] / "helpers"),
        root=str(here.parents[2]),
        here=str(here),
        at=at,
        state=state,
        journal=str(journal),
        source=str(source),
        home=str(home.home),
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGKILL)
    assert past_runs(home)[0].outcome == "interrupted"
    run = walk(toy(journal, source), home)
    assert run.outcome == "done"
    # The kill came between two steps, so each of them ran exactly once over both processes.
    assert sorted(executions(journal)) == sorted(["read", "judge", "announce"])


def test_two_runs_at_once_share_the_work(home, source, journal) -> None:
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                walk(toy(journal, source), home)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert [run.outcome for run in past_runs(home)] == ["done"] * 3
    assert sorted(executions(journal)) == sorted(["read", "judge", "announce"])


def test_a_run_that_is_still_going_is_not_called_interrupted(home, source, journal) -> None:
    seen = []
    local.run(
        toy(journal, source),
        home,
        lambda source: Path(source.uri),
        tell=lambda run, step: seen.append(past_runs(home)[0].outcome),
    )
    assert set(seen) == {"running"}


@pytest.fixture
def throne(tmp_path: Path) -> Path:
    """Where whatever is in service lies."""
    folder = tmp_path / "throne"
    folder.mkdir()
    (folder / "words.txt").write_text("the first")
    return folder


def against(throne: Path, journal: Path, source: Path) -> Pipeline:
    config = Settings(journal=str(journal))
    made = Step(read, config, source=Source("source", str(source)))
    rival = Source("rival", str(throne), replaced_by=made["words"])
    return Pipeline("p", [made, Step(compare, config, mine=made["words"], theirs=rival)])


def enthrone(run: Run, home: Workspace, throne: Path) -> None:
    words = home.runs / run.id / "read.words" / "words.txt"
    (throne / "words.txt").write_bytes(words.read_bytes())


def test_what_is_in_service_itself_need_not_beat_itself(home, source, journal, throne) -> None:
    first = walk(against(throne, journal, source), home)
    enthrone(first, home, throne)
    again = walk(against(throne, journal, source), home)
    assert states(again) == {"read": "reused", "compare": "reused"}
    assert again.step("compare").values == first.step("compare").values


@component()
def read_with_images(config: Settings, source: Input, words: Output) -> None:
    """Write what a registry keeps, and more, which it does not."""
    (words / "words.txt").write_text((source / "in.txt").read_text())
    (words / "images.bin").write_bytes(b"large")


def test_some_files_of_it_are_enough_to_be_told_as_the_same(home, source, journal, throne) -> None:
    config = Settings(journal=str(journal))
    made = Step(read_with_images, config, source=Source("source", str(source)))
    rival = Source("rival", str(throne), replaced_by=made["words"])
    judged = Step(compare, config, mine=made["words"], theirs=rival)
    pipeline = Pipeline("p", [made, judged])
    (throne / "words.txt").write_bytes((source / "in.txt").read_bytes())
    assert set(states(walk(pipeline, home)).values()) == {"ran"}  # it never met another
    (throne / "words.txt").write_text("another")
    first = walk(pipeline, home)
    assert states(first)["compare"] == "ran"
    (throne / "words.txt").write_bytes((source / "in.txt").read_bytes())
    again = walk(pipeline, home)
    assert states(again)["compare"] == "reused"
    assert again.step("compare").values == first.step("compare").values
    assert [p.action for p in plan(pipeline, home, lambda s: Path(s.uri))] == ["reuse", "reuse"]
    nobody = throne.parent / "nobody"
    nobody.mkdir()
    two, paths = {"mine": "a", "theirs": "b"}, {"mine": throne, "theirs": nobody}
    assert keys.settled(judged, two, paths) == two
    (throne / "more.txt").write_text("not of it")
    assert states(walk(pipeline, home))["compare"] == "ran"


def test_another_rival_is_met_anew(home, source, journal, throne) -> None:
    enthrone(walk(against(throne, journal, source), home), home, throne)
    (throne / "words.txt").write_text("the third" * 30)
    later = walk(against(throne, journal, source), home)
    assert states(later)["compare"] == "ran"
    assert later.step("compare").values["passed"] is False
    # And then it is that comparison which stands.
    enthrone(later, home, throne)
    assert walk(against(throne, journal, source), home).step("compare").values["passed"] is False


def test_a_model_that_was_never_compared_meets_itself(home, source, journal, throne) -> None:
    (throne / "words.txt").write_text((source / "in.txt").read_text() + "hello")
    run = walk(against(throne, journal, source), home)
    assert run.step("compare").values["reason"] == "65 against 65"


def rated(journal: Path, source: Path, *, level: float = 0.5, text: str = "hello") -> Pipeline:
    config = Settings(journal=str(journal), level=level)
    words = Step(
        read, config.model_copy(update={"text": text}), source=Source("source", str(source))
    )
    return Pipeline("p", [words, Step(rate, config, words=words["words"])])


def test_what_a_late_step_cannot_use_is_told_before_the_first_one_runs(
    home, source, journal
) -> None:
    with pytest.raises(BadInput, match="no share lies above 1"):
        walk(rated(journal, source, level=2), home)
    assert executions(journal) == ["check"]
    assert states(past_runs(home)[0]) == {"read": "skipped", "rate": "failed"}


def test_settings_that_worked_before_are_not_checked_again(home, source, journal) -> None:
    walk(rated(journal, source), home)
    assert executions(journal) == ["check", "read", "rate"]
    walk(rated(journal, source, text="hallo"), home)
    assert executions(journal) == ["check", "read", "rate", "read", "rate"]
    walk(rated(journal, source, text="hallo"), home)  # nothing runs, so nothing is asked
    assert executions(journal).count("check") == 1


def test_a_source_that_grows_while_it_is_read_serves_this_run_only(home, source, journal) -> None:
    """The key would lie: it names what lay there before."""
    step = Step(watch_grow, Settings(journal=str(journal)), source=Source("s", str(source)))
    run = walk(Pipeline("p", [step]), home)
    assert (run.outcome, states(run)) == ("done", {"watch_grow": "ran"})
    assert "source changed meanwhile" in run.step("watch_grow").why
    (source / "later.txt").unlink()
    assert states(walk(Pipeline("p", [step]), home)) == {"watch_grow": "ran"}
