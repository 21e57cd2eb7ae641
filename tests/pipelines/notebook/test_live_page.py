"""What a page shows; that one table is drawn anew is seen in `tests/test_notebook.py`."""

import pytest
from results import refused

from components.progress import Work
from lineage.workspace import Workspace
from pipelines.notebook.live_page import LivePage


@pytest.fixture
def page(home: Workspace) -> LivePage:
    run = refused(home, "run-1", skill=0.3).run
    page = LivePage(home)
    page.tell(run, run.steps[0])
    return page


def test_it_shows_how_far_the_running_step_has_come(page, capsys) -> None:
    work = Work("train <i>", done=3, total=16)
    page.drawn_at = 0.0
    page.hear(work)
    assert "train <i>  3/16" in capsys.readouterr().out
    assert "train &lt;i&gt;  3/16" in page._repr_html_()
    work.ended = True
    page.hear(work)
    assert "3/16" not in repr(page)


def test_it_is_not_drawn_for_each_item(page, capsys) -> None:
    capsys.readouterr()
    for done in range(1000):
        page.hear(Work("read", done=done, total=1000))
    assert capsys.readouterr().out.count("run-1") < 5


def test_before_a_run_begins_there_is_nothing_to_draw(home: Workspace, capsys) -> None:
    LivePage(home).draw()
    assert capsys.readouterr().out == ""
