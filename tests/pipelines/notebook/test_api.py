"""The same as the command, from Python; the whole of it runs in `tests/test_notebook.py`."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from results import refused
from toys import Settings, breaks, read

import pipelines
from components.contract import Input, Output, component
from lineage import code
from lineage.errors import BadInput, StepFailed
from lineage.workspace import Workspace
from pipelines.graph import Pipeline, Source, Step
from pipelines.notebook import api

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "phantom.yaml"


def pipeline(folder: Path, *more, text: str = "hello") -> Pipeline:
    folder.mkdir(exist_ok=True)
    (folder / "in.txt").write_text("in")
    settings = Settings(journal=str(folder.with_name("journal.txt")), text=text)
    words = Step(read, settings, source=Source("words", str(folder)))
    return Pipeline("toy", [words, *(Step(c, settings, words=words["words"]) for c in more)])


def test_the_package_itself_imports_nothing_of_it() -> None:
    told = "import json, sys, pipelines; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "pipelines" in loaded
    assert not loaded & {"pipelines.notebook.api", "pydantic", "click", "rich", "numpy"}


@pytest.mark.parametrize("name", pipelines.__all__)
def test_every_name_leads_somewhere_and_is_no_module_s(name: str) -> None:
    # Importing a submodule binds its name in the package, in the place of a function of that name.
    assert name not in {module.name for module in pkgutil.iter_modules(pipelines.__path__)}
    assert getattr(pipelines, name) is getattr(api, name)
    assert name in dir(pipelines)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        _ = pipelines.rum  # type: ignore[attr-defined]  # the typo is the point


def test_settings_are_read_and_read_well() -> None:
    settings = pipelines.load(str(CONFIG), ["training.max_epochs=3"])
    assert settings.training.max_epochs == 3
    assert "\n  max_epochs: 3\n" in repr(settings)


def test_a_run_is_one_of_the_workspace_s(home: Workspace, tmp_path) -> None:
    first = api._run(pipeline(tmp_path / "in"))
    assert (first.outcome, first.exit_code) == ("done", 0)
    again = api._run(pipeline(tmp_path / "in"))
    assert [step.state for step in again.steps] == ["reused"]
    assert [result.run.id for result in pipelines.past_runs()] == [again.run.id, first.run.id]
    assert pipelines.find_run(again.run.id[:-1]).run == again.run
    assert first.run.id in repr(pipelines.past_runs())
    other = api._run(pipeline(tmp_path / "in", text="bye"))
    assert pipelines.compare(first.run.id, other).settings == (("read.text", "hello", "bye"),)


def test_a_step_that_says_no_raises_nothing(home: Workspace, tmp_path) -> None:
    result = api._run(pipeline(tmp_path / "in", breaks))
    assert (result.outcome, result.exit_code, result.reason) == ("failed", 1, "3 rows fail")


@component()
def stumbles_over_a_name(config: Settings, words: Input, report: Output) -> None:
    raise KeyError("Mueller^Hans")


def test_an_unforeseen_error_quotes_nothing(home: Workspace, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("LIGHTBOX_DEBUG", raising=False)
    with pytest.raises(StepFailed, match=r"KeyError at .* defect") as caught:
        api._run(pipeline(tmp_path / "in", stumbles_over_a_name))
    assert "Mueller" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    monkeypatch.setenv("LIGHTBOX_DEBUG", "1")
    with pytest.raises(KeyError):
        api._run(pipeline(tmp_path / "in", stumbles_over_a_name))


def test_code_that_was_edited_since_it_was_loaded_does_not_run(home, monkeypatch) -> None:
    settings = pipelines.load(CONFIG)
    monkeypatch.setitem(code.sources("components.gate"), "components/gate.py", "as it was loaded")
    unlike = ((0, 0, 0, 0), "as it was loaded")
    monkeypatch.setitem(code._pinned, code.ROOT / "components" / "gate.py", unlike)
    for start in (pipelines.run, pipelines.plan):
        with pytest.raises(BadInput, match=r"components/gate\.py was edited .* restart"):
            start(settings)
    assert not home.runs.exists()


def test_bad_input_is_one_sentence_in_a_notebook() -> None:
    assert BadInput("say which")._render_traceback_() == ["BadInput: say which"]


def test_runs_of_the_command_can_be_looked_into(home: Workspace) -> None:
    refused(home, "20260101-000000-aaaa", skill=0.3)
    assert pipelines.find_run("20260101").metrics.loc["auroc", "n"] == 120
    with pytest.raises(BadInput, match="no run begins with"):
        pipelines.find_run("2025")


def test_an_empty_registry_is_an_empty_table(home: Workspace) -> None:
    assert repr(pipelines.models()) == "nothing"
    with pytest.raises(BadInput, match="no model is named"):
        pipelines.lineage("nothing-here")
