"""Settings of the training step: the network, what it sees, how long it learns."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from imaging.config import Transform


class NetworkConfig(BaseModel):
    """A classifier of `monai.networks.nets` with two outputs, and its constructor's arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    args: dict[str, Any] = Field(default_factory=dict)


class TrainingConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    network: NetworkConfig
    classes: tuple[str, str] = ("negative", "positive")  # names of labels 0 and 1
    preprocess: tuple[Transform, ...]  # deterministic; evaluation and serving use it too
    augment: tuple[Transform, ...] = ()  # may be random; training images only

    max_epochs: int = Field(default=30, ge=1)
    patience: int = Field(default=5, ge=1)  # epochs without a better loss or AUROC
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)

    # The operating threshold is set so that this share of validation negatives stays negative.
    target_specificity: float = Field(default=0.9, gt=0, le=1)

    seed: int = Field(default=0, ge=0, lt=2**32)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # Sums on the CPU depend on it, so it is a setting. More than the cores that are free is far
    # slower than one: torch's threads wait for each other by spinning.
    threads: int = Field(default=1, ge=1)
    experiment: str = Field(default="lightbox", min_length=1)  # where MLflow lists the run
