import json

import pytest
import torch

from lineage.errors import BadInput, StepFailed
from training import distributed
from training.distributed import TORCHRUN, Team, find_team


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch, tmp_path):
    for name in (*TORCHRUN, "LOCAL_RANK", "LIGHTBOX_PROCESSES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(distributed, "SAGEMAKER", tmp_path / "resourceconfig.json")


def hosts(*names: str, current: str, **more: str) -> None:
    told = {"current_host": current, "hosts": names, **more}
    distributed.SAGEMAKER.write_text(json.dumps(told))


def test_alone_by_default():
    assert find_team("cpu") == Team()
    assert Team().leads


def test_a_number_of_processes_may_be_set(monkeypatch):
    monkeypatch.setenv("LIGHTBOX_PROCESSES", "3")
    assert find_team("cpu") == Team(size=3, local=3)


def test_torchrun_says_all(monkeypatch):
    told = ("3", "4", "10.0.0.1", "29400")
    for name, value in zip(TORCHRUN, told, strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "1")
    team = find_team("cpu")
    assert team == Team(rank=3, size=4, place="env://", gpu=1)
    assert not team.leads


def test_one_machine_of_sagemaker_is_like_any():
    hosts("algo-1", current="algo-1")
    assert find_team("cpu") == Team()


def test_machines_of_sagemaker_meet_at_the_first(monkeypatch):
    names = ("algo-2", "algo-1", "algo-10")  # sorted as text, on each machine alike
    hosts(*names, current="algo-1", network_interface_name="eth0")
    first = find_team("cpu")
    assert first == Team(size=3, place="tcp://algo-1:29500", interface="eth0")
    hosts(*names, current="algo-2", network_interface_name="eth0")
    monkeypatch.setenv("LIGHTBOX_PROCESSES", "4")  # as four GPUs would
    last = find_team("cpu")
    assert (last.rank, last.size, last.local, last.place) == (8, 12, 4, first.place)
    assert first.leads
    assert not last.leads


@pytest.mark.parametrize("text", ["{}", '{"hosts": ["algo-1"], "current_host": "algo-2"}', "["])
def test_a_file_that_lists_no_hosts_is_refused(text):
    distributed.SAGEMAKER.write_text(text)
    with pytest.raises(BadInput, match=r"resourceconfig\.json does not list the hosts"):
        find_team("cpu")


def test_what_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("LIGHTBOX_PROCESSES", "two")
    with pytest.raises(BadInput, match="LIGHTBOX_PROCESSES"):
        find_team("cpu")


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_the_whole_batch_once_and_their_weighted_means_its_mean(size):
    batch = list(range(100, 100 + 3 * size + 2))
    seen, mean = [], 0.0
    for rank in range(size):
        own, weight = Team(rank=rank, size=size).share(len(batch))
        seen += batch[own]
        mean += weight * sum(batch[own]) / len(batch[own]) / size  # torch averages over all
    assert seen == batch
    assert mean == pytest.approx(sum(batch) / len(batch))


def test_one_process_weighs_nothing():
    assert Team().share(17) == (slice(0, 17), 1.0)


def test_dropout_falls_elsewhere_in_each_share_and_again_so_after_an_interruption():
    def draws(rank: int, epoch: int) -> list[float]:
        torch.manual_seed(5)
        Team(rank=rank, size=2).reseed(5, epoch)
        return torch.rand(4).tolist()

    assert draws(0, 1) == torch.rand(4, generator=torch.Generator().manual_seed(5)).tolist()
    assert draws(1, 3) == draws(1, 3)
    assert len({tuple(draws(rank, epoch)) for rank in (0, 1) for epoch in (1, 2)}) == 3


@pytest.mark.parametrize(
    "said",  # by gloo, when the other process was stopped at a random moment of an epoch
    [
        "[third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]",
        "[third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:84] Timed out waiting 6000ms",
        "Application timeout caused pair closure",
    ],
)
def test_what_gloo_says_of_another_is_told_as_such(said, monkeypatch):
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *args, **kwargs: None)
    with (
        pytest.raises(StepFailed, match=r"one of the 2 processes .* gone or stuck"),
        Team(size=2).joined(torch.device("cpu")),
    ):
        raise RuntimeError(said)


def test_an_error_of_its_own_stays_one(monkeypatch):
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *args, **kwargs: None)
    with (
        pytest.raises(RuntimeError, match="mat1 and mat2"),
        Team(size=2).joined(torch.device("cpu")),
    ):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
