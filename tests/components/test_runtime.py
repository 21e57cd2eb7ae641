"""One component in a process of its own: what a container runs, on every engine."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lineage.code import ROOT

PROGRAM = """
from pathlib import Path
from typing import NamedTuple
from pydantic import BaseModel, ConfigDict
from components.contract import Input, Output, component
from lineage.errors import BadInput, StepFailed

class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    ends: str = "well"

class Told(NamedTuple):
    good: bool
    words: str

@component(retries=2)
def step(config: Settings, source: Input, made: Output) -> Told:
    counter = Path("attempts")
    counter.write_text(counter.read_text() + "." if counter.exists() else ".")
    (made / f"attempt-{len(counter.read_text())}").touch()
    if config.ends == "no":
        raise StepFailed("that is a no")
    if config.ends == "bad input":
        raise BadInput("that cannot be")
    if config.ends == "at the third" and len(counter.read_text()) < 3:
        raise OSError("a hiccup")
    if config.ends == "never":
        raise OSError("patient DOE")
    return Told(True, 'it said "yes"')

class Panic(BaseException):
    pass

@component(identities=True)
def reader(config: Settings, source: Input, made: Output) -> None:
    print("patient DOE")
    kinds = {"well": ValueError, "exit": SystemExit, "panic": Panic, "bad input": BadInput}
    raise kinds[config.ends]("\\udce9" if config.ends == "bad input" else "patient DOE")

@component()
def leaver(config: Settings, source: Input, made: Output) -> None:
    raise SystemExit(0)

class Odd(NamedTuple):
    good: bool
    share: float

@component()
def odd(config: Settings, source: Input, made: Output) -> Odd:
    return Odd(True, float("nan"))

@component(state=("log.txt",))
def keeper(config: Settings, source: Input, made: Output) -> None:
    import os, time
    from lineage.workspace import workspace
    workspace().home.mkdir(exist_ok=True)
    (workspace().home / "log.txt").write_text("done already")
    Path("pid").write_text(str(os.getpid()))
    Path("ready").touch()
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path):
    (tmp_path / "plugin.py").write_text(PROGRAM)
    (tmp_path / "source").mkdir()

    def run(entry: str, *more: str, **config: str) -> subprocess.CompletedProcess[str]:
        flags = ["--config", json.dumps(config), "--input", "source=source"]
        flags += ["--output", "made=out/made", *more]
        return subprocess.run(
            [sys.executable, "-m", "components", entry, *flags],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
            capture_output=True,
            text=True,
        )

    return run


def test_values_are_told_one_by_one_and_together(run, tmp_path: Path) -> None:
    more = ("--value", "good=v/good", "--value", "words=v/words", "--values-json", "v/all.json")
    assert run("plugin:step", *more).returncode == 0
    assert (tmp_path / "v/good").read_text() == "true"
    assert (tmp_path / "v/words").read_text() == 'it said "yes"'
    assert json.loads((tmp_path / "v/all.json").read_text()) == {
        "good": True,
        "words": 'it said "yes"',
    }


@pytest.mark.parametrize(
    ("ends", "code", "attempts"),
    [("well", 0, 1), ("no", 1, 1), ("bad input", 2, 1), ("at the third", 0, 3), ("never", 1, 3)],
)
def test_a_hiccup_is_tried_again_and_a_no_is_not(
    run, tmp_path: Path, ends: str, code: int, attempts: int
) -> None:
    ended = run("plugin:step", "--value", "good=good", ends=ends)
    assert ended.returncode == code
    assert len((tmp_path / "attempts").read_text()) == attempts
    assert (tmp_path / "good").exists() is (code == 0)
    if code == 0:  # nothing of the attempts that broke off is left
        assert sorted(p.name for p in (tmp_path / "out/made").iterdir()) == [
            ".lineage.json",
            f"attempt-{attempts}",
        ]


@pytest.mark.parametrize(
    ("ends", "kind"), [("well", "ValueError"), ("exit", "SystemExit"), ("panic", "Panic")]
)
def test_what_a_step_with_identities_prints_or_raises_is_kept_nowhere(run, ends, kind) -> None:
    ended = run("plugin:reader", ends=ends)
    assert ended.returncode == 1
    assert kind in ended.stderr
    assert "DOE" not in ended.stdout + ended.stderr


def test_a_name_in_no_encoding_is_bad_input_all_the_same(run) -> None:
    ended = run("plugin:reader", ends="bad input")
    assert (ended.returncode, "BadInput" in ended.stderr) == (2, True)


def test_a_step_that_leaves_the_process_has_not_succeeded(run) -> None:
    assert run("plugin:leaver").returncode == 1


def test_no_value_is_told_if_one_cannot_be(run, tmp_path: Path) -> None:
    ended = run("plugin:odd", "--value", "good=good", "--values-json", "all.json")
    assert ended.returncode == 1
    assert not (tmp_path / "good").exists()
    assert not (tmp_path / "all.json").exists()


def test_a_stopped_job_has_kept_what_it_did_and_lets_others_in(
    run, aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="lightbox")
    monkeypatch.setenv("LIGHTBOX_STATE", "s3://lightbox/workspace")
    monkeypatch.setenv("LIGHTBOX_HOME", str(tmp_path / "home"))
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(run, "plugin:keeper")
        while not (tmp_path / "ready").exists():
            assert not job.done(), job.result().stderr
            time.sleep(0.05)
        (pid,) = tmp_path.glob("pid")
        os.kill(int(pid.read_text()), signal.SIGTERM)
        assert job.result().returncode == 1
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket="lightbox")["Contents"]]
    assert keys == ["workspace/log.txt"]


@pytest.mark.parametrize(
    ("entry", "more", "config", "sentence"),
    [
        ("plugin:nothing", (), {}, "plugin:nothing is no component"),
        ("nowhere", (), {}, "nowhere is no component"),
        ("plugin:step", ("--value", "size=x"), {}, r"reports ['good', 'words'], not ['size']"),
        ("plugin:step", ("--input", "other=x"), {}, "wants --input for each of ['source']"),
        ("plugin:step", (), {"ends": "well", "edns": "x"}, "--config: edns: Extra inputs"),
    ],
)
def test_bad_words_are_bad_input(run, entry, more, config, sentence: str) -> None:
    ended = run(entry, *more, **config)
    assert ended.returncode == 2
    assert sentence in ended.stderr
