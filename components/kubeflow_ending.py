"""How a run on Kubeflow ended, kept in the workspace: `endings/<run id>.json`.

Two tasks of a package come here. A Fail leaves the outcome and its reason, where the engine sees no
more than a failure; the exit handler, which runs last however a run ends, adds the engine's state.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lineage.files import read_json, write_json
from lineage.workspace import workspace

# The engine's words differ by its version; a state of neither kind says nothing of the end.
OUTCOMES = {"SUCCEEDED": "done", "COMPLETE": "done", "CACHED": "done", "FAILED": "failed"}


def fail(run: str, outcome: str, reason: str, exit_code: int) -> None:
    """Say why the run ends here, keep that, and exit with its code.

    A volume that cannot be written must not turn a refusal into another kind of failure.
    """
    print(reason, file=sys.stderr, flush=True)
    try:
        _keep(run, {"outcome": outcome, "reason": reason, "exit_code": exit_code})
    except OSError as error:
        print(f"the workspace keeps no record of it: {error.strerror}", file=sys.stderr)
    raise SystemExit(exit_code)


def end(run: str, name: str, status: str) -> None:
    """Keep how the run ended.

    Args:
        run: Its id.
        name: What people call it.
        status: KFP's PipelineTaskFinalStatus, as JSON.
    """
    told = json.loads(status)
    state, error = told["state"], told.get("error") or {}
    outcome = OUTCOMES.get(state, "unknown")
    facts = {"outcome": outcome, "name": name, "state": state, "error": error.get("message")}
    # What a Fail has left knows better; unless the run was tried again, and went well.
    former = read_json(_place(run)) if outcome != "done" else None
    _keep(run, facts | (former or {}))


def _keep(run: str, facts: dict[str, Any]) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(_place(run), {"run": run} | facts | {"at": now})


def _place(run: str) -> Path:
    return workspace().home / "endings" / f"{run}.json"


def _run_id(text: str) -> str:
    if not re.fullmatch(r"[\w-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the id of a run")
    return text


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m components.kubeflow_ending fail|end --run ID …`"""
    parser = argparse.ArgumentParser(prog="python -m components.kubeflow_ending")
    kinds = parser.add_subparsers(required=True)
    failing = kinds.add_parser("fail", help="end the run as what --outcome says")
    failing.set_defaults(act=fail)
    failing.add_argument("--outcome", required=True)
    failing.add_argument("--reason", required=True)
    failing.add_argument("--exit-code", type=int, required=True)
    ending = kinds.add_parser("end", help="record the state in which the engine leaves the run")
    ending.set_defaults(act=end)
    ending.add_argument("--name", required=True)
    ending.add_argument("--status", required=True)
    for kind in (failing, ending):
        kind.add_argument("--run", type=_run_id, required=True)
    args = vars(parser.parse_args(argv))
    args.pop("act")(**args)


if __name__ == "__main__":
    main()
