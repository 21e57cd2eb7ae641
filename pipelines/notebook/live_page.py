"""A run in a notebook page: one table, drawn anew while the run goes on. It needs no widgets."""

import time
from html import escape
from typing import Any

from components.progress import Work, in_words
from lineage.workspace import Workspace
from pipelines.notebook.result import Result
from pipelines.runs import Run, StepState

REDRAW_S = 0.25  # each drawing is kept by the page's server


class LivePage:
    """Shows a run in the cell that started it."""

    def __init__(self, home: Workspace) -> None:
        self.home = home
        self.run: Run | None = None
        self.work: Work | None = None
        self.handle: Any = None
        self.drawn_at = 0.0

    def tell(self, run: Run, step: StepState) -> None:
        """Hear of a step that is blocked, starts or ends."""
        self.run, self.work = run, None
        self.draw()

    def hear(self, work: Work) -> None:
        """Hear of work inside the running step."""
        self.work = None if work.ended else work
        if time.monotonic() - self.drawn_at > REDRAW_S:
            self.draw()

    def draw(self) -> None:
        """Put the present state in the place of the former one."""
        from IPython.display import display

        if self.run is None:
            return
        self.drawn_at = time.monotonic()
        if self.handle is None:
            self.handle = display(self, display_id=True)
        else:
            self.handle.update(self)

    def __repr__(self) -> str:
        return "\n".join(filter(None, (repr(self._result()), self._doing())))

    def _repr_html_(self) -> str:
        return f"{self._result()._repr_html_()}<p>{escape(self._doing())}</p>"

    def _result(self) -> Result:
        assert self.run
        return Result(self.run, self.home)

    def _doing(self) -> str:
        return "  ".join((self.work.title, *in_words(self.work))) if self.work else ""
