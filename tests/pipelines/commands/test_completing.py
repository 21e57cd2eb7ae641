"""What TAB offers: asked as a shell asks, and typed into a real bash."""

import os
import pty
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lineage.code import ROOT
from pipelines.config import LifecycleConfig
from pipelines.runs import Run, RunFolder

BIN = Path(sys.executable).parent


@pytest.fixture
def filled(home):
    """A workspace with two models, two runs and an endpoint."""
    home.home.mkdir()
    with sqlite3.connect(home.home / "mlflow.db") as made:
        made.execute("CREATE TABLE model_versions (name TEXT, version INTEGER)")
        rows = [("chest-view", 1), ("toy", 1), ("toy", 2)]
        made.executemany("INSERT INTO model_versions VALUES (?, ?)", rows)
    for name in ("2026-01", "2026-02"):
        RunFolder(home.runs / name).begin(Run(name, "lifecycle", "", "", 1, name, []))
    home.endpoint("toy").mkdir(parents=True)
    (home.endpoint("toy") / "state.json").touch()
    return home


def offered(line: str) -> list[str]:
    """What the command answers a bash in which this was typed, without the kinds."""
    done = subprocess.run(
        [BIN / "lightbox"],
        env={**os.environ, "_LIGHTBOX_COMPLETE": "bash_complete", "COMP_WORDS": line},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return [answer.partition(",")[2] for answer in done.stdout.splitlines() if answer]


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("lightbox exp", ["explain"]),
        ("lightbox endpoint st", ["start", "status", "stop"]),
        ("lightbox endpoint start ", ["toy"]),
        ("lightbox predict scan.dcm --model t", ["toy"]),
        ("lightbox lineage t", ["toy", "toy:2", "toy:1"]),
        ("lightbox lineage toy:", ["toy:2", "toy:1"]),
        ("lightbox approve ", ["chest-view:1", "toy:2", "toy:1"]),
        ('lightbox approve toy:1 --reason "looked at it" --re', ["--refuse"]),
        ("lightbox report ", ["2026-02", "2026-01"]),
        ("lightbox explain 2026-01", ["2026-01"]),
        ("lightbox run configs/ph", ["configs/phantom.yaml"]),
        ("lightbox run elsewhere/", ["elsewhere/"]),  # of kind `file`: the shell's own names
        ("lightbox run c.yaml --set training.lea", ["training.learning_rate="]),
        ("lightbox run c.yaml --set training.device=cu", ["training.device=cuda"]),
        ("lightbox run c.yaml --set promotion.policy.n", ["promotion.policy.name="]),
        ("lightbox run c.yaml --until sp", ["split"]),
        ("lightbox schema k", ["kubeflow"]),
    ],
)
def test_answers(filled, line: str, answers: list[str]) -> None:
    assert offered(line) == answers


def test_every_offered_setting_exists(filled) -> None:
    keys = {answer.partition("=")[0] for answer in offered("lightbox run c.yaml --set ")}
    assert {"sources.scans", "gating.rules", "retraining.labels.column"} <= keys
    for key in keys:
        model = LifecycleConfig
        *sections, last = key.split(".")
        for section in sections:
            kind = model.model_fields[section].annotation
            options = [kind, *getattr(kind, "__args__", ())]
            model = next(o for o in options if hasattr(o, "model_fields"))
        assert last in model.model_fields, key


def test_silent_where_there_is_nothing(home, monkeypatch) -> None:
    for line in ("lightbox approve ", "lightbox report ", "lightbox endpoint stop "):
        assert offered(line) == []
    assert not home.home.exists()
    home.home.mkdir()
    (home.home / "mlflow.db").write_bytes(b"not a database, whatever its name may say" * 30)
    assert offered("lightbox approve t") == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ml.example")
    assert offered("lightbox approve t") == []


def test_an_answer_imports_nothing_heavy(filled) -> None:
    script = (
        "import os, sys; sys.argv = ['lightbox']\n"
        "os.environ |= {'_LIGHTBOX_COMPLETE': 'bash_complete', 'COMP_WORDS': sys.stdin.read()}\n"
        "from pipelines.cli import main\n"
        "try: main()\n"
        "finally: print(sorted(sys.modules.keys() & {'pydantic', 'numpy', 'rich', 'mlflow'}))"
    )
    for line in ("lightbox approve ", "lightbox run c --set t", "lightbox report ", "lightbox "):
        done = subprocess.run(
            [sys.executable, "-c", script], input=line, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]" and len(done.stdout.splitlines()) > 1


class Typist:
    """A real bash on a terminal, with the completion loaded."""

    def __init__(self) -> None:
        child, self.terminal = pty.fork()
        if child == 0:
            path = f"{BIN}:{os.environ['PATH']}"
            quiet = {"PATH": path, "TERM": "dumb", "PS1": "$ ", "INPUTRC": "/dev/null"}
            os.chdir(ROOT)
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], {**os.environ, **quiet})
        self.child, self.seen = child, ""
        self.send(
            "eval \"$(lightbox completion bash)\"; bind 'set bell-style none'; echo re''ady\n"
        )
        self.until("ready")

    def send(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def until(self, pattern: str) -> "re.Match[str]":
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if match := re.search(pattern, self.seen):
                self.seen = self.seen[match.end() :]
                return match
            self.seen += os.read(self.terminal, 4096).decode()
        raise AssertionError(self.seen)

    def completed(self, typed: str) -> str:
        """The line after TAB, quoted by bash itself."""
        start, end, enter = "\x01", "\x05", "\n"
        self.send(f"{typed}\t{start}echo '<{end}>'{enter}")
        return self.until(r"\n<(.*)>\r")[1]

    def close(self) -> None:
        os.close(self.terminal)
        os.waitpid(self.child, 0)


def test_typed_into_a_real_bash(filled) -> None:
    typist = Typist()
    try:
        assert typist.completed("lightbox expl") == "lightbox explain "
        assert typist.completed("lightbox approve ch") == "lightbox approve chest-view:1 "
        assert typist.completed("lightbox approve chest-view:") == "lightbox approve chest-view:1 "
        assert typist.completed("lightbox approve to") == "lightbox approve toy:"
        run = "lightbox run configs/"
        assert typist.completed(f"{run}ph") == f"{run}phantom.yaml "
        run += "phantom.yaml --set "
        assert typist.completed(f"{run}training.lea") == f"{run}training.learning_rate="
        assert typist.completed(f"{run}training.device=cu") == f"{run}training.device=cuda "
        assert typist.completed("lightbox predict READ") == "lightbox predict README.md "
    finally:
        typist.close()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell: str) -> None:
    done = subprocess.run(
        [BIN / "lightbox", "completion", shell], capture_output=True, text=True, check=True
    )
    assert f"_LIGHTBOX_COMPLETE={shell}_complete" in done.stdout and done.stderr == ""
