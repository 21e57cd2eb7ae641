"""Preprocessing as data: a list of MONAI transforms that training, evaluation and serving share."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from imaging.config import Transform
from lineage.errors import BadInput

Preprocess = Callable[[np.ndarray], np.ndarray]


def compose(transforms: Sequence[Transform], where: str = "preprocess") -> Preprocess:
    """Chain deterministic transforms: the same pixels give the same result wherever it runs.

    Args:
        transforms: Applied in this order; random ones are refused, they belong to augmentation.
        where: The setting to name in errors, such as `training.preprocess`.

    Returns:
        A function from float32 (1, H, W) to plain, contiguous float32 (1, h, w).

    Raises:
        BadInput: An unknown, random or dictionary transform, or arguments it does not take;
            when called, a transform that cannot work on the image or breaks its shape.
    """
    return chain(transforms, [build(t, where) for t in transforms], where)


def build(transform: Transform, where: str, *, seed: int | None = None) -> Any:
    """Construct one MONAI array transform; with a seed it may be a random one.

    Raises:
        BadInput: As for `compose`.
    """
    import monai.transforms

    known = _array_transforms()
    if transform.name not in known:
        raise BadInput(f"{where}: {_unknown(transform.name, known)}")
    kind = known[transform.name]
    random = issubclass(kind, monai.transforms.Randomizable)
    if random and seed is None:
        raise BadInput(
            f"{where}: {transform.name} is random, and preprocessing must give the same result "
            "each time; list it under training.augment"
        )
    try:
        built = kind(**transform.args)
    except Exception as error:  # constructors raise whatever they like
        raise BadInput(f"{where}: {transform.name} does not take these args: {error}") from error
    if random:
        built.set_random_state(seed)
    return built


def chain(transforms: Sequence[Transform], built: Sequence[Any], where: str) -> Preprocess:
    """Apply built transforms one after the other and hand back plain numpy.

    A leading axis other than 1 is allowed: MONAI treats every channel alike.
    """
    from monai.utils import convert_to_numpy

    def apply(image: np.ndarray) -> np.ndarray:
        result: Any = image
        for transform, step in zip(transforms, built, strict=True):
            try:
                result = step(result)
            except Exception as error:  # MONAI raises whatever numpy and torch raise
                raise BadInput(
                    f"{where}: {transform.name} cannot work on an image of shape "
                    f"{tuple(np.shape(result))}: {error}"
                ) from error
        plain = np.ascontiguousarray(convert_to_numpy(result), dtype=np.float32)
        if plain.ndim != 3 or len(plain) != len(image):
            raise BadInput(
                f"{where}: the transforms turn shape {image.shape} into {plain.shape}; "
                "the result must again be (channel, height, width)"
            )
        return plain

    return apply


def _array_transforms() -> dict[str, Any]:
    """Every concrete array transform that neither touches files nor wraps another library."""
    import inspect

    import monai.transforms as m

    wrappers = {"CuCIM", "RandCuCIM", "TorchIO", "RandTorchIO", "TorchVision", "RandTorchVision"}
    return {
        name: kind
        for name, kind in vars(m).items()
        if inspect.isclass(kind)
        and issubclass(kind, m.Transform)
        and not issubclass(kind, m.MapTransform | m.Compose)
        and not inspect.isabstract(kind)
        and not kind.__module__.startswith("monai.transforms.io")
        and name not in wrappers
    }


def _unknown(name: str, known: dict[str, Any]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name.removesuffix("d"), known, n=3) or get_close_matches(
        name, known, n=3, cutoff=0.4
    )
    hint = f"; near it: {', '.join(near)}" if near else ""
    return f"monai.transforms has no array transform {name!r}{hint}"
