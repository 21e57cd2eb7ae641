import matplotlib
import pytest
from results import refused

from lineage.digest import RECORD
from lineage.errors import BadInput
from lineage.files import write_json
from lineage.workspace import Workspace
from pipelines.notebook.result import Result

matplotlib.use("Agg")


@pytest.fixture
def result(home: Workspace) -> Result:
    return refused(home, "run-1", skill=0.4)


def test_it_says_how_it_ended(result) -> None:
    assert (result.outcome, result.exit_code) == ("refused", 3)
    assert [step.state for step in result.steps] == ["ran", "ran", "ran", "skipped"]
    assert repr(result).startswith("model-lifecycle run-1, refused: auroc <b> too low\nstep ")


def test_what_it_shows_in_a_notebook_is_escaped(result) -> None:
    page = result._repr_html_() + result.verdict._repr_html_()
    assert "auroc &lt;b&gt;" in page and "auroc <b>" not in page


def test_its_tables_hold_what_the_steps_wrote(result) -> None:
    assert result.metrics.loc["auroc", "n"] == len(result.predictions) == 120
    assert result.metrics.loc["auroc", "low"] < result.metrics.loc["auroc", "estimate"] < 1
    assert list(result.history.index) == [1, 2]
    assert result.verdict[0]["outcome"] == "fail"
    assert result.settings()["evaluate"] == {"bins.most": 10}


def test_settings_of_a_step_that_was_not_kept_are_found_in_its_record(result) -> None:
    (result.workspace.store / "steps" / f"{result.run.step('train').key}.json").unlink()
    write_json(result.output("train", "model") / RECORD, {"config": {"max_epochs": 7}})
    assert result.settings()["train"] == {"max_epochs": 7}


def test_its_plots_are_axes(result) -> None:
    for axes in (result.plot_training(), result.plot_roc(), result.plot_calibration()):
        assert isinstance(axes, matplotlib.axes.Axes)
        matplotlib.pyplot.close(axes.figure)


def test_an_output_is_found_or_the_others_are_named(result) -> None:
    assert (result.output("train", "model") / "history.json").is_file()
    with pytest.raises(BadInput, match=r"no promote\.approval; its outputs: evaluate\.metrics"):
        result.output("promote", "approval")


def test_it_explains_what_was_not_reached(result) -> None:
    assert result.explain()[-1].why == "gate.passed was false"


def test_its_page_is_written_once_asked_for(result) -> None:
    assert result.report.is_file()
