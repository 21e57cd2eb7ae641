"""The one way in which a run starts on this machine: from the command, and from Python."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from lineage.workspace import Workspace, workspace
from pipelines.backends import local
from pipelines.graph import Pipeline
from pipelines.runs import Run
from pipelines.sources import resolve

log = logging.getLogger(__name__)


def start(
    pipeline: Pipeline,
    *,
    config: str = "",
    overrides: Sequence[str] = (),
    until: str | None = None,
    tell: local.Tell,
) -> Run:
    """Walk a pipeline in the workspace in force, and leave its report page.

    See `pipelines.backends.local.run`.
    """
    home = workspace()
    if not home.home.exists():
        # A command that is typed in the wrong folder must not leave a workspace there.
        for source in pipeline.sources():
            if ":" not in source.uri:
                resolve(source, home)
    return local.run(
        pipeline,
        home,
        partial(resolve, workspace=home),
        config=config,
        overrides=overrides,
        until=until,
        tell=tell,
        ended=partial(_report, home),
    )


def _report(home: Workspace, run: Run) -> None:
    from pipelines.reporting.report import write_report

    try:
        with suppress(OSError):  # a full disk; `lightbox report` writes it later
            write_report(run, home)
    except Exception as error:  # a fault of the page must not turn a release into a failed run
        log.error("the report page was not written: %s", type(error).__name__)
