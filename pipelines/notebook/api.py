"""Lightbox from Python, for a notebook: the same runs, store and registry as the command's.

    from pipelines import compare, load, run

    first = run(load("configs/phantom.yaml"))
    second = run(load("configs/phantom.yaml", ["training.max_epochs=32"]))
    compare(first, second)

All of it works in the workspace in force: `LIGHTBOX_HOME`, or `.lightbox/` under the current
folder. What cannot be used raises `lineage.errors.BadInput`; how a run ended stands in its result.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineage import code, telemetry
from lineage.errors import BadInput, StepFailed
from lineage.workspace import workspace
from pipelines import config, runs
from pipelines.backends.local import Tell
from pipelines.backends.plan import Planned
from pipelines.backends.plan import plan as look_ahead
from pipelines.config import LifecycleConfig
from pipelines.graph import Pipeline
from pipelines.model_lifecycle import drift_watch, model_lifecycle
from pipelines.notebook.result import Result
from pipelines.notebook.tables import Listing
from pipelines.sources import resolve
from pipelines.start import start
from pipelines.tell import short

if TYPE_CHECKING:
    from pipelines.notebook.comparison import Comparison
    from registry.mlflow_registry import Version


def load(path: str | Path, overrides: Sequence[str] = ()) -> LifecycleConfig:
    """Read settings and apply overrides such as `training.max_epochs=2`.

    Raises:
        BadInput: With file, line and key.
    """
    return config.load(Path(path), overrides)


def run(settings: LifecycleConfig, until: str | None = None) -> Result:
    """Do what `lightbox run` does; finished work is reused.

    Args:
        settings: From `load`.
        until: The step after which to stop, such as "split".

    Raises:
        BadInput: The run cannot start, or a step cannot use what it was given.
        StepFailed: Something went wrong that nobody foresaw. A step that looks at its inputs and
            says no raises nothing: that is an outcome.
    """
    return _run(model_lifecycle(settings), until)


def watch(settings: LifecycleConfig) -> Result:
    """Do what `lightbox watch` does: judge captured traffic, ask for a retraining if it is due."""
    return _run(drift_watch(settings))


def plan(settings: LifecycleConfig) -> Listing[Planned]:
    """Say for each step whether `run` would reuse or execute it, and why.

    Raises:
        BadInput: A source cannot be found, or the code was edited since it was loaded.
    """
    pipeline = model_lifecycle(settings)
    _refuse_edited(pipeline)
    headers = ("step", "would", "why", "if", "seconds last time")
    home = workspace()
    rows = look_ahead(pipeline, home, partial(resolve, workspace=home, fetch=False))
    return Listing(rows, headers, lambda p: (p.step, p.action, p.why, p.when, p.seconds))


def find_run(run_id: str | None = None) -> Result:
    """The past run whose id begins so; the newest one if left out.

    Raises:
        BadInput: There is none, or there are several.
    """
    home = workspace()
    return Result(runs.find_run(home, run_id), home)


def past_runs() -> Listing[Result]:
    """Every run of the workspace, newest first."""
    home = workspace()
    found = [Result(run, home) for run in runs.past_runs(home)]
    headers = ("run", "pipeline", "outcome", "ran", "reused", "reason")
    return Listing(found, headers, _run_row)


def compare(one: Result | str, other: Result | str) -> "Comparison":
    """Put two runs side by side: settings that differ, metrics, and their paired difference."""
    from pipelines.notebook import comparison

    return comparison.compare(_result(one), _result(other))


def models() -> "Listing[Version]":
    """Every registered version, the refused ones too."""
    from registry.mlflow_registry import versions

    telemetry.off()
    headers = ("model", "verdict", "alias", "created", "reason")
    return Listing(versions(None), headers, _version_row)


def lineage(model: str) -> "Dossier":
    """Where MODEL[:VERSION] came from; without a version, the champion, else the newest.

    Raises:
        BadInput: There is no such model or version.
    """
    from registry import dossier
    from registry.mlflow_registry import find_version

    telemetry.off()
    return Dossier(dossier.lineage(*find_version(model)))


@dataclass(frozen=True, repr=False)
class Dossier:
    """The lineage of one version; `facts` is what `lightbox lineage --json` prints."""

    facts: dict[str, Any]

    def __repr__(self) -> str:
        from registry.dossier import as_text

        return as_text(self.facts)

    def _repr_html_(self) -> str:
        from registry.dossier import as_html

        # In a frame, so that the page's style does not become the notebook's.
        page = escape(as_html(self.facts), quote=True)
        style = "width:100%; height:32em; border:1px solid grey; background:white"
        return f'<iframe sandbox srcdoc="{page}" style="{style}"></iframe>'


def _run(pipeline: Pipeline, until: str | None = None) -> Result:
    """Walk a pipeline and show how it goes."""
    telemetry.off()
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")  # as the command has it
    _refuse_edited(pipeline)
    home = workspace()
    with _shown() as tell, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries'; a notebook keeps what it shows
        try:
            return Result(start(pipeline, config="(Python)", until=until, tell=tell), home)
        except (BadInput, StepFailed):
            raise
        except Exception as error:
            if os.environ.get("LIGHTBOX_DEBUG"):
                raise
            from pipelines.cli import place

            # Its text may quote data, and a notebook keeps what it shows.
            told = f"{type(error).__name__} at {place(error)}; this is a defect"
            raise StepFailed(f"{told}. LIGHTBOX_DEBUG=1 shows the whole traceback.") from None


def _refuse_edited(pipeline: Pipeline) -> None:
    for step in pipeline.steps():
        if name := code.edited(step.component.module):
            raise BadInput(f"{name} was edited after it was loaded; restart the kernel to use it")


@contextmanager
def _shown() -> Iterator[Tell]:
    """Show a run as it goes on: a table in a notebook page, elsewhere what the command shows."""
    from components.progress import listening
    from pipelines.notebook.live_page import LivePage
    from pipelines.tell import Narrator, console

    if not console().is_jupyter:
        with Narrator() as narrator:
            yield narrator.tell
        return
    page = LivePage(workspace())
    with listening(page.hear):
        try:
            yield page.tell
        finally:
            page.draw()  # only now is it known how the run ended


def _result(run: Result | str | None) -> Result:
    return run if isinstance(run, Result) else find_run(run)


def _run_row(result: Result) -> tuple[Any, ...]:
    states = [step.state for step in result.run.steps]
    tally = states.count("ran"), states.count("reused")
    return result.run.id, result.run.pipeline, result.outcome, *tally, short(result.reason)


def _version_row(version: "Version") -> tuple[Any, ...]:
    created = version.created_at[:16].replace("T", " ")
    name, aliases = f"{version.name}:{version.version}", ", ".join(version.aliases)
    return name, version.verdict, aliases, created, short(version.reason)
