"""What can be known of a training's settings before an image is read."""

from lineage.errors import BadInput
from training.config import TrainingConfig

PROBES = ((240, 320), (320, 240))  # pixels; where both come out alike, so will every image


def check(config: TrainingConfig) -> None:
    """Refuse what fits neither MONAI nor this machine, hours before training would find out.

    Raises:
        BadInput: As from `training.fit.fit`, `imaging.preprocess.compose` and
            `training.network.build_network`.
    """
    import numpy as np

    from imaging.preprocess import build, compose
    from training.fit import choose_device
    from training.network import build_network

    choose_device(config.device)
    preprocess = compose(config.preprocess, "training.preprocess")
    for transform in config.augment:
        build(transform, "training.augment", seed=config.seed)
    noise = np.random.default_rng(0)
    try:
        shapes = {preprocess(noise.random((1, *p), dtype=np.float32)).shape for p in PROBES}
    except BadInput:
        return  # a true image may be of another size than these
    if len(shapes) == 1:
        _, height, width = shapes.pop()
        build_network(config.network.name, config.network.args, (1, height, width))
