"""The loop: learn on the training images, stop by the validation images, keep the best weights."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lineage.errors import BadInput, StepFailed
from lineage.progress import Report
from training.config import TrainingConfig
from training.data import Batches, Images
from training.network import build_network

if TYPE_CHECKING:
    import torch

LogEpoch = Callable[[int, dict[str, float]], None]  # epoch from 1, metrics by name


@dataclass(frozen=True)
class Fitted:
    """A trained network on the CPU, in evaluation mode, with the weights of its best epoch.

    Attributes:
        network: Two logits per image.
        history: Per epoch: epoch (from 1), train_loss, validation_loss, validation_auroc.
        best_epoch: The one with the lowest validation loss.
    """

    network: "torch.nn.Module"
    history: list[dict[str, float]]
    best_epoch: int


def fit(
    config: TrainingConfig,
    train: Images,
    validation: Images,
    *,
    report: Report | None = None,
    log: LogEpoch | None = None,
) -> Fitted:
    """Train from random weights: AdamW, cross-entropy, a one-cycle learning rate.

    The learning rate rises and falls over `max_epochs` (Smith and Topin, "Super-convergence",
    2019). The weights kept are those of the lowest validation loss, which asks for calibrated
    scores; the AUROC of a small validation split picks a lucky epoch. Training stops early once
    neither of the two gets better: while the rate is high, the loss jumps about although the
    network learns.

    On the CPU, the same data, settings and machine type give the same weights bit for bit.

    Args:
        config: See there.
        train, validation: Both with both classes, of one image size.
        report: Called as (epoch, max_epochs, "loss … auroc …").
        log: Called as (epoch, metrics) for an experiment tracker.

    Raises:
        BadInput: The device is absent, or the network or augmentations do not fit.
        StepFailed: The loss is no longer a number.
    """
    import torch
    from torch.nn.functional import cross_entropy

    device = choose_device(config.device)
    history: list[dict[str, float]] = []
    best_weights: dict[str, torch.Tensor] = {}
    lowest, best_epoch, highest, improved = np.inf, 0, -np.inf, 0
    with _deterministic(config.seed, config.threads):
        network = build_network(config.network.name, config.network.args, train.shape)
        network.to(device)
        batches = Batches(train, config.augment, batch_size=config.batch_size, seed=config.seed)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.learning_rate, total_steps=config.max_epochs * len(batches) + 1
        )
        for epoch in range(1, config.max_epochs + 1):
            network.train()
            total = 0.0
            for pixels, labels in batches.epoch():
                optimizer.zero_grad(set_to_none=True)
                loss = cross_entropy(
                    network(_tensor(pixels, device)), torch.from_numpy(labels).to(device)
                )
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(labels)
            logits = predict_logits(network, validation.pixels, device)
            metrics = {
                "train_loss": total / len(train),
                "validation_loss": cross_entropy(
                    torch.from_numpy(logits), torch.from_numpy(validation.labels)
                ).item(),
                "validation_auroc": auroc(logits[:, 1] - logits[:, 0], validation.labels),
            }
            if not np.isfinite(list(metrics.values())).all():
                raise StepFailed(
                    f"the loss is no longer a number in epoch {epoch}; "
                    "lower training.learning_rate or check training.preprocess"
                )
            history.append({"epoch": epoch, **metrics})
            if log:
                log(epoch, metrics)
            if report:
                note = (
                    f"loss {metrics['validation_loss']:.3f} auroc {metrics['validation_auroc']:.3f}"
                )
                report(epoch, config.max_epochs, note)
            if metrics["validation_loss"] < lowest:
                lowest, best_epoch, improved = metrics["validation_loss"], epoch, epoch
                best_weights = {k: v.cpu().clone() for k, v in network.state_dict().items()}
            if metrics["validation_auroc"] > highest:
                highest, improved = metrics["validation_auroc"], epoch
            if epoch - improved >= config.patience:
                break
    network.to("cpu").load_state_dict(best_weights)
    return Fitted(network.eval(), history, best_epoch)


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
