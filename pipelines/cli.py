"""The `lightbox` command. Thin: parse, call, print. Heavy imports stay inside the commands.

Exit codes: 0 done, 1 a step failed, 2 bad input, 3 the gate refused, 4 waits for approval,
5 the canary was rolled back.
"""

import errno
import logging
import os
import signal
import sys
import warnings
from pathlib import Path

import click

from pipelines.commands import (
    audit,
    compare,
    compile,
    cost,
    data,
    deidentify,
    demo,
    endpoints,
    gc,
    init,
    models,
    plans,
    receive,
    report,
    runs,
    submit,
    tools,
)

FULL_OR_CLOSED = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
)


def main() -> None:
    """Run the command; whatever goes wrong ends in one clear sentence and an exit code."""
    from lineage.errors import BadInput, StepFailed

    _quieten()
    # A CI job that is cancelled ends like one that a person stops: recorded, nothing left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BadInput as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except StepFailed as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        if os.environ.get("LIGHTBOX_DEBUG"):
            raise
        if reason := unwritable(error):
            told = f"error: the workspace cannot be written ({reason}); nothing is "
            click.echo(told + "half-written, and the same command goes on from here.", err=True)
            sys.exit(1)
        if type(error).__name__ == "MlflowException" and os.environ.get("MLFLOW_TRACKING_URI"):
            told = "error: the server that MLFLOW_TRACKING_URI names does not answer as it should; "
            click.echo(told + "`lightbox doctor` looks at it.", err=True)
            sys.exit(1)
        # The message of an unforeseen error may quote data, so only its kind and place are told.
        click.echo(f"error: {type(error).__name__} at {place(error)}; this is a defect.", err=True)
        click.echo("LIGHTBOX_DEBUG=1 shows the whole traceback, which may quote data.", err=True)
        sys.exit(1)


def unwritable(error: Exception) -> str | None:
    """Why the workspace cannot be written, if it is that; databases have words of their own."""
    if isinstance(error, OSError) and error.errno in FULL_OR_CLOSED:
        return error.strerror
    cause = getattr(error, "orig", error)  # SQLAlchemy's errors hold SQLite's
    name = getattr(cause, "sqlite_errorname", "")
    return str(cause) if name.startswith(("SQLITE_FULL", "SQLITE_READONLY")) else None


def _quieten() -> None:
    """Third-party telemetry off, and their warnings out of the user's sight.

    What they say inside a step goes to its log all the same; see `components.step_log`.
    """
    from lineage import telemetry

    telemetry.off()
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    if not os.environ.get("LIGHTBOX_DEBUG"):
        warnings.simplefilter("ignore")
        logging.captureWarnings(True)
        logging.getLogger().setLevel(logging.ERROR)


def place(error: BaseException) -> str:
    """The innermost place of our own code on the traceback."""
    from lineage.code import ROOT

    found, trace = "an unknown place", error.__traceback__
    while trace:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(ROOT) and ".venv" not in file.parts:
            found = f"{file.relative_to(ROOT)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lightbox-mlops")
def cli() -> None:
    """The whole life of a medical imaging model: scans in, gated, released, watched."""


for _command in (
    runs.run,
    runs.watch,
    runs.show,
    runs.runs,
    submit.submit,
    submit.attach,
    submit.schedule,
    report.report,
    plans.plan,
    plans.explain,
    gc.gc,
    compare.compare,
    data.data,
    deidentify.deidentify,
    deidentify.reidentify,
    models.models,
    models.lineage,
    models.approve,
    audit.audit,
    endpoints.endpoint,
    endpoints.predict,
    compile.compile,
    cost.cost,
    demo.demo,
    init.init,
    receive.fetch,
    receive.receive,
    tools.doctor,
    tools.ui,
    tools.schema,
    tools.completion,
):
    cli.add_command(_command)


if __name__ == "__main__":
    main()
