"""How an image looks, in nine numbers that move when a scanner or a protocol does."""

import numpy as np
from numpy.typing import NDArray

BORDER_SHARE = 0.05
HISTOGRAM_BINS = 256
PERCENTS = (1, 50, 99)
FINE_BINS = (
    2**16
)  # that percentiles of many frames are read off, so that none is sorted with others
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue: ITU-R BT.601


def image_statistics(pixels: NDArray[np.float32]) -> dict[str, float]:
    """Measure an image; the names are `imaging.manifest.STATISTICS`.

    Args:
        pixels: float32 (H, W) in 0..1, as `pixels.read_pixels` gives them, or frames
            (F, H, W); with a last axis of 3, red, green and blue, which are measured as luma.

    Returns:
        Intensities in 0..1. `noise_sigma` is the spread of white noise (Immerkaer, "Fast noise
        variance estimation", CVIU 64, 1996), `sharpness` the variance of the Laplacian,
        `entropy_bits` the Shannon entropy of a 256-bin histogram over 0..1, `border_mean` the mean
        of the outermost 5 % on each side. Sides under 3 pixels have no neighbourhood: noise and
        sharpness are 0 there. Of several frames, noise and sharpness are means over frames, all
        else is of their pixels taken together.

    Raises:
        ValueError: Not a non-empty array of one of these shapes.
    """
    colour = pixels.ndim > 2 and pixels.shape[-1] == 3
    frames = pixels if pixels.ndim == 3 + colour else pixels[np.newaxis]
    if frames.ndim != 3 + colour or not frames.size:
        raise ValueError(
            "statistics want an image of shape (H, W), (F, H, W), (H, W, 3) or (F, H, W, 3),"
            f" not {pixels.shape}"
        )
    bins = HISTOGRAM_BINS if len(frames) == 1 else FINE_BINS
    counts = np.zeros(bins, np.int64)
    of_each = []
    for frame in frames:
        grey = frame @ LUMA if colour else frame
        mean, variance = grey.mean(dtype=np.float64), grey.var(dtype=np.float64)
        of_each.append((mean, variance, *_neighbourhood(grey), _border_mean(grey)))
        counts += _counts(grey, bins)
    means, variances, noises, sharpnesses, borders = np.array(of_each).T
    percentiles = np.percentile(grey, PERCENTS) if len(frames) == 1 else _percentiles(counts)
    return {
        "intensity_mean": float(means.mean()),
        "intensity_std": float(np.sqrt(variances.mean() + means.var())),
        "intensity_p01": float(percentiles[0]),
        "intensity_p50": float(percentiles[1]),
        "intensity_p99": float(percentiles[2]),
        "noise_sigma": float(noises.mean()),
        "sharpness": float(sharpnesses.mean()),
        "entropy_bits": _entropy_bits(counts.reshape(HISTOGRAM_BINS, -1).sum(axis=1)),
        "border_mean": float(borders.mean()),
    }


def _neighbourhood(pixels: NDArray[np.float32]) -> tuple[float, float]:
    if min(pixels.shape) < 3:
        return 0.0, 0.0
    down = pixels[:-2] - 2 * pixels[1:-1] + pixels[2:]  # second difference along rows: (H-2, W)
    across = pixels[:, :-2] - 2 * pixels[:, 1:-1] + pixels[:, 2:]  # (H, W-2)
    # Immerkaer's 3x3 mask is the outer product of (1, -2, 1) with itself.
    mask = down[:, :-2] - 2 * down[:, 1:-1] + down[:, 2:]
    noise = np.sqrt(np.pi / 2) / 6 * np.abs(mask).mean(dtype=np.float64)
    laplacian = down[:, 1:-1] + across[1:-1]
    return float(noise), float(laplacian.var(dtype=np.float64))


def _counts(pixels: NDArray[np.float32], bins: int) -> NDArray[np.int64]:
    places = np.minimum((pixels * bins).astype(np.int64), bins - 1)
    return np.bincount(places.ravel(), minlength=bins)


def _percentiles(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The middles of the bins that hold them."""
    upto = np.cumsum(counts)
    places = np.searchsorted(upto, upto[-1] * np.array(PERCENTS) / 100)
    middles: NDArray[np.float64] = (places + 0.5) / len(counts)
    return middles


def _entropy_bits(counts: NDArray[np.int64]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(max(0.0, -(share * np.log2(share)).sum()))  # never minus nought


def _border_mean(pixels: NDArray[np.float32]) -> float:
    height, width = pixels.shape
    top, left = max(1, round(height * BORDER_SHARE)), max(1, round(width * BORDER_SHARE))
    border = np.ones(pixels.shape, dtype=bool)
    border[top : height - top, left : width - left] = False
    return float(pixels[border].mean(dtype=np.float64))
