"""The network: built by its name in MONAI, so that a config is all it takes to rebuild it."""

from typing import TYPE_CHECKING, Any

from lineage.errors import BadInput

if TYPE_CHECKING:
    from torch.nn import Module


def build_network(name: str, args: dict[str, Any], input_shape: tuple[int, int, int]) -> "Module":
    """Construct a classifier of `monai.networks.nets` with fresh random weights.

    Args:
        name: A class there, such as "DenseNet".
        args: Its constructor's arguments; the two outputs are the logits of the negative and
            the positive class.
        input_shape: (1, h, w) of the images it will see; it is tried on zeros.

    Raises:
        BadInput: No such network, arguments it does not take, weights from elsewhere asked for,
            or something else than two numbers per image comes out.
    """
    import torch
    from monai.networks import nets

    known = {
        key: value
        for key, value in vars(nets).items()
        if isinstance(value, type) and issubclass(value, torch.nn.Module)
    }
    if name not in known:
        raise BadInput(
            f"training.network.name: monai.networks.nets has no {name!r}{_near(name, known)}"
        )
    if args.get("pretrained"):
        raise BadInput(
            "training.network.args: pretrained weights come from elsewhere, as a pickle and "
            "without a record of their origin; train from scratch"
        )
    try:
        network: torch.nn.Module = known[name](**args)
    except Exception as error:  # MONAI's constructors raise whatever they like
        # Python's own words for this help nobody.
        vague = isinstance(error, IndexError) or not str(error)
        why = "one of them has the wrong length or kind" if vague else error
        raise BadInput(f"training.network.args: {name} does not take these: {why}") from error
    network.eval()
    try:
        with torch.no_grad():
            output = network(torch.zeros(2, *input_shape))
    except Exception as error:
        raise BadInput(
            f"training.network.args: {name} cannot work on images of shape {input_shape}: {error}"
        ) from error
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if shape != (2, 2):
        raise BadInput(
            "training.network.args: the network must give two numbers per image, the logits of "
            f"the negative and the positive class, but two images give {shape}; "
            "set out_channels (num_classes for some networks) to 2"
        )
    return network


def _near(name: str, known: dict[str, Any]) -> str:
    from difflib import get_close_matches

    # MONAI keeps each class under several spellings; its own name is the one to suggest.
    by_lower = {key.lower(): key for key, kind in known.items() if key == kind.__name__}
    near = [by_lower[key] for key in get_close_matches(name.lower(), by_lower, n=3)]
    return f"; near it: {', '.join(near)}" if near else ""
