"""What a killed training needs to go on as if nothing had happened: after each epoch, one file.

Two files take turns, so that one is whole while the other is written. A file is a line with the
digest of what follows, a line of JSON, and tensors as safetensors; loading it runs no code, and
nothing of it is parsed before its digest is right.

SageMaker copies `/opt/ml/checkpoints` to S3 as the files change, deletions too, and hands it to
the machine that takes over after an interruption.
"""

import hashlib
import json
import logging
import os
import random
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lineage.code import code_digest, environment
from lineage.digest import digest
from training.config import TrainingConfig
from training.data import Batches, Images, draws, set_draws

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
SUFFIX = ".checkpoint"
Epoch = dict[str, float]


@dataclass
class Learning:
    """Everything that training changes.

    Attributes:
        history: See `training.fit.Fitted`.
        best_weights: On the CPU, of the epoch with the lowest validation loss.
    """

    network: "torch.nn.Module"
    optimizer: "torch.optim.Optimizer"
    schedule: "torch.optim.lr_scheduler.LRScheduler"
    batches: Batches
    history: list[Epoch] = field(default_factory=list)
    best_weights: dict[str, "torch.Tensor"] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoints:
    """The newest two states of one training.

    Attributes:
        folder: May hold those of other trainings, too.
        belongs_to: Digest of all that decides what the training comes to.
    """

    folder: Path
    belongs_to: str

    @classmethod
    def of(
        cls, folder: Path, config: TrainingConfig, train: Images, validation: Images, processes: int
    ) -> "Checkpoints":
        """Those of the training that `fit` is about to do: of this code, config and data."""
        import torch

        images = [_content(part) for part in (train, validation)]
        made_by = [code_digest("training.fit"), environment(), processes, torch.cuda.is_available()]
        belongs_to = digest("training", config.model_dump(mode="json"), images, made_by)
        return cls(folder, belongs_to)

    def save(self, learning: Learning) -> None:
        """Replace the older file. A disk that is full costs the checkpoint, not the training."""
        path = self._files()[len(learning.history) % 2]
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Not waited for until the disk has it: what a crash tears, its digest gives away.
            draft.write_bytes(encode(learning, self.belongs_to))
            draft.replace(path)
        except OSError as error:
            log.warning("no checkpoint: %s; training goes on without", error.strerror)
            with suppress(OSError):
                draft.unlink(missing_ok=True)

    def newest(self) -> bytes:
        """The newest whole file; empty if there is none."""
        others = set(self.folder.glob(f"*{SUFFIX}")).difference(self._files())
        if others:
            log.warning("%d checkpoints of another config, data or code: ignored", len(others))
        found = {}
        for path in self._files():
            if not path.exists():
                continue
            data = path.read_bytes()
            if _whole(data) and (told := _told(data))["belongs_to"] == self.belongs_to:
                found[len(told["history"])] = data
            else:
                log.warning("a damaged checkpoint is ignored")
        if not found:
            return b""
        log.warning("an interrupted training goes on after epoch %d", max(found))
        return found[max(found)]

    def clear(self) -> None:
        """Remove them once the model is written: the next training of this kind starts anew."""
        for path in [*self._files(), *self.folder.glob(f".{self.belongs_to[:16]}*")]:
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return [self.folder / f"{self.belongs_to[:16]}-{turn}{SUFFIX}" for turn in (0, 1)]


def encode(learning: Learning, belongs_to: str) -> bytes:
    """All of it, and what generators of random numbers will draw next, as bytes."""
    import torch
    from safetensors.torch import save

    state = learning.optimizer.state_dict()
    tensors = {f"network/{k}": v for k, v in learning.network.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in learning.best_weights.items()}
    tensors |= {f"optimizer/{i}/{k}": v for i, of in state["state"].items() for k, v in of.items()}
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    told = {
        "belongs_to": belongs_to,
        "history": learning.history,
        "groups": state["param_groups"],
        "schedule": learning.schedule.state_dict(),
        "batches": learning.batches.state(),
        "numpy": draws(np.random),
        "python": random.getstate(),
    }
    text = json.dumps(told, allow_nan=False).encode()
    saved: bytes = save({k: v.cpu().contiguous() for k, v in tensors.items()})
    body = text + b"\n" + saved
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def restore(learning: Learning, data: bytes) -> None:
    """Put back what `encode` took, into parts that were built the same way."""
    import torch

    told, tensors = _told(data), _tensors(data)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _under("optimizer/", tensors).items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = tensor
    groups = [group | {"betas": tuple(group["betas"])} for group in told["groups"]]
    learning.network.load_state_dict(_under("network/", tensors))
    learning.optimizer.load_state_dict({"state": state, "param_groups": groups})
    learning.schedule.load_state_dict(told["schedule"])
    learning.batches.restore(told["batches"])
    learning.history[:] = told["history"]
    learning.best_weights = _under("best/", tensors)
    version, internal, gauss = told["python"]
    random.setstate((version, tuple(internal), gauss))
    set_draws(np.random, told["numpy"])
    torch.set_rng_state(tensors["random/cpu"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])


def _whole(data: bytes) -> bool:
    head, _, body = data.partition(b"\n")
    return head == hashlib.sha256(body).hexdigest().encode()


def _told(data: bytes) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(data.split(b"\n", 2)[1])
    return told


def _tensors(data: bytes) -> dict[str, "torch.Tensor"]:
    from safetensors.torch import load

    tensors: dict[str, torch.Tensor] = load(data.split(b"\n", 2)[2])
    return tensors


def _under(prefix: str, tensors: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _content(images: Images) -> list[Any]:
    parts = (images.pixels, images.labels)
    hashes = [hashlib.sha256(np.ascontiguousarray(part).data).hexdigest() for part in parts]
    return [images.shape, *hashes]
