"""What a step says goes to its log, whole or counted, and never to the terminal."""

import ctypes
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from components import step_log
from components.progress import Work, listening
from components.step_log import captured
from lineage.errors import BadInput
from pipelines.config import load
from pipelines.graph import Source
from pipelines.model_lifecycle import drift_watch, model_lifecycle

ROOT = Path(__file__).parents[2]
NAME = "Mueller^Hans"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "train.log"


def chatter() -> None:
    """Speak in every way that a library has."""
    print(f"print {NAME}")
    print(f"error {NAME}", file=sys.stderr)
    os.write(2, f"descriptor {NAME}\n".encode())
    subprocess.run(["echo", f"child {NAME}"], check=True)
    ctypes.CDLL(None).printf(f"C {NAME}\n".encode())
    logging.getLogger("pydicom").warning("record %s", NAME)
    for _ in range(3):
        warnings.warn(f"warning {NAME}", UserWarning, stacklevel=1)


def test_all_that_is_said_stands_in_the_log_and_nowhere_else(log, capfd) -> None:
    with captured(log, identities=False, why="learning_rate 0.001 → 0.003"):
        chatter()
        meanwhile = log.read_text()
    assert capfd.readouterr() == ("", "")
    assert f"child {NAME}" in meanwhile  # for those who look while it runs, or after a kill
    told = log.read_text()
    assert "Z started: learning_rate 0.001 → 0.003\n" in told
    for way in ("print", "error", "descriptor", "child", "C", "record", "warning"):
        assert f"{way} {NAME}" in told, way
    assert "UserWarning at test_step_log.py" in told
    assert "Z ended after 0.0 s\n" in told


def test_a_step_that_sees_identities_leaves_no_word_of_a_library(log, capfd) -> None:
    with captured(log, identities=True):
        chatter()
    assert capfd.readouterr() == ("", "")
    told = log.read_text()
    assert "Mueller" not in told
    assert "what libraries print is not kept" in told
    line = chatter.__code__.co_firstlineno + 9
    assert f"tests UserWarning at test_step_log.py:{line}, 3 times" in told
    assert f"pydicom WARNING at test_step_log.py:{line - 2}, once" in told


def test_a_silent_step_leaves_its_start_and_its_end(log) -> None:
    with captured(log, identities=False, why="first time"):
        pass
    words = [line.split(" ", 1)[1] for line in log.read_text().splitlines()]
    assert words == ["started: first time", "ended after 0.0 s"]


def test_what_is_not_kept_takes_no_memory_and_no_disk_either(log) -> None:
    with captured(log, identities=True):
        os.write(1, bytes(1 << 20))
        assert all(Path(f"/proc/self/fd/{fd}").readlink() == Path(os.devnull) for fd in (1, 2))


def failing(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [ValueError(NAME), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("identities", [True, False])
def test_whatever_happens_all_is_put_back(log, capfd, error, identities) -> None:
    root = logging.getLogger()
    before = (sys.stdout, sys.stderr, root.handlers, root.level, warnings.showwarning)
    with pytest.raises(type(error)), captured(log, identities=identities):
        failing(error)
    assert before == (sys.stdout, sys.stderr, root.handlers, root.level, warnings.showwarning)
    print("out")
    os.write(2, b"err\n")
    assert capfd.readouterr() == ("out\n", "err\n")
    with captured(log, identities=identities):
        print("next")


def test_a_log_handler_that_was_there_before_hears_nothing(log, caplog) -> None:
    with captured(log, identities=True):
        logging.getLogger("pydicom").warning("record %s", NAME)
    assert "Mueller" not in caplog.text
    logging.getLogger("pydicom").warning("afterwards")
    assert "afterwards" in caplog.text


def test_no_descriptor_is_left_open(log) -> None:
    with captured(log, identities=True):
        print("once, for what stays open for good")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with captured(log, identities=True):
            print("again")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_frames_of_a_failure_are_told_and_its_message_only_without_identities(log) -> None:
    def inner() -> None:
        try:
            failing(ValueError(NAME))
        except ValueError as error:
            raise KeyError(NAME) from error

    for identities in (True, False):
        with pytest.raises(KeyError), captured(log, identities=identities):
            inner()
        told = log.read_text()
        assert ("Mueller" in told) is not identities
        assert "KeyError" in told
        assert "tests/components/test_step_log.py:" in told
        assert "in failing" in told[told.index("caused by\nValueError") :]
        assert str(ROOT) not in told
        log.unlink()


def test_our_own_sentence_is_told_even_with_identities(log) -> None:
    with pytest.raises(BadInput), captured(log, identities=True):
        raise BadInput("sources.labels: the table has no column 'finding'")
    assert "BadInput: sources.labels: the table has no column 'finding'" in log.read_text()


def test_another_attempt_is_added(log) -> None:
    with pytest.raises(ConnectionError), captured(log, identities=False):
        raise ConnectionError
    with captured(log, identities=False):
        pass
    assert log.read_text().count("started") == 2
    assert log.read_text().count("ended after") == 2


def test_two_steps_at_once_are_refused_and_the_first_goes_on(log, capfd) -> None:
    with captured(log, identities=False):
        with (
            pytest.raises(RuntimeError, match="one step at a time"),
            captured(log.with_name("other.log"), identities=False),
        ):
            pass
        print("still here")
    assert "still here" in log.read_text()
    assert not log.with_name("other.log").exists()


def test_a_stream_that_a_library_keeps_goes_on_after_the_step(log, capfd) -> None:
    with captured(log, identities=False):
        kept = sys.stderr
        print("inside", file=kept)
    print("outside", file=kept)
    assert capfd.readouterr().err == "outside\n"
    assert "inside" in log.read_text()


def test_progress_is_written_now_and_then(log, monkeypatch) -> None:
    monkeypatch.setattr(
        step_log, "now_and_then", lambda write: lambda work: write(f"{work.title} {work.done}")
    )
    from components.progress import progress

    heard: list[Work] = []
    with listening(heard.append), captured(log, identities=True), progress("read") as report:
        report(3, 4, "")
    assert "Z read 3\n" in log.read_text()
    assert heard  # whoever else listens hears of it too


def test_a_log_that_cannot_be_made_is_an_error_of_the_workspace(log, capfd) -> None:
    log.mkdir(parents=True)
    with pytest.raises(IsADirectoryError), captured(log, identities=False):
        pass
    with captured(log.with_name("next.log"), identities=False):  # and nothing is left behind
        pass


def test_every_step_that_reads_what_came_in_from_outside_sees_identities() -> None:
    settings = load(ROOT / "configs" / "phantom.yaml", [])
    for step in (*model_lifecycle(settings).steps(), *drift_watch(settings).steps()):
        outside = {s.name for s in step.inputs.values() if isinstance(s, Source)}
        assert step.component.identities is bool(outside & {"scans", "labels"}), step.name


CLOSED = """
import os, sys
from pathlib import Path
from components.step_log import captured
with captured(Path(sys.argv[1]), identities=False):
    print("out")
    os.system("echo child")
print("after")
"""


CLOSING = """
import sys
from pathlib import Path
from components.step_log import captured
for _ in range(2):
    with captured(Path(sys.argv[1]), identities=False):
        print("inside", file=sys.stderr)
        sys.stdout.close()
        sys.stderr.close()
print("out")
print("err", file=sys.stderr)
"""


def test_a_step_that_closes_the_streams_closes_them_for_itself(log) -> None:
    told = subprocess.run(
        [sys.executable, "-c", CLOSING, str(log)],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (told.stdout, told.stderr) == ("out\n", "err\n")
    assert log.read_text().count("inside") == 2


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_the_caller_closed_are_no_trouble(log, closed) -> None:
    subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" "$2" {closed}', sys.executable, CLOSED, str(log)],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert "child" in log.read_text()
