"""A small pipeline with all that an engine must carry: a tree of files, a trained model, values of
each kind, a branch on each side, a step that is tried again, an effect that keeps state."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from components.contract import Input, Output, component
from lineage.errors import BadInput, StepFailed
from lineage.workspace import workspace
from pipelines.graph import Fail, Pipeline, Source, Step, When

LOG = "conformance.log"
_attempts = 0


class Knobs(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    note: str = "costs 5 $, and {{$.inputs}} is no placeholder"
    threshold: float = 0.5
    ends: str = "well"


class Taken(NamedTuple):
    files: int
    share: float
    words: str


class Judged(NamedTuple):
    passed: bool
    reason: str


class Entered(NamedTuple):
    version: str


class Checked(NamedTuple):
    again: bool


@component()
def take(config: Knobs, source: Input, tree: Output) -> Taken:
    """Copy a tree of files."""
    shutil.copytree(source, tree, dirs_exist_ok=True)
    (tree / "note.txt").write_text(config.note)
    files = sum(path.is_file() for path in tree.rglob("*"))
    return Taken(files, files / 10, f'it\'s "{files}" files, über all')


@component(trains="model")
def fit(config: Knobs, tree: Input, model: Output) -> None:
    """Make a model of it."""
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
    (model / "weights").mkdir()
    (model / "weights" / "model.json").write_text(json.dumps(names))


@component()
def judge(config: Knobs, model: Input, tree: Input, verdict: Output) -> Judged:
    """Decide."""
    if config.ends == "failed":
        raise StepFailed("this cannot be judged")
    if config.ends == "bad input":
        raise BadInput("there is nothing to judge")
    if config.ends == "broken":
        raise ZeroDivisionError
    count = len(json.loads((model / "weights/model.json").read_text()))
    (verdict / "verdict.json").write_text(json.dumps({"files": count}))
    passed = count / 10 >= config.threshold
    return Judged(passed, f"{count} files are {'enough' if passed else 'too few'}")


def stands(version: Path) -> bool:
    return True


@component(receipt=stands, registers="model", secrets=("entry.key",), state=(LOG,))
def enter(config: Knobs, model: Input, verdict: Input, version: Output) -> Entered:
    """Write into the workspace that the model is known."""
    log, key = workspace().home / LOG, workspace().fingerprint("entry.key")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(f"{key}\n")
    (version / "version.txt").write_text(key)
    return Entered(f"toy:{key[:4]}")


@component(retries=2)
def check(config: Knobs, verdict: Input, report: Output) -> Checked:
    """Break off twice before it works."""
    global _attempts
    _attempts += 1
    (report / f"attempt-{_attempts}").touch()
    if _attempts % 3:
        raise OSError("a hiccup")
    return Checked(again=False)


@component()
def celebrate(config: Knobs, report: Input, party: Output) -> None:
    """Only if there was a second check, which there never is."""


@component()
def regret(config: Knobs, verdict: Input, letter: Output) -> None:
    """What is done when it did not pass, before the run ends so."""
    (letter / "letter.txt").write_text("sorry")


def conformance(source: str = "given", config: Knobs = Knobs()) -> Pipeline:
    taken = Step(take, config, source=Source("source", source))
    fitted = Step(fit, config, tree=taken["tree"])
    judged = Step(judge, config, model=fitted["model"], tree=taken["tree"])
    entered = Step(enter, config, model=fitted["model"], verdict=judged["verdict"])
    checked = Step(check, config, verdict=judged["verdict"])
    party = Step(celebrate, config, report=checked["report"])
    regretted = Step(regret, config, verdict=judged["verdict"])
    refused = Fail("refused", judged["reason"], 3)
    again = When(checked["again"], then=[party])
    passed = When(judged["passed"], then=[checked, again], otherwise=[regretted, refused])
    return Pipeline("conformance", [taken, fitted, judged, entered, passed])
