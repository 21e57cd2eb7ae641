import numpy as np
import pytest

from imaging.config import Transform
from imaging.preprocess import build, compose
from lineage.errors import BadInput

IMAGE = np.random.default_rng(0).random((1, 24, 32), dtype=np.float32)


def test_chains_in_order_and_gives_plain_numpy():
    halve = Transform(name="ScaleIntensityFixedMean", args={"factor": 0.0})
    shift = Transform(name="ShiftIntensity", args={"offset": 1.0})
    resize = Transform(name="Resize", args={"spatial_size": [6, 8], "mode": "area"})
    result = compose([resize, halve, shift])(IMAGE)
    assert type(result) is np.ndarray
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    by_hand = IMAGE.reshape(1, 6, 4, 8, 4).mean(axis=(2, 4)) + 1
    np.testing.assert_allclose(result, by_hand, atol=1e-6)


def test_no_transforms_hand_the_image_on():
    np.testing.assert_array_equal(compose([])(IMAGE), IMAGE)


def test_the_input_is_left_as_it_was():
    before = IMAGE.copy()
    compose([Transform(name="NormalizeIntensity"), Transform(name="Flip")])(IMAGE)
    np.testing.assert_array_equal(IMAGE, before)


@pytest.mark.parametrize(
    ("name", "args", "sentence"),
    [
        ("Resise", {}, "near it: Resize"),
        ("Resized", {}, "no array transform 'Resized'; near it: Resize"),
        ("LoadImage", {}, "no array transform"),  # files are read by imaging.reading.pixels alone
        ("TorchVision", {"name": "ColorJitter"}, "no array transform"),  # would hide a random one
        ("RandFlip", {"prob": 0.5}, "RandFlip is random"),
        ("Resize", {"size": 3}, "Resize does not take these args"),
    ],
)
def test_refuses_when_building(name, args, sentence):
    with pytest.raises(BadInput, match=sentence) as refused:
        compose([Transform(name=name, args=args)], "training.preprocess")
    assert str(refused.value).startswith("training.preprocess: ")


@pytest.mark.parametrize(
    ("name", "args", "sentence"),
    [
        ("Resize", {"spatial_size": [4]}, "Resize cannot work on an image of shape"),
        ("SqueezeDim", {}, "must again be"),
        ("RepeatChannel", {"repeats": 3}, "must again be"),
    ],
)
def test_refuses_when_applied(name, args, sentence):
    apply = compose([Transform(name=name, args=args)])
    with pytest.raises(BadInput, match=sentence):
        apply(IMAGE)


def test_a_seed_allows_random_transforms_and_fixes_their_draws():
    noise = Transform(name="RandGaussianNoise", args={"prob": 1.0})
    draws = [np.asarray(build(noise, "augment", seed=seed)(IMAGE)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0] - draws[2]).max() > 0
