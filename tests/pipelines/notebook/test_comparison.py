import pytest
from results import refused

from evaluation.intervals import auroc_difference
from lineage.workspace import Workspace
from pipelines.notebook.comparison import compare


def test_only_settings_that_differ_are_listed(home: Workspace) -> None:
    one, other = (refused(home, f"run-{n}", skill=0.3, epochs=n) for n in (2, 16))
    assert compare(one, other).settings == (("train.max_epochs", 2, 16),)
    assert compare(one, one).settings == ()


def test_the_difference_is_of_the_second_to_the_first_and_paired(home: Workspace) -> None:
    worse, better = refused(home, "run-1", skill=0.1), refused(home, "run-2", skill=0.45)
    found = compare(worse, better)
    cases, others = better.predictions, worse.predictions
    want = auroc_difference(cases["label"], cases["score"], others["score"], cases["patient_id"])
    assert found.difference == want and want.estimate is not None and want.estimate > 0
    assert f"{want.estimate:.3f}" in repr(found) and f"{want.estimate:.3f}" in found._repr_html_()
    assert [row[0] for row in found.metrics][:2] == ["auroc", "sensitivity"]


def test_other_patients_are_not_compared(home: Workspace) -> None:
    one = refused(home, "run-1", skill=0.3)
    found = compare(one, refused(home, "run-2", skill=0.3, test_set="another"))
    assert found.difference is None
    assert "test sets differ" in repr(found)


@pytest.mark.parametrize("turned", [False, True])
def test_a_run_that_ended_early_is_compared_as_far_as_it_came(home: Workspace, turned) -> None:
    whole, broken = refused(home, "run-1", skill=0.3), refused(home, "run-2", skill=0.3)
    del broken.run.steps[1:]
    found = compare(*(broken, whole) if turned else (whole, broken))
    assert found.metrics == () and "before its model was evaluated" in found.note
