"""A network that learns a bright square in a second."""

TINY_NETWORK = {
    "name": "DenseNet",
    "args": {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 2,
        "init_features": 8,
        "growth_rate": 4,
        "block_config": [2],
    },
}
