"""Two real processes on this machine, over gloo; a start costs seconds, so there are few."""

import multiprocessing
import os
import signal

import numpy as np
import pytest

from lineage.errors import BadInput, StepFailed
from training.checkpoint import Checkpoints
from training.distributed import Team
from training.fit import fit
from training.launch import fit_apart

TWO = Team(size=2, local=2)


def weights(fitted) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in fitted.network.state_dict().items()}


def send(rank: int, what: signal.Signals) -> None:
    """To one of the processes that train."""
    members = sorted(multiprocessing.active_children(), key=lambda process: process.pid)
    assert len(members) == 2
    os.kill(members[rank].pid, what)


def test_two_come_to_what_one_comes_to_up_to_the_order_of_sums(tiny, train, validation):
    """Without batch normalisation, whose statistics are those of a share; 1.2e-7 was seen."""
    network = tiny().network.model_dump()
    network["args"]["norm"] = ["group", {"num_groups": 2}]
    config = tiny(network=network, batch_size=15)  # shares of 7 and 8
    one = fit(config, train, validation)
    told, logged = [], []
    two = fit_apart(
        config,
        train,
        validation,
        team=TWO,
        report=lambda *a: told.append(a),
        log=lambda *a: logged.append(a),
    )
    for name, value in weights(one).items():
        np.testing.assert_allclose(weights(two)[name], value, atol=1e-5, err_msg=name)
    for ours, theirs in zip(two.history, one.history, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert two.best_epoch == one.best_epoch
    assert not two.network.training
    assert [{"epoch": epoch, **metrics} for epoch, metrics in logged] == two.history
    assert [done for done, _, _ in told] == [1, 2, 3, 4, 5, 6]


def test_a_killed_process_ends_all_and_the_next_try_goes_on(tiny, train, validation, tmp_path):
    """With batch normalisation and dropout: another result than of one process, but one result."""
    network = tiny().network.model_dump()
    network["args"]["dropout_prob"] = 0.2
    config = tiny(network=network, batch_size=15)  # shares differ, and so do draws of dropout
    whole = fit_apart(config, train, validation, team=TWO)
    assert whole.history[-1]["validation_auroc"] > 0.9

    checkpoints = Checkpoints.of(tmp_path, config, train, validation, processes=2)
    heard = []

    def kill(epoch: int, metrics: dict[str, float]) -> None:
        heard.append(epoch)
        if len(heard) == 1:
            send(1, signal.SIGKILL)

    with pytest.raises(StepFailed, match=r"one of the 2 processes .* goes on from the last"):
        fit_apart(config, train, validation, team=TWO, checkpoints=checkpoints, log=kill)
    assert not multiprocessing.active_children()
    again = fit_apart(config, train, validation, team=TWO, checkpoints=checkpoints)
    assert again.history == whole.history
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(weights(again)[name], value)


def test_a_stuck_process_ends_all_in_time(tiny, train, validation):
    stopped = []

    def stop(epoch: int, metrics: dict[str, float]) -> None:
        if not stopped:
            send(0, signal.SIGSTOP)
            stopped.append(epoch)

    with pytest.raises(StepFailed, match="gone or stuck"):
        fit_apart(
            tiny(max_epochs=100_000, patience=100_000),
            train,
            validation,
            team=Team(size=2, local=2, timeout_s=30),
            log=stop,
        )
    assert stopped
    assert not multiprocessing.active_children()


def test_what_a_process_refuses_is_refused_in_its_words(tiny, train, validation):
    with pytest.raises(BadInput, match=r"training\.batch_size: 2 processes cannot share .* of 3"):
        fit_apart(tiny(batch_size=3), train, validation, team=TWO)
