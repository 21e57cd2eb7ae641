"""How long work tells how far it has come."""

import io
import re
import sys
from types import SimpleNamespace

import pytest

from components import progress as module
from components.progress import Work, duration, in_words, listening, progress


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=made.monotonic))
    return made


def test_who_listens_hears_of_the_start_of_each_report_and_of_the_end(capsys) -> None:
    heard = []
    with (
        listening(lambda work: heard.append((work.title, work.done, work.total, work.ended))),
        progress("train") as report,
    ):
        report(1, 2, "loss 0.5")
        report(2, 2, "")
    assert heard == [
        ("train", 0, 0, False),
        ("train", 1, 2, False),
        ("train", 2, 2, False),
        ("train", 2, 2, True),
    ]
    assert capsys.readouterr() == ("", "")


def test_work_that_fails_has_ended_and_nobody_listens_any_longer(capsys) -> None:
    heard = []
    with (
        pytest.raises(ValueError),
        listening(lambda work: heard.append(work.ended)),
        progress("train"),
    ):
        raise ValueError
    assert heard == [False, True]
    with pytest.raises(ValueError), progress("train"):
        raise ValueError
    assert len(heard) == 2
    assert module._listeners == []


def test_without_listener_and_terminal_a_line_is_printed_now_and_then(clock, capsys) -> None:
    with progress("train") as report:
        for epoch in range(1, 1001):
            clock.now += 1
            report(epoch, 1000, "loss 0.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "  train  5/1000  1/s  16 min 35 s left  loss 0.5"
    # More seldom the longer it takes: a night's work is no thousand lines.
    assert 15 < len(lines) < 35


def test_where_somebody_listens_no_line_is_printed_either(clock, capsys) -> None:
    with listening(lambda work: None), progress("train") as report:
        for epoch in range(1, 101):
            clock.now += 1
            report(epoch, 100, "")
    assert capsys.readouterr() == ("", "")


def test_a_bar_in_a_terminal_tells_rate_and_time_left(clock, monkeypatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("ingest") as report:
        report(90_000, 100_000, "90000 known")  # their pace is nobody's
        clock.now += 100
        report(91_000, 100_000, "")
    assert "91000/100000 10/s  15 min 00 s left" in re.sub(
        "\x1b[^a-zA-Z]*[a-zA-Z]", "", terminal.getvalue()
    )


def test_short_work_prints_nothing(clock, capsys) -> None:
    with progress("train") as report:
        clock.now += 4
        report(1, 1, "")
    assert capsys.readouterr() == ("", "")


def test_the_pace_is_taken_from_the_first_report_on(clock) -> None:
    work = Work("train")
    clock.now += 60  # imports
    work.advance(1, 21, "")
    assert (work.rate, work.seconds_left) == (None, None)
    clock.now += 4
    work.advance(3, 21, "loss 0.5")
    assert (work.rate, work.seconds_left) == (0.5, 36)
    clock.now += 6  # nothing is heard meanwhile
    assert in_words(work) == ["3/21", "2.0 s each", "30 s left", "loss 0.5"]


def test_no_time_left_is_told_from_a_glance(clock) -> None:
    work = Work("canary")
    work.advance(0, 120, "")
    clock.now += 0.7  # the first request warms the model up
    work.advance(1, 120, "")
    assert in_words(work) == ["1/120", "1.43/s"]
    clock.now += 1.3
    work.advance(119, 120, "")
    assert in_words(work) == ["119/120", "59.5/s", "0 s left"]


def test_another_round_has_a_pace_of_its_own(clock) -> None:
    work = Work("read images")
    for done in (1, 2, 3):
        clock.now += 1
        work.advance(done, 3, "train")
    work.advance(2, 8, "validation")
    assert work.rate is None
    assert in_words(work) == ["2/8", "validation"]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_times_are_told_as_people_say_them(seconds, told) -> None:
    assert duration(seconds) == told
