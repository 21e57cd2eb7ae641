import pytest

from imaging.config import Transform
from lineage.errors import BadInput
from training.check import check
from training.config import NetworkConfig, TrainingConfig

RESIZE = Transform(name="Resize", args={"spatial_size": [32, 32]})


def settings(**changes: object) -> TrainingConfig:
    args = {"layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 4, 4], "spatial_dims": 2}
    args |= {"block": "basic", "n_input_channels": 1, "num_classes": 2}
    network = NetworkConfig(name="ResNet", args=args)
    return TrainingConfig(**{"network": network, "preprocess": (RESIZE,), **changes})


def test_settings_that_fit_pass() -> None:
    check(settings())
    check(settings(preprocess=()))  # the size is then that of the images, which nobody knows yet


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"network": NetworkConfig(name="ResNett")}, "training.network.name: .*near it: ResNet"),
        ({"network": NetworkConfig(name="ResNet", args={"x": 1})}, "training.network.args"),
        ({"preprocess": (Transform(name="Resise"),)}, "training.preprocess: .*Resize"),
        ({"preprocess": (Transform(name="RandFlip"),)}, "training.preprocess: RandFlip is random"),
        ({"augment": (Transform(name="RandFlop"),)}, "training.augment: .*RandFlip"),
    ],
)
def test_what_does_not_fit_is_refused_without_an_image(changes, told) -> None:
    with pytest.raises(BadInput, match=told):
        check(settings(**changes))
