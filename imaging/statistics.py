"""How an image looks, in nine numbers that move when a scanner or a protocol does."""

import numpy as np
from numpy.typing import NDArray

BORDER_SHARE = 0.05
HISTOGRAM_BINS = 256


def image_statistics(pixels: NDArray[np.float32]) -> dict[str, float]:
    """Measure an image; the names are `imaging.manifest.STATISTICS`.

    Args:
        pixels: float32 (H, W) in 0..1, as `imaging.pixels.read_pixels` gives them.

    Returns:
        Intensities in 0..1. `noise_sigma` is the spread of white noise (Immerkaer, "Fast noise
        variance estimation", CVIU 64, 1996), `sharpness` the variance of the Laplacian,
        `entropy_bits` the Shannon entropy of a 256-bin histogram over 0..1, `border_mean` the mean
        of the outermost 5 % on each side. Sides under 3 pixels have no neighbourhood: noise and
        sharpness are 0 there.

    Raises:
        ValueError: Not a non-empty two-dimensional array.
    """
    if pixels.ndim != 2 or not pixels.size:
        raise ValueError(f"statistics want an image of shape (H, W), not {pixels.shape}")
    p01, p50, p99 = np.percentile(pixels, (1, 50, 99))
    noise, sharpness = _neighbourhood(pixels)
    return {
        "intensity_mean": float(pixels.mean(dtype=np.float64)),
        "intensity_std": float(pixels.std(dtype=np.float64)),
        "intensity_p01": float(p01),
        "intensity_p50": float(p50),
        "intensity_p99": float(p99),
        "noise_sigma": noise,
        "sharpness": sharpness,
        "entropy_bits": _entropy_bits(pixels),
        "border_mean": _border_mean(pixels),
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


def _entropy_bits(pixels: NDArray[np.float32]) -> float:
    bins = np.minimum((pixels * HISTOGRAM_BINS).astype(np.int64), HISTOGRAM_BINS - 1)
    share = np.bincount(bins.ravel(), minlength=HISTOGRAM_BINS) / pixels.size
    share = share[share > 0]
    return float(max(0.0, -(share * np.log2(share)).sum()))  # never minus nought


def _border_mean(pixels: NDArray[np.float32]) -> float:
    height, width = pixels.shape
    top, left = max(1, round(height * BORDER_SHARE)), max(1, round(width * BORDER_SHARE))
    border = np.ones(pixels.shape, dtype=bool)
    border[top : height - top, left : width - left] = False
    return float(pixels[border].mean(dtype=np.float64))
