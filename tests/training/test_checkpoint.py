"""A training that was killed, whenever that was, comes to what an undisturbed one comes to."""

import dataclasses
import hashlib
import json
import logging
import random
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load

sys.path.insert(0, str(Path(__file__).parent))
from killable import Trainings, lay_out

from training.checkpoint import Checkpoints
from training.fit import fit

AUGMENT = [
    {"name": "RandFlip", "args": {"prob": 0.5, "spatial_axis": 1}},
    {"name": "RandAffine", "args": {"prob": 0.7, "rotate_range": 0.1, "translate_range": [2, 2]}},
    {"name": "RandGaussianNoise", "args": {"prob": 0.5}},
]
MOMENTS = [(moment, 2) for moment in ("batch", "log", "half", "written", "saved")]
MOMENTS += [("half", 1), ("batch", 6), ("saved", 6)]  # the first one, and the end


@pytest.fixture(scope="module")
def config(tiny):
    """Draws from all generators: batch order, MONAI's nested ones, numpy's, and torch's."""
    network = tiny().network.model_dump()
    network["args"]["dropout_prob"] = 0.2
    return tiny(network=network, augment=AUGMENT)


@pytest.fixture(scope="module")
def trained():
    trainings = Trainings()
    yield trainings
    trainings.close()


@pytest.fixture(scope="module")
def undisturbed(trained, config, train, validation, tmp_path_factory):
    folder = lay_out(tmp_path_factory.mktemp("whole") / "training", config, train, validation)
    assert trained(folder) == 0
    found = result(folder)
    assert found["fresh"] == [1, 2, 3, 4, 5, 6]
    return found


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def same(found: dict, expected: dict) -> bool:
    return all(found[part] == expected[part] for part in ("weights", "history"))


@pytest.mark.parametrize(("moment", "epoch"), MOMENTS)
def test_killed_at(moment, epoch, trained, undisturbed, config, train, validation, tmp_path):
    folder = lay_out(tmp_path / "training", config, train, validation)
    assert trained(folder, die=(moment, epoch)) == -signal.SIGKILL
    assert not (folder / "result.json").exists()
    assert trained(folder) == 0
    found = result(folder)
    assert same(found, undisturbed)
    first = epoch + 1 if moment == "saved" else epoch  # the checkpoint was really used
    assert found["fresh"] == list(range(first, 7))


def test_killed_again_and_again_at_any_moment(
    trained, undisturbed, config, train, validation, tmp_path
):
    draw = random.Random(4)
    folder = lay_out(tmp_path / "training", config, train, validation)
    endings = [trained(folder, after_s=draw.uniform(0.05, 0.6)) for _ in range(6)]
    assert -signal.SIGALRM in endings
    assert trained(folder) == 0
    assert same(result(folder), undisturbed)


# --- which checkpoint is used ----------------------------------------------------------------


@pytest.fixture
def killed(trained, config, train, validation, tmp_path):
    """Where a training was killed after epoch 3, and its two checkpoints, the newer one first."""
    folder = lay_out(tmp_path / "training", config, train, validation)
    assert trained(folder, die=("saved", 3)) == -signal.SIGKILL
    older, newer = sorted((folder / "checkpoints").iterdir())  # named by epoch modulo 2
    return folder, newer, older


def epochs_learnt(trained, folder: Path) -> list[int]:
    assert trained(folder) == 0
    return result(folder)["fresh"]


@pytest.mark.parametrize("harm", ["cut", "empty", "head", "middle", "end"])
def test_of_a_damaged_one_the_one_before_is_used(harm, killed, trained, undisturbed):
    folder, newer, _ = killed
    _harm(newer, harm)
    assert epochs_learnt(trained, folder) == [3, 4, 5, 6]
    assert same(result(folder), undisturbed)


def test_of_two_damaged_ones_none_is_used(killed, trained, undisturbed):
    folder, newer, older = killed
    _harm(newer, "middle")
    _harm(older, "cut")
    assert epochs_learnt(trained, folder) == [1, 2, 3, 4, 5, 6]
    assert same(result(folder), undisturbed)


def _harm(path: Path, harm: str) -> None:
    data = bytearray(path.read_bytes())
    if harm in ("cut", "empty"):
        path.write_bytes(data[: len(data) // 2 if harm == "cut" else 0])
        return
    data[{"head": 5, "middle": len(data) // 2, "end": -1}[harm]] ^= 1
    path.write_bytes(data)


def test_those_of_another_config_or_of_other_images_are_ignored_and_said(
    killed, config, train, validation, caplog
):
    caplog.set_level(logging.WARNING)  # a command in this process may have raised it
    folder = killed[0] / "checkpoints"
    own = Checkpoints.of(folder, config, train, validation, 1)
    assert own.newest()
    assert "goes on after epoch 3" in caplog.text
    caplog.clear()
    other = config.model_copy(update={"learning_rate": 0.02})
    brighter = dataclasses.replace(train, pixels=train.pixels + 1)
    relabelled = dataclasses.replace(validation, labels=1 - validation.labels)
    for changed in (
        (other, train, validation, 1),
        (config, brighter, validation, 1),
        (config, train, relabelled, 1),
        (config, train, validation, 2),
    ):
        assert Checkpoints.of(folder, *changed).newest() == b""
    assert caplog.text.count("2 checkpoints of another config, data or code: ignored") == 4


def test_a_name_does_not_make_it_ones_own(killed, config, train, validation):
    folder = killed[0] / "checkpoints"
    other = Checkpoints.of(folder, config.model_copy(update={"seed": 9}), train, validation, 1)
    for path in folder.iterdir():
        path.rename(other.folder / path.name.replace(path.name[:16], other.belongs_to[:16]))
    assert other.newest() == b""


def test_a_finished_training_leaves_nothing_for_the_next(killed, config, train, validation):
    folder = killed[0] / "checkpoints"
    (folder / f".{killed[1].name}.123").write_bytes(b"half a")
    (folder / "others.checkpoint").write_bytes(b"another's")
    Checkpoints.of(folder, config, train, validation, 1).clear()
    assert [path.name for path in folder.iterdir()] == ["others.checkpoint"]


def test_a_place_that_cannot_be_written_costs_the_checkpoint_only(
    tiny, train, validation, tmp_path, caplog
):
    caplog.set_level(logging.WARNING)  # a command in this process may have raised it
    (tmp_path / "file").touch()
    config = tiny(max_epochs=2)
    checkpoints = Checkpoints.of(tmp_path / "file" / "below", config, train, validation, 1)
    assert len(fit(config, train, validation, checkpoints=checkpoints).history) == 2
    assert caplog.text.count("no checkpoint: Not a directory; training goes on without") == 2


def test_checkpoints_do_not_change_the_result_and_early_stopping_survives(
    tiny, train, validation, tmp_path
):
    config = tiny(max_epochs=40, patience=2)
    plain = fit(config, train, validation)
    checkpoints = Checkpoints.of(tmp_path, config, train, validation, 1)
    told = []
    for _ in range(2):  # the second finds all of it done, and no epoch too many is learnt
        again = fit(
            config, train, validation, checkpoints=checkpoints, log=lambda *a: told.append(a)
        )
        assert again.history == plain.history
        assert again.best_epoch == plain.best_epoch
        for name, weights in plain.network.state_dict().items():
            np.testing.assert_array_equal(again.network.state_dict()[name], weights)
    assert len(plain.history) < 40
    # A tracker's new run holds the epochs before, too.
    assert [epoch for epoch, _ in told] == 2 * [h["epoch"] for h in plain.history]


def test_a_file_is_its_digest_json_and_tensors(killed):
    head, told, tensors = killed[1].read_bytes().split(b"\n", 2)
    assert head.decode() == hashlib.sha256(told + b"\n" + tensors).hexdigest()
    assert [epoch["epoch"] for epoch in json.loads(told)["history"]] == [1, 2, 3]
    assert {name.split("/")[0] for name in load(tensors)} == {
        *("network", "best", "optimizer", "random")
    }
