import numpy as np
import pytest

from imaging.manifest import STATISTICS
from imaging.statistics import image_statistics


def noise(sigma: float, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed).normal(0.5, sigma, (200, 160))
    return np.clip(draw, 0, 1).astype(np.float32)


def test_names_are_those_of_the_manifest_in_order() -> None:
    assert tuple(image_statistics(noise(0.1))) == STATISTICS


@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.1])
def test_noise_sigma_finds_white_noise_again(sigma: float) -> None:
    ramp = np.linspace(0, 0.2, 160, dtype=np.float32)
    assert image_statistics(noise(sigma) + ramp - 0.1)["noise_sigma"] == pytest.approx(
        sigma, rel=0.05
    )


def test_a_blurred_image_is_less_sharp() -> None:
    image = noise(0.1)
    blurred = (image + np.roll(image, 1, 0) + np.roll(image, 1, 1)) / 3
    assert image_statistics(blurred)["sharpness"] < image_statistics(image)["sharpness"] / 2


def test_a_flat_image_has_no_spread_noise_or_entropy() -> None:
    flat = image_statistics(np.full((40, 40), 0.25, np.float32))
    assert flat["intensity_mean"] == flat["intensity_p01"] == flat["border_mean"] == 0.25
    assert [flat[n] for n in ("intensity_std", "noise_sigma", "sharpness", "entropy_bits")] == [
        0
    ] * 4


def test_all_grey_values_alike_give_eight_bits() -> None:
    image = (np.arange(256, dtype=np.float32) / 255).reshape(16, 16)
    assert image_statistics(image)["entropy_bits"] == pytest.approx(8)


def test_border_is_the_outer_twentieth() -> None:
    image = np.zeros((100, 60), np.float32)
    image[:5], image[-5:], image[:, :3], image[:, -3:] = 1, 1, 1, 1
    assert image_statistics(image)["border_mean"] == 1
    image[5, 3:-3] = 1
    assert image_statistics(image)["border_mean"] == 1


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (3, 3)])
def test_tiny_images_have_finite_numbers(shape: tuple[int, int]) -> None:
    assert np.isfinite(list(image_statistics(np.ones(shape, np.float32)).values())).all()


def test_a_volume_is_refused() -> None:
    with pytest.raises(ValueError, match="H, W"):
        image_statistics(np.zeros((2, 3, 4), np.float32))
