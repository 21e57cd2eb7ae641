"""A task that a tiny network learns in a second: is there a bright square?"""

import numpy as np
import pytest
from tiny_networks import TINY_NETWORK

from training.config import TrainingConfig
from training.data import Images

TINY = {
    "network": TINY_NETWORK,
    "preprocess": [],
    "augment": [{"name": "RandFlip", "args": {"prob": 0.5, "spatial_axis": 1}}],
    "max_epochs": 6,
    "batch_size": 16,
    "learning_rate": 0.01,
}


def squares(count: int, seed: int) -> Images:
    rng = np.random.default_rng(seed)
    pixels = rng.normal(0, 0.5, (count, 1, 16, 16)).astype(np.float32)
    labels = np.arange(count) % 2
    for image, label in zip(pixels, labels, strict=True):
        x, y = rng.integers(0, 10, 2)
        image[0, y : y + 6, x : x + 6] += label
    names = [f"{seed}.{i}" for i in range(count)]
    return Images(pixels, labels, names, names)


@pytest.fixture(scope="session")
def tiny():
    """Makes a TrainingConfig that differs from `TINY` in the settings given."""
    return lambda **changes: TrainingConfig.model_validate(TINY | changes)


@pytest.fixture(scope="session")
def train():
    return squares(96, 1)


@pytest.fixture(scope="session")
def validation():
    return squares(48, 2)
