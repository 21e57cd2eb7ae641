"""Follow a run on a cluster until it ends, whatever the network does meanwhile."""

import time
from collections.abc import Callable

from lineage.errors import StepFailed
from lineage.workspace import Workspace
from pipelines.runs import Run, StepState, now
from pipelines.submitting.engine import Engine, Execution, Unreachable
from pipelines.submitting.outcome import conclude, in_utc, update
from pipelines.submitting.record import SUBMITTED, Submission, keep_run

FIRST_PAUSE_S = 1.0
SILENCE_S = 900.0  # an engine that is upgraded is away for minutes

Tell = Callable[[Run, StepState], None]


def follow(
    run: Run,
    submission: Submission,
    engine: Engine,
    workspace: Workspace,
    tell: Tell,
    *,
    every_s: float,
) -> None:
    """Look at the run until it has ended; the record is kept up to date.

    Raises:
        StepFailed: The engine did not answer for a long time; the run itself may go on.
    """
    pause, answered = min(FIRST_PAUSE_S, every_s), time.monotonic()
    while True:
        try:
            execution = engine.look(submission.engine_id)
        except Unreachable as error:
            if time.monotonic() - answered > SILENCE_S:
                raise StepFailed(
                    f"{engine.name} has not answered for {SILENCE_S / 60:.0f} minutes ({error}); "
                    f"the run may go on: lightbox attach {run.id}"
                ) from error
            changed = False
        else:
            answered, changed = time.monotonic(), see(run, execution, workspace, tell)
            if execution.state != "running":
                return
        # Quick while something happens, slow while nothing does.
        pause = min(FIRST_PAUSE_S, every_s) if changed else min(pause * 1.5, every_s)
        time.sleep(pause)


def see(run: Run, execution: Execution, workspace: Workspace, tell: Tell) -> bool:
    """Take in one look at the run; whether it showed anything new."""
    changed = update(run, execution)
    if execution.state == "running":
        # An engine may take up again what had ended.
        run.outcome, run.exit_code, run.reason, run.ended_at = SUBMITTED, None, "", None
    else:
        conclude(run, execution)
        ends = [task.ended_at for task in execution.tasks if task.ended_at]
        run.ended_at = in_utc(max(ends)) if ends else now()
    keep_run(workspace, run)
    for step in changed:
        tell(run, step)
    return bool(changed)
