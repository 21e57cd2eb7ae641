"""What a person is told of a run where there is no terminal, and when it has ended."""

import sys
from pathlib import Path

import pytest
from rich.console import Console
from toys import Settings, breaks, judge, read

from components.progress import progress
from lineage.workspace import Workspace
from pipelines.backends import local
from pipelines.graph import Pipeline, Source, Step
from pipelines.runs import Run, StepState
from pipelines.tell import Narrator, summary


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "in.txt").write_text("x" * 60)
    config = Settings(journal=str(tmp_path / "journal.txt"))
    first = Step(read, config, source=Source("source", str(folder)))
    second = Step(judge, config, words=first["words"])
    return Pipeline("toy", [first, second, Step(breaks, config, words=first["words"])])


def walk(pipeline: Pipeline, home: Workspace, narrator: Narrator) -> Run:
    return local.run(pipeline, home, lambda source: Path(source.uri), tell=narrator.tell)


def test_each_step_is_a_line_and_there_are_no_codes(home, pipeline, capsys) -> None:
    with Narrator() as narrator:
        walk(pipeline, home, narrator)
    out, err = capsys.readouterr()
    assert (out, "\x1b" in err) == ("", False)
    assert [line.split()[:2] for line in err.splitlines()] == [
        ["ran", "read"],
        ["ran", "judge"],
        ["failed", "breaks"],
    ]
    assert "passed=True  reason=share 0.65 against 0.5" in err


def test_where_a_machine_reads_nothing_is_told(home, pipeline, capsys) -> None:
    with Narrator(quiet=True) as narrator:
        walk(pipeline, home, narrator)
    assert capsys.readouterr() == ("", "")


def test_the_work_inside_a_long_step_is_told_now_and_then(monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        "pipelines.tell.now_and_then",
        lambda write: lambda work: write(f"{work.title} {work.done}/{work.total}"),
    )
    with Narrator() as narrator:
        narrator.tell(run_of("running"), StepState("train", "running"))
        with progress("read [images]") as report:
            report(5, 20, "")
    assert "          train:  read [images] 5/20\n" in capsys.readouterr().err


def test_a_blocked_step_is_told_at_once(capsys) -> None:
    with Narrator() as narrator:
        narrator.tell(run_of("running"), StepState("train", "blocked"))
        assert "train  another run is making this; waiting" in capsys.readouterr().err


def test_an_error_nobody_foresaw_names_the_log(home, capsys) -> None:
    run = run_of("running", train="failed")
    log = home.runs / run.id / "logs" / "train.log"
    log.parent.mkdir(parents=True)
    log.write_text("frames\n")
    with pytest.raises(KeyError), Narrator() as narrator:
        narrator.tell(run, StepState("train", "running"))
        raise KeyError("Mueller")
    told = capsys.readouterr().err
    assert f"log: {log}" in told
    assert "Mueller" not in told


def test_a_closed_standard_error_is_no_trouble(home, pipeline, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with Narrator() as narrator:
        walk(pipeline, home, narrator)


def run_of(outcome: str, code: int | None = None, reason: str = "", **states: str) -> Run:
    steps = [StepState(name, state) for name, state in (states or {"train": "ran"}).items()]
    began, ended = "2026-01-01T10:00:00.000+00:00", "2026-01-01T10:03:05.000+00:00"
    return Run(
        id="20260101-100000-abcd",
        pipeline="life",
        config="my configs/phantom.yaml",
        config_digest="",
        pid=1,
        started_at=began,
        steps=steps,
        ended_at=ended,
        outcome=outcome,
        exit_code=code,
        reason=reason,
    )


def told(run: Run) -> list[str]:
    """The summary as a person reads it, spaces folded."""
    console = Console(width=300)
    return [" ".join(line.plain.split()) for line in console.render_str(summary(run)).split()]


def test_a_run_that_is_done_says_how_long_it_took_and_what_comes_next(home) -> None:
    run = run_of("done", 0, ingest="reused", train="ran")
    run.steps[1].values = {"model_version": "finding:1"}
    assert told(run) == [
        "done (1 ran, 1 reused, 3 min 05 s; run 20260101-100000-abcd)",
        "next: lightbox lineage finding:1 where it came from, and who allowed it",
        "lightbox watch 'my configs/phantom.yaml' judge what its endpoint captured",
    ]


def test_brackets_of_a_reason_are_not_taken_for_markup(home) -> None:
    assert told(run_of("refused", 3, "auroc in [red]"))[0].startswith("refused: auroc in [red]")


NEXT = [
    ("waiting for approval", 4, 'lightbox approve finding:1 --reason "…"'),
    ("rolled back", 5, "lightbox endpoint status"),
    ("refused", 3, "lightbox lineage finding:1"),
    ("failed", 1, "the same command again goes on from gate, once the cause is mended"),
    ("interrupted", 130, "the same command again goes on from gate"),
]


@pytest.mark.parametrize(("outcome", "code", "command"), NEXT)
def test_the_next_command_hangs_on_the_ending(home, outcome, code, command) -> None:
    run = run_of(outcome, code, train="ran", gate="failed" if code in (1, 130) else "ran")
    run.steps[0].values = {"model_version": "finding:1"}
    assert told(run)[1].startswith(f"next: {command}")


def test_a_retraining_that_was_asked_for_is_the_next_command(home) -> None:
    run = run_of("done", 0, retrain="ran")
    run.steps[0].values = {"requested": True}
    assert told(run)[1].startswith("next: lightbox run 'my configs/phantom.yaml'")


def test_a_run_that_did_nothing_says_how_to_learn_why(home) -> None:
    run = run_of("done", 0, train="reused")
    assert told(run)[1].startswith(f"next: lightbox explain {run.id}")


def test_what_there_is_to_look_at_is_named(home) -> None:
    run = run_of("failed", 1, "no", train="failed")
    folder = home.runs / run.id
    for name in ("report.html", "logs/train.log", "failed/train/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    assert told(run)[1:4] == [
        f"report: {folder}/report.html",
        f"left behind: {folder}/failed",
        f"log: {folder}/logs/train.log",
    ]
