import pytest
import torch

from lineage.errors import BadInput
from training.network import build_network

DENSE = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
SMALL = DENSE | {"init_features": 4, "growth_rate": 4, "block_config": [1]}


def test_builds_by_name_and_in_evaluation_mode():
    network = build_network("DenseNet", SMALL, (1, 16, 16))
    assert not network.training
    assert network(torch.zeros(3, 1, 16, 16)).shape == (3, 2)


@pytest.mark.parametrize(
    ("name", "args", "sentence"),
    [
        ("DenseNte121", {}, r"network\.name: .* no 'DenseNte121'; near it: .*DenseNet121"),
        ("os", {}, r"network\.name: .* no 'os'"),
        ("DenseNet", {"layers": 3}, r"network\.args: DenseNet does not take these"),
        (
            "ResNet",
            {"block": "basic", "layers": [1], "block_inplanes": [4]},
            r"network\.args: ResNet does not take these: one of them has the wrong length or kind",
        ),
        ("DenseNet", SMALL | {"in_channels": 3}, r"network\.args: DenseNet cannot work on images"),
        ("DenseNet", SMALL | {"out_channels": 1}, r"network\.args: .* two images give \(2, 1\)"),
        ("DenseNet121", DENSE | {"pretrained": True}, "pretrained weights come from elsewhere"),
    ],
)
def test_refuses(name, args, sentence):
    with pytest.raises(BadInput, match=sentence):
        build_network(name, args, (1, 16, 16))
