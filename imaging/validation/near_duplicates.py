"""Pictures that are nearly the same: a second export, another compression, a cut or turned copy.

A picture's perceptual hash (DCT, 256 bits) hardly changes when it is written anew; two pictures
whose hashes differ in a few bits are taken for one. Flipped, inverted or strongly cut copies are
not found. What the distance allowed by default finds and mistakes: docs/splits.md.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

SIDE = 16  # bits: SIDE x SIDE
MAX_DISTANCE = 30  # of 256 bits
_BANDS, _BAND_BITS = 16, 16
_AT_ONCE = 2**22  # candidates held in memory


def perceptual_hash(seen: NDArray[np.float32]) -> str:
    """64 hex digits of what an image looks like: the signs of its 16 x 16 lowest DCT terms.

    Args:
        seen: (H, W), (H, W, 3) or (F, H, W), (F, H, W, 3); of several frames, the middle one.
    """
    import imagehash
    from PIL import Image

    seen = np.asarray(seen, dtype=np.float32)
    if seen.ndim > 2 and seen.shape[-1] == 3:
        seen = seen.mean(axis=-1)
    if seen.ndim == 3:
        seen = seen[len(seen) // 2]
    # Shrunk before it is rounded to 8 bits, or soft tissue in a wide range would be one grey.
    side = 4 * SIDE
    image = Image.fromarray(np.ascontiguousarray(seen)).resize((side, side), reducing_gap=3.0)
    small = np.asarray(image)
    span = float(np.ptp(small)) or 1.0
    scaled = np.round((small - small.min()) / span * 255).astype(np.uint8)
    return str(imagehash.phash(Image.fromarray(scaled), hash_size=SIDE))


def near_pairs(hashes: Sequence[str], max_distance: int = MAX_DISTANCE) -> NDArray[np.int64]:
    """Which of the hashes differ in `max_distance` bits or fewer: (P, 2) indices, each pair once.

    Of 16 bands of bits, one must then differ in max_distance / 16 bits or fewer, so only those
    that nearly agree on a band are compared: no pair is missed, and memory stays bounded.
    """
    if len(hashes) < 2:
        return np.empty((0, 2), dtype=np.int64)
    words, bands = _unpacked(hashes)
    found: list[NDArray[np.int64]] = []
    for band in bands.T:
        order = np.argsort(band, kind="stable")
        ends = np.searchsorted(band[order], np.arange(2**_BAND_BITS + 1))
        for flip in _flips(max_distance // _BANDS):
            other = band ^ flip
            starts, counts = ends[other], ends[other + 1] - ends[other]
            # As many hashes at a time as their candidates fit into memory.
            rounds = np.cumsum(counts) // _AT_ONCE
            for part in np.unique(rounds):
                chosen = np.flatnonzero((rounds == part) & (counts > 0))
                many = counts[chosen]
                left = np.repeat(chosen, many)
                within = np.arange(len(left)) - np.repeat(np.cumsum(many) - many, many)
                right = order[np.repeat(starts[chosen], many) + within]
                once = left < right
                left, right = left[once], right[once]
                near = _distance(words, left, right) <= max_distance
                found.append(np.stack([left[near], right[near]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def near_others(
    hashes: Sequence[str | None], groups: ArrayLike, max_distance: int = MAX_DISTANCE
) -> NDArray[np.bool_]:
    """Which images have a nearly equal one in another group, such as another patient's.

    Args:
        hashes: One per image; None has no neighbours.
        groups: One per image; any values.
        max_distance: In bits.
    """
    _, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    known = np.array([isinstance(h, str) for h in hashes], dtype=bool)
    answer = np.zeros(len(known), dtype=bool)
    if not known.any():
        return answer
    # Equal hashes are looked at once: a thousand blank images are not half a million pairs.
    distinct, which = np.unique([h for h in hashes if isinstance(h, str)], return_inverse=True)
    own = codes[known]
    lowest = np.full(len(distinct), len(codes))
    highest = np.full(len(distinct), -1)
    np.minimum.at(lowest, which, own)
    np.maximum.at(highest, which, own)
    pairs = near_pairs(distinct.tolist(), max_distance)
    low, high = lowest.copy(), highest.copy()
    for one, other in (pairs.T, pairs.T[::-1]):
        np.minimum.at(low, one, lowest[other])
        np.maximum.at(high, one, highest[other])
    answer[known] = (low[which] != own) | (high[which] != own)
    return answer


def _unpacked(hashes: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Each hash as four words to count bits in, and as 16 bands.

    Rows and columns of a hash are frequencies. Each band takes one bit of every row and column:
    bits of low frequency alone, much alike in all chests, would put everybody into one bucket.
    """
    raw = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint8).reshape(len(hashes), -1)
    bits = np.unpackbits(raw, axis=1).reshape(-1, SIDE, SIDE)
    rows = np.arange(SIDE)
    weights = 1 << np.arange(_BAND_BITS, dtype=np.int64)
    bands = [bits[:, rows, (rows + k) % SIDE].astype(np.int64) @ weights for k in range(_BANDS)]
    return np.ascontiguousarray(raw).view(np.uint64), np.stack(bands, axis=1)


def _flips(radius: int) -> list[int]:
    bits = [1 << i for i in range(_BAND_BITS)]
    return [sum(chosen) for n in range(radius + 1) for chosen in combinations(bits, n)]


def _distance(words: NDArray[np.uint64], left: Any, right: Any) -> NDArray[np.int64]:
    differing: NDArray[np.int64] = np.bitwise_count(words[left] ^ words[right]).sum(
        axis=1, dtype=np.int64
    )
    return differing
