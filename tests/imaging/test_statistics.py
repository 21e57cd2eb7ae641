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


def test_frames_are_measured_together() -> None:
    dark, bright = noise(0.03, seed=1) * 0.5, noise(0.1, seed=2)
    whole = image_statistics(np.stack([dark, bright]))
    first, second = image_statistics(dark), image_statistics(bright)
    for name in ("intensity_mean", "noise_sigma", "sharpness", "border_mean"):
        assert whole[name] == pytest.approx((first[name] + second[name]) / 2)
    together = np.concatenate([dark, bright])
    assert whole["intensity_std"] == pytest.approx(together.std())
    percentiles = [whole[f"intensity_p{p}"] for p in ("01", "50", "99")]
    assert percentiles == pytest.approx(np.percentile(together, (1, 50, 99)), abs=1e-3)
    assert whole["entropy_bits"] == pytest.approx(image_statistics(together)["entropy_bits"])


def test_equal_frames_look_like_the_one() -> None:
    one = noise(0.1)
    assert image_statistics(np.stack([one] * 3)) == pytest.approx(image_statistics(one), abs=1e-3)


def test_colour_is_measured_by_its_brightness() -> None:
    grey = noise(0.1)
    coloured = np.stack([grey] * 3, axis=-1)
    assert image_statistics(coloured) == pytest.approx(image_statistics(grey), abs=1e-3)
    red, green = (np.zeros((4, 4, 3), np.float32) for _ in range(2))
    red[..., 0] = green[..., 1] = 1
    assert image_statistics(red)["intensity_mean"] == pytest.approx(0.299)
    assert image_statistics(green)["intensity_p50"] == pytest.approx(0.587)
    assert image_statistics(np.stack([red, green]))["border_mean"] == pytest.approx(0.443)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4, 5), (2, 2, 2, 2, 3), (0, 4), (0, 4, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="H, W"):
        image_statistics(np.zeros(shape, np.float32))
