from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imaging.validation.near_duplicates import (
    MAX_DISTANCE,
    near_others,
    near_pairs,
    perceptual_hash,
)


def distance(one, other):
    return (int(one, 16) ^ int(other, 16)).bit_count()


def flipped(text, bits):
    number = int(text, 16)
    for bit in bits:
        number ^= 1 << bit
    return f"{number:064x}"


@pytest.fixture(scope="module")
def radiographs(real_data):
    paths = sorted((real_data / "chest" / "images").glob("*.png"))[:40]
    return [np.asarray(Image.open(p).convert("L"), dtype=np.float32) / 255 for p in paths]


def as_jpeg(image):
    buffer = BytesIO()
    Image.fromarray(np.round(image * 255).astype(np.uint8)).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(buffer), dtype=np.float32) / 255


COPIES = {
    "written as JPEG": as_jpeg,
    "half the size": lambda image: image.reshape(160, 2, 160, 2).mean(axis=(1, 3)),
    "brighter": lambda image: np.clip(image * 1.1 + 0.05, 0, 1),
    "in a five-hundredth of the range": lambda image: image / 500,
    "in colour": lambda image: np.stack([image] * 3, axis=-1),
    "the middle of three frames": lambda image: np.stack([image[::-1], image, image.T]),
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
def test_copies_are_near_and_other_patients_are_not(radiographs, copy):
    originals = [perceptual_hash(image) for image in radiographs]
    copies = [perceptual_hash(copy(image).astype(np.float32)) for image in radiographs]
    near = near_pairs(originals + copies)
    n = len(radiographs)
    assert [tuple(pair) for pair in near] == [(i, i + n) for i in range(n)]


def test_blank_images_have_a_hash():
    assert len(perceptual_hash(np.zeros((5, 3), np.float32))) == 64


words = st.binary(min_size=32, max_size=32).map(bytes.hex)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(words, min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 255), max_size=40)), max_size=12),
    st.sampled_from([0, 15, 16, MAX_DISTANCE, 32]),
)
def test_no_pair_is_missed(originals, changes, most):
    hashes = originals + [flipped(originals[i % len(originals)], bits) for i, bits in changes]
    expected = [
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if distance(hashes[i], hashes[j]) <= most
    ]
    assert [tuple(pair) for pair in near_pairs(hashes, most)] == expected


def test_neighbours_count_only_in_another_group():
    one, other, alone = "0" * 64, "f" * 16 + "0" * 48, "0" * 32 + "f" * 32
    close = flipped(other, range(200, 220))
    hashes = [one, one, other, close, alone, None, None]
    groups = ["p1", "p1", "p1", "p2", "p3", "p4", "p5"]
    assert near_others(hashes, groups).tolist() == [False] * 2 + [True] * 2 + [False] * 3
    assert near_others(hashes, groups, 10).tolist() == [False] * 7
    assert near_others([None, None], ["a", "b"]).tolist() == [False, False]
    assert near_others([one] * 3, ["a", "b", "b"]).tolist() == [True] * 3
