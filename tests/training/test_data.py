import numpy as np
import pandas as pd
import pytest
from PIL import Image

from imaging.config import Transform
from imaging.preprocess import compose
from lineage.errors import BadInput, StepFailed
from training.data import GROUP, Batches, Images, load_split


def images(count: int, size: int = 4) -> Images:
    """Image i holds i everywhere, so that a batch says which images are in it."""
    pixels = np.broadcast_to(
        np.arange(count, dtype=np.float32)[:, None, None, None], (count, 1, size, size)
    )
    names = [str(i) for i in range(count)]
    return Images(pixels.copy(), np.arange(count) % 2, names, names)


@pytest.fixture
def snapshot(tmp_path):
    """Four 8-bit pictures; picture i holds 10 * i. Picture 3 is larger."""
    rows = []
    for i, side in enumerate(["train", "train", "validation", "test"]):
        size = 6 if i < 3 else 9
        Image.fromarray(np.full((size, size), 10 * i, np.uint8)).save(tmp_path / f"{i}.png")
        rows.append((f"u{i}", f"p{i}", side, i % 2, f"{i}.png"))
    columns = ["instance_uid", "patient_id", "split", "label", "path"]
    return tmp_path, pd.DataFrame(rows, columns=columns)


def test_loads_one_side_preprocessed(snapshot):
    seen = []
    shift = compose([Transform(name="ShiftIntensity", args={"offset": 1.0})])
    loaded = load_split(*snapshot, "train", shift, lambda *a: seen.append(a))
    assert loaded.pixels.dtype == np.float32
    assert loaded.pixels.shape == (2, 1, 6, 6)
    assert loaded.shape == (1, 6, 6)
    np.testing.assert_allclose(loaded.pixels[:, 0, 0, 0], [1, 1 + 10 / 255])
    assert loaded.labels.tolist() == [0, 1]
    assert (loaded.instance_uids, loaded.patient_ids) == (["u0", "u1"], ["p0", "p1"])
    assert seen == [(1, 2, "train"), (2, 2, "train")]


@pytest.mark.parametrize(
    ("side", "counts"),
    [("validation", "0 positive and 1 negative"), ("nowhere", "0 positive and 0 negative")],
)
def test_a_side_needs_both_classes(snapshot, side, counts):
    with pytest.raises(StepFailed, match=f"the {side} split has {counts}"):
        load_split(*snapshot, side, compose([]))


def test_sizes_must_agree(snapshot):
    directory, splits = snapshot
    with pytest.raises(BadInput, match=r"different sizes.*add a Resize"):
        load_split(directory, splits.assign(split="train"), "train", compose([]))


def test_an_epoch_holds_every_image_once_in_even_batches():
    batches = Batches(images(33), [], batch_size=16, seed=0)
    first, second = (list(batches.epoch()) for _ in range(2))
    assert len(batches) == len(first) == 3
    assert [len(pixels) for pixels, _ in first] == [11, 11, 11]  # not 16, 16 and a lone one
    orders = [np.concatenate([p[:, 0, 0, 0] for p, _ in epoch]) for epoch in (first, second)]
    assert sorted(orders[0]) == list(range(33))
    assert orders[0].tolist() != orders[1].tolist()
    for pixels, labels in first:
        assert (pixels[:, 0, 0, 0] % 2 == labels).all()


def test_augmentation_is_seeded_and_leaves_the_stored_images_alone():
    data = images(20)
    noise = [Transform(name="RandGaussianNoise", args={"prob": 1.0})]

    def epochs(seed):
        batches = Batches(data, noise, batch_size=20, seed=seed)
        return np.concatenate([p for _ in range(2) for p, _ in batches.epoch()])

    np.testing.assert_array_equal(epochs(1), epochs(1))
    assert np.abs(epochs(1) - epochs(2)).max() > 0
    np.testing.assert_array_equal(data.pixels, images(20).pixels)


def test_one_draw_serves_a_group():
    shift = [Transform(name="RandShiftIntensity", args={"offsets": 100.0, "prob": 1.0})]
    data = images(3 * GROUP)
    ((pixels, _),) = Batches(data, shift, batch_size=len(data), seed=0).epoch()
    offsets = pixels[:, 0, 0, 0] - np.random.default_rng(0).permutation(len(data))
    groups = offsets.reshape(3, GROUP)
    np.testing.assert_allclose(groups, np.repeat(groups[:, :1], GROUP, axis=1), atol=1e-4)
    assert len(set(groups[:, 0].round(3))) == 3


def test_an_augmentation_may_not_change_the_size():
    pad = [Transform(name="SpatialPad", args={"spatial_size": [9, 9]})]
    with pytest.raises(BadInput, match=r"training\.augment turns images of \(4, 4\) into \(9, 9\)"):
        list(Batches(images(8), pad, batch_size=8, seed=0).epoch())
