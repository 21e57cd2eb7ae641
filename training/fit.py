"""The loop: learn on the training images, stop by the validation images, keep the best weights."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lineage.errors import BadInput, StepFailed
from lineage.progress import Report
from training.checkpoint import Checkpoints, Epoch, Learning, restore
from training.config import TrainingConfig
from training.data import Batches, Images
from training.distributed import ALONE, Team
from training.network import build_network

if TYPE_CHECKING:
    import torch

LogEpoch = Callable[[int, dict[str, float]], None]  # epoch from 1, metrics by name
METRICS = ("train_loss", "validation_loss", "validation_auroc")


@dataclass(frozen=True)
class Fitted:
    """A trained network on the CPU, in evaluation mode, with the weights of its best epoch.

    Attributes:
        network: Two logits per image.
        history: Per epoch: epoch (from 1), train_loss, validation_loss, validation_auroc.
        best_epoch: The one with the lowest validation loss.
    """

    network: "torch.nn.Module"
    history: list[Epoch]
    best_epoch: int


def fit(
    config: TrainingConfig,
    train: Images,
    validation: Images,
    *,
    team: Team = ALONE,
    checkpoints: Checkpoints | None = None,
    report: Report | None = None,
    log: LogEpoch | None = None,
) -> Fitted:
    """Train from random weights: AdamW, cross-entropy, a one-cycle learning rate.

    The learning rate rises and falls over `max_epochs` (Smith and Topin, "Super-convergence",
    2019). The weights kept are those of the lowest validation loss, which asks for calibrated
    scores; the AUROC of a small validation split picks a lucky epoch. Training stops early once
    neither of the two gets better: while the rate is high, the loss jumps about although the
    network learns.

    On the CPU, the same data, settings and machine type give the same weights bit for bit, also
    where a training was killed and goes on from a checkpoint.

    Args:
        config: See there.
        train, validation: Both with both classes, of one image size.
        team: The processes that train this network; each calls this with the same arguments.
        checkpoints: Where to go on from, and what to save after each epoch.
        report: Called as (epoch, max_epochs, "loss … auroc …") where the team's first runs.
        log: Called as (epoch, metrics) for an experiment tracker, where the team's first runs.

    Raises:
        BadInput: The device is absent, or the network or augmentations do not fit.
        StepFailed: The loss is no longer a number, or another process of the team is gone.
    """
    import torch

    device = choose_device(config.device)
    with _deterministic(config.seed, config.threads), team.joined(device):
        network = build_network(config.network.name, config.network.args, train.shape)
        network.to(device)
        batches = Batches(train, config.augment, batch_size=config.batch_size, seed=config.seed)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.learning_rate, total_steps=config.max_epochs * len(batches) + 1
        )
        learning = Learning(network, optimizer, schedule, batches)
        history = learning.history
        if saved := team.told_bytes(checkpoints.newest() if checkpoints and team.leads else b""):
            restore(learning, saved)
            for past in history if team.leads else ():  # the tracker has it under another run
                tell(config, past, None, log)
        learner = team.shared(network, batches.smallest)
        while not _is_over(history, config):
            epoch = len(history) + 1
            team.reseed(config.seed, epoch)
            train_loss = _learn(learning, learner, team, device) / len(train)
            found = _validate(network, validation, device) if team.leads else (0.0, 0.0)
            metrics = dict(zip(METRICS, (train_loss, *team.told(found)), strict=True))
            if not np.isfinite(list(metrics.values())).all():
                raise StepFailed(
                    f"the loss is no longer a number in epoch {epoch}; "
                    "lower training.learning_rate or check training.preprocess"
                )
            history.append({"epoch": epoch, **metrics})
            if _best(history, "validation_loss", min) == epoch:
                learning.best_weights = {
                    k: v.cpu().clone() for k, v in network.state_dict().items()
                }
            if team.leads:
                tell(config, history[-1], report, log)
                if checkpoints:
                    checkpoints.save(learning)
        return fitted(config, train.shape, history, learning.best_weights)


def tell(config: TrainingConfig, epoch: Epoch, report: Report | None, log: LogEpoch | None) -> None:
    """Pass an epoch of the history on to whoever listens."""
    number, metrics = int(epoch["epoch"]), {name: epoch[name] for name in METRICS}
    if log:
        log(number, metrics)
    if report:
        loss, area = metrics["validation_loss"], metrics["validation_auroc"]
        report(number, config.max_epochs, f"loss {loss:.3f} auroc {area:.3f}")


def fitted(
    config: TrainingConfig,
    shape: tuple[int, int, int],
    history: list[Epoch],
    weights: "dict[str, torch.Tensor]",
) -> Fitted:
    """What a training came to, in a network of its own."""
    network = build_network(config.network.name, config.network.args, shape)
    network.load_state_dict(weights)
    return Fitted(network, history, _best(history, "validation_loss", min))


def _learn(
    learning: Learning, learner: "torch.nn.Module", team: Team, device: "torch.device"
) -> float:
    """One epoch over the training images; the sum of their losses."""
    import torch
    from torch.nn.functional import cross_entropy

    learner.train()
    total = 0.0
    for pixels, labels in learning.batches.epoch():
        own, weight = team.share(len(labels))
        learning.optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(
            learner(_tensor(pixels[own], device)), torch.from_numpy(labels[own]).to(device)
        )
        (loss * weight).backward()
        learning.optimizer.step()
        learning.schedule.step()
        total += loss.item() * len(labels[own])
    return team.total(total)


def _validate(
    network: "torch.nn.Module", images: Images, device: "torch.device"
) -> tuple[float, float]:
    """The validation images' loss, and their AUROC."""
    import torch
    from torch.nn.functional import cross_entropy

    logits = predict_logits(network, images.pixels, device)
    loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(images.labels)).item()
    return loss, auroc(logits[:, 1] - logits[:, 0], images.labels)


def _is_over(history: list[Epoch], config: TrainingConfig) -> bool:
    if not history:
        return False
    improved = max(_best(history, "validation_loss", min), _best(history, "validation_auroc", max))
    return len(history) == config.max_epochs or len(history) - improved >= config.patience


def _best(history: list[Epoch], metric: str, best: Callable[[list[float]], float]) -> int:
    """The first epoch that has the lowest or highest value so far; epochs count from 1."""
    values = [epoch[metric] for epoch in history]
    return 1 + values.index(best(values))


def predict_logits(
    network: "torch.nn.Module", pixels: np.ndarray, device: "torch.device", batch_size: int = 256
) -> np.ndarray:
    """Logits float32 (N, 2) of float32 (N, 1, h, w), in evaluation mode."""
    import torch

    network.eval()
    with torch.inference_mode():
        parts = [
            network(_tensor(pixels[i : i + batch_size], device)).cpu()
            for i in range(0, len(pixels), batch_size)
        ]
    logits: np.ndarray = torch.cat(parts).numpy()
    return logits


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve as the Mann-Whitney statistic, ties counted half."""
    from scipy.stats import rankdata

    positive = labels == 1
    p, n = int(positive.sum()), int((~positive).sum())
    return float((rankdata(scores)[positive].sum() - p * (p + 1) / 2) / (p * n))


def _tensor(pixels: np.ndarray, device: "torch.device") -> "torch.Tensor":
    import torch

    # Not channels_last: a third faster, but torch 2.13 crashes on the CPU with odd batch sizes.
    return torch.from_numpy(pixels).to(device)


def choose_device(wanted: str) -> "torch.device":
    """What to train on: `cpu`, `cuda`, or for `auto` a GPU where there is one.

    Raises:
        BadInput: `cuda` is asked for where there is none.
    """
    import torch

    present = torch.cuda.is_available()
    if wanted == "cuda" and not present:
        raise BadInput(
            "training.device: cuda is asked for, but torch sees no GPU here; "
            "set it to auto or cpu, or ask the environment for a GPU"
        )
    return torch.device("cuda" if present and wanted != "cpu" else "cpu")


@contextmanager
def _deterministic(seed: int, threads: int) -> Iterator[None]:
    """Fix seeds, algorithms and threads, and put torch's settings back: the process lives on."""
    import torch
    from monai.utils import set_determinism

    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS wants it said
    torch.set_num_threads(threads)
    set_determinism(seed)
    # On a GPU some backward passes have no deterministic form; there a warning must do.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    try:
        yield
    finally:
        set_determinism(None)
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=before[2])
