"""Several processes on one machine, one for each GPU, and this one to watch over them."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lineage.errors import BadInput, StepFailed
from lineage.files import read_json, write_json
from lineage.progress import Report
from training.checkpoint import Checkpoints, Epoch
from training.config import TrainingConfig
from training.data import Images
from training.distributed import Team
from training.fit import Fitted, LogEpoch, fit, fitted, tell

LOOK_S = 0.2  # between two looks at how far they are
GRACE_S = 5.0  # for the others to end by themselves once one has


def fit_apart(
    config: TrainingConfig,
    train: Images,
    validation: Images,
    *,
    team: Team,
    checkpoints: Checkpoints | None = None,
    report: Report | None = None,
    log: LogEpoch | None = None,
) -> Fitted:
    """As `training.fit.fit`, by `team.local` processes that are started here.

    They read the images from files, so that memory holds them once, and write what they tell
    into files: whoever is killed leaves nobody waiting. If one dies, the others are ended.

    Raises:
        BadInput: As `fit`.
        StepFailed: As `fit`; or one of the processes died.
    """
    from safetensors.torch import load_file
    from torch.multiprocessing import ProcessExitedException, start_processes

    with TemporaryDirectory(prefix="lightbox-") as name:
        folder = Path(name)
        if not team.place:  # opens no port; and what gloo opens is for this machine alone
            team = replace(team, place=f"file://{folder}/meeting", interface="lo")
        for side, images in (("train", train), ("validation", validation)):
            np.save(folder / f"{side}.npy", images.pixels)
        bare = [replace(part, pixels=part.pixels[:0]) for part in (train, validation)]
        members = start_processes(
            _member, (folder, config, *bare, team, checkpoints), team.local, join=False
        )
        heard, ended = 0, False
        try:
            while not ended:
                ended = members.join(timeout=LOOK_S, grace_period=GRACE_S)
                news = _news(folder)
                for epoch in news[heard:]:
                    tell(config, epoch, report, log)
                heard = len(news)
        except ProcessExitedException as error:
            raise _why(folder, team, error.signal_name) from error
        finally:
            for process in members.processes:
                process.kill()
                process.join()
        if not (history := read_json(folder / "history", list)):
            raise _why(folder, team, None)
        return fitted(config, train.shape, history, load_file(folder / "weights"))


def _member(
    index: int,
    folder: Path,
    config: TrainingConfig,
    train: Images,
    validation: Images,
    team: Team,
    checkpoints: Checkpoints | None,
) -> None:
    from safetensors.torch import save_file

    train, validation = (
        replace(images, pixels=np.load(folder / f"{side}.npy", mmap_mode="c"))
        for side, images in (("train", train), ("validation", validation))
    )
    own = replace(team, rank=team.rank + index, local=1, gpu=index)

    def log(epoch: int, metrics: dict[str, float]) -> None:
        with (folder / "news").open("a") as news:
            news.write(json.dumps({"epoch": epoch, **metrics}) + "\n")

    try:
        done = fit(config, train, validation, team=own, checkpoints=checkpoints, log=log)
    except (BadInput, StepFailed) as error:
        write_json(folder / "failed", {"kind": type(error).__name__, "sentence": str(error)})
        raise SystemExit(1) from error
    if index == 0:
        save_file(done.network.state_dict(), folder / "weights")
        write_json(folder / "history", done.history)


def _news(folder: Path) -> list[Epoch]:
    path = folder / "news"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _why(folder: Path, team: Team, signal: str | None) -> BadInput | StepFailed:
    """The member's own sentence; of one that was killed there is none, its mates only miss it."""
    said = read_json(folder / "failed")
    if said and not signal:
        return (BadInput if said["kind"] == "BadInput" else StepFailed)(said["sentence"])
    return StepFailed(
        f"one of the {team.local} processes that train together on this machine ended early "
        f"({signal or 'without a word'}); the same command goes on from the last checkpoint"
    )
