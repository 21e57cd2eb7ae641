"""Runs `lightbox` commands in children of a process that has imported all heavy libraries already.

A command then costs its work, not ten seconds of imports, and can be killed hundreds of times.
Run as a program: an order per line of standard input, its ending per line of standard output.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    *("numpy", "pandas", "pyarrow.parquet", "scipy.stats", "sklearn.metrics", "pydicom"),
    *("torch", "torch.utils.data", "torch.onnx", "monai.networks.nets", "monai.transforms"),
    *("monai.data", "onnx", "onnxruntime", "safetensors.torch", "mlflow", "mlflow.tracking"),
    *("mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store"),
    *("great_expectations", "evidently", "evidently.presets", "httpx", "rich.console", "jinja2"),
)


class Commands:
    """The parent's side: start it once, ask it for commands, close it."""

    def __init__(self, log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": str(ROOT)},  # the code that these tests lie beside
                text=True,
            )

    def __call__(
        self,
        *args: str,
        home: Path,
        log: Path,
        die: tuple[str, tuple[str, ...], float] | None = None,
        trace: Path | None = None,
    ) -> int:
        """Run `lightbox ARGS`, its output appended to `log`.

        Args:
            home: The workspace.
            die: A step, states of it, and for how many seconds it may go on after one of these; to
                the step's end at most.
                "done": it has done its work, and no record says so yet;
                "kept": its result is there for later runs, and this run's record lacks it.
            trace: Where to write which first-party files each step really executed.

        Returns:
            Its exit code; negative, as subprocess has it, if it was killed.
        """
        assert self._process.stdin and self._process.stdout
        order = {"args": args, "home": str(home), "log": str(log), "die": die}
        print(json.dumps({**order, "trace": trace and str(trace)}), file=self._process.stdin)
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)


def serve() -> None:
    from lineage import telemetry

    telemetry.off()
    for name in HEAVY:
        importlib.import_module(name)
    # A child of a process with threads may hang on a lock that nobody will free.
    assert threading.active_count() == 1, threading.enumerate()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(order)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _child(order: dict[str, Any]) -> None:
    """Never returns."""
    status = 70
    try:
        os.setsid()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        os.environ["LIGHTBOX_HOME"] = order["home"]
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if order["die"]:
            _die_at(*order["die"])
        if order["trace"]:
            _trace(Path(order["trace"]))
        from pipelines.cli import main

        sys.argv = ["lightbox", *order["args"]]
        main()
    except SystemExit as ending:
        status = int(ending.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _die_at(step: str, states: list[str], after_s: float) -> None:
    from pipelines.backends.store import Store
    from pipelines.runs import RunFolder, StepState

    note, keep = RunFolder.note, Store.keep

    def kept(self: Store, made: Any, *rest: Any) -> None:
        if made.step == step and "done" in states:
            os.kill(os.getpid(), signal.SIGKILL)
        keep(self, made, *rest)
        if made.step == step and "kept" in states:
            os.kill(os.getpid(), signal.SIGKILL)

    def noted(self: RunFolder, told: StepState) -> None:
        note(self, told)
        if told.name == step and (told.state in states or told.state in ("ran", "reused")):
            if not after_s or told.state not in states:
                os.kill(os.getpid(), signal.SIGKILL)
            # Nothing handles this signal: the kernel ends the process on the spot, as SIGKILL does.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, after_s)

    RunFolder.note, Store.keep = noted, kept  # type: ignore[method-assign]


def _trace(path: Path) -> None:
    """Write down which first-party files a component's own code executes, in threads too."""
    from components.contract import Component
    from lineage.code import PACKAGES

    executed: dict[str, list[str]] = {}
    ours = tuple(f"{ROOT / package}{os.sep}" for package in PACKAGES)
    call = Component.__call__

    def called(self: Component, config: Any, **directories: Path) -> Any:
        files: set[str] = set()

        def look(frame: Any, event: str, argument: Any) -> None:
            if frame.f_code.co_filename.startswith(ours):
                files.add(frame.f_code.co_filename)

        threading.settrace(look)
        sys.settrace(look)
        try:
            return call(self, config, **directories)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            executed[self.module] = sorted(str(Path(f).relative_to(ROOT)) for f in files)
            path.write_text(json.dumps(executed))

    Component.__call__ = called  # type: ignore[method-assign]


if __name__ == "__main__":
    serve()
