"""Trains in children of a process that has imported torch already, and lets them be killed.

Run as a program: an order per line of standard input, its ending per line of standard output.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch.distributed", "monai.networks.nets", "monai.transforms", "safetensors.torch")


class Trainings:
    """The parent's side: start it once, ask it for trainings, close it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},  # the code that these tests lie beside
            text=True,
        )

    def __call__(self, folder: Path, die: tuple[str, int] | None = None, after_s: float = 0) -> int:
        """Train on what `lay_out` put into a folder; result and checkpoints come there, too.

        Args:
            folder: One for each training.
            die: A moment and its epoch.
                "batch": in the middle of an epoch; "log": between it and its checkpoint;
                "half": half of the checkpoint is written; "written": all of it, under no name yet;
                "saved": the checkpoint is there.
            after_s: Die after so many seconds, wherever that is.

        Returns:
            Its exit code; negative, as subprocess has it, if it was killed.
        """
        assert self._process.stdin and self._process.stdout
        order = {"folder": str(folder), "die": die, "after_s": after_s}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)


def lay_out(folder: Path, config: Any, train: Any, validation: Any) -> Path:
    import numpy as np

    folder.mkdir()
    (folder / "config.json").write_text(config.model_dump_json())
    for side, images in (("train", train), ("validation", validation)):
        np.savez(folder / f"{side}.npz", pixels=images.pixels, labels=images.labels)
    return folder


def serve() -> None:
    for name in HEAVY:
        importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _child(json.loads(line))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _child(order: dict[str, Any]) -> None:
    """Never returns."""
    status = 70
    try:
        os.dup2(2, 1)
        _train(Path(order["folder"]), order["die"] or ("", 0), order["after_s"])
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _train(folder: Path, die: tuple[str, int], after_s: float) -> None:
    import numpy as np

    from training.checkpoint import Checkpoints
    from training.config import TrainingConfig
    from training.data import Images
    from training.fit import fit

    def images(side: str) -> Images:
        stored = np.load(folder / f"{side}.npz")
        names = [""] * len(stored["labels"])
        return Images(stored["pixels"], stored["labels"], names, names)

    config = TrainingConfig.model_validate_json((folder / "config.json").read_bytes())
    train, validation = images("train"), images("validation")
    checkpoints = Checkpoints.of(folder / "checkpoints", config, train, validation, processes=1)
    fresh: list[int] = []  # epochs that were learnt here, not taken from the checkpoint

    def log(epoch: int, metrics: dict[str, float]) -> None:
        if die == ["log", epoch]:
            _end()

    _die_at(*die, fresh)
    if after_s:
        # Nothing handles this signal: the kernel ends the process on the spot, as SIGKILL does.
        signal.setitimer(signal.ITIMER_REAL, after_s)
    fitted = fit(config, train, validation, checkpoints=checkpoints, log=log)
    weights = {k: v.numpy().tobytes().hex() for k, v in fitted.network.state_dict().items()}
    result = {"weights": weights, "history": fitted.history, "fresh": fresh}
    (folder / "result.json").write_text(json.dumps(result))


def _die_at(moment: str, epoch: int, fresh: list[int]) -> None:
    from training.checkpoint import Checkpoints
    from training.data import Batches

    batches, save, write, replace = Batches.epoch, Checkpoints.save, Path.write_bytes, Path.replace
    now = 0

    def shuffled(self: Any) -> Any:
        for i, batch in enumerate(batches(self)):
            if (moment, now + 1, 3) == ("batch", epoch, i):
                _end()
            yield batch

    def saved(self: Any, learning: Any) -> None:
        nonlocal now
        now = len(learning.history)
        fresh.append(now)
        save(self, learning)
        if (moment, now) == ("saved", epoch):
            _end()

    def written(self: Path, data: bytes) -> int:
        if (moment, now) == ("half", epoch):
            write(self, data[: len(data) // 2])
            _end()
        return write(self, data)

    def replaced(self: Path, target: Path) -> Path:
        if (moment, now) == ("written", epoch):
            _end()
        return replace(self, target)

    Batches.epoch, Checkpoints.save = shuffled, saved  # type: ignore[method-assign]
    Path.write_bytes, Path.replace = written, replaced  # type: ignore[method-assign,assignment]


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve()
