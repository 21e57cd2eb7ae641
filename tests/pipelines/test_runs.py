"""The record of a run, whatever became of the run."""

import json
import os

import pytest

from lineage.errors import BadInput
from pipelines import runs
from pipelines.runs import Run, RunFolder, StepState, find_run, now, past_runs


def begun(home, run_id: str = "20260102-030405-abcd") -> RunFolder:
    steps = [StepState("read"), StepState("judge")]
    folder = RunFolder(home.runs / run_id)
    folder.begin(Run(run_id, "toy", "toy.yaml", "0" * 64, os.getpid(), now(), steps))
    return folder


def test_a_run_is_seen_while_it_goes_on(home) -> None:
    folder = begun(home)
    folder.note(StepState("read", "ran", values={"n": 3}))
    folder.note(StepState("judge", "running"))
    run = find_run(home, None)
    assert [(s.name, s.state) for s in run.steps] == [("read", "ran"), ("judge", "running")]
    assert run.step("read").values == {"n": 3}
    assert run.outcome == "running"


def test_a_run_whose_process_died_was_interrupted(home) -> None:
    if (child := os.fork()) == 0:
        begun(home)
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # dead, and its parent has not looked yet
    (run,) = past_runs(home)
    assert (run.outcome, run.exit_code) == ("interrupted", 130)
    os.waitpid(child, 0)


def test_a_run_that_ends_while_one_looks_was_not_interrupted(home, monkeypatch) -> None:
    folder, goes_on = begun(home), runs._goes_on
    (ended,) = past_runs(home)
    ended.outcome, ended.exit_code = "done", 0

    def looks(path):
        folder.end(ended)
        return goes_on(path)

    monkeypatch.setattr(runs, "_goes_on", looks)
    assert [run.outcome for run in past_runs(home)] == ["done"]


def test_a_run_whose_end_could_not_be_written_does_not_seem_to_go_on(home) -> None:
    """The disk was full; its process, a notebook's, lives on."""
    folder = begun(home)
    begin = (folder.path / "run.json").read_text()
    folder.end(past_runs(home)[0])
    (folder.path / "run.json").write_text(begin)
    assert [run.outcome for run in past_runs(home)] == ["interrupted"]


def test_a_line_that_a_kill_tore_is_passed_over(home) -> None:
    folder = begun(home)
    folder.note(StepState("read", "ran"))
    folder.note(StepState("judge", "running"))
    lines = (folder.path / "steps.jsonl").read_text()
    (folder.path / "steps.jsonl").write_text(lines[:-20])
    assert [s.state for s in find_run(home, None).steps] == ["ran", "waiting"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({"steps": [{"colour": "red"}]})])
def test_a_record_that_cannot_be_read_hides_no_other(home, text) -> None:
    begun(home)
    torn = home.runs / "20260909-000000-ffff"
    torn.mkdir()
    (torn / "run.json").write_text(text)
    assert [run.id for run in past_runs(home)] == ["20260102-030405-abcd"]
    with pytest.raises(BadInput, match="cannot be read"):
        find_run(home, "20260909")


def test_a_run_is_found_by_the_beginning_of_its_id(home) -> None:
    with pytest.raises(BadInput, match="no runs here yet"):
        find_run(home, None)
    begun(home, "20260102-030405-abcd")
    begun(home, "20260102-040506-ef01")
    assert find_run(home, None).id == "20260102-040506-ef01"
    assert find_run(home, "20260102-03").id == "20260102-030405-abcd"
    with pytest.raises(BadInput, match="2 runs begin with '20260102'"):
        find_run(home, "20260102")
    with pytest.raises(BadInput, match="no run begins with 'x'"):
        find_run(home, "x")
