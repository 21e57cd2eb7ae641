"""Several processes that train one network: each takes a share of every batch.

A batch, its shuffling and its augmentation are those of one process; gradients are averaged over
its shares. So the result is that of one process, up to the order in which floats are summed, with
one exception: on the CPU, batch normalisation takes its statistics from a process's own share, as
torch's SyncBatchNorm, which takes them from the whole batch, works on GPUs alone.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lineage.errors import BadInput, StepFailed
from lineage.files import read_json

if TYPE_CHECKING:
    import torch

SAGEMAKER = Path("/opt/ml/input/config/resourceconfig.json")
PORT = 29500  # of the first machine; others reach it inside the job's security group only
TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
FEWEST = 2  # images of a share: batch normalisation needs more than one


@dataclass(frozen=True)
class Team:
    """Who trains together, and who of them this process is.

    Attributes:
        rank: This process's number; of several to be started on this machine, the first one's.
        size: Processes on all machines.
        local: How many are to be started on this machine; 1: this process itself takes part.
        place: Where they meet, as torch's `init_method`.
        interface: The network interface between machines; torch guesses if it is empty.
        gpu: Which one of this machine's is this process's, if there are any.
        timeout_s: How long one waits for another: for its images, or for rank 0 to validate.
    """

    rank: int = 0
    size: int = 1
    local: int = 1
    place: str = ""
    interface: str = ""
    gpu: int = 0
    timeout_s: float = 1800

    @property
    def leads(self) -> bool:
        """Whether this one validates, logs, checkpoints and exports.

        On SageMaker it is on the first machine, algo-1. All machines' /opt/ml/model are put into
        one archive, where files of the same name would clash: no other may write there.
        """
        return self.rank == 0

    @contextmanager
    def joined(self, device: "torch.device") -> Iterator[None]:
        """Meet the others, and part from them.

        Raises:
            StepFailed: Another process is gone, or does not answer in time.
        """
        if self.size == 1:
            yield
            return
        import torch
        import torch.distributed as dist

        for library in ("GLOO", "NCCL") if self.interface else ():
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", self.interface)
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(self.gpu)
        try:
            dist.init_process_group(
                "nccl" if on_gpu else "gloo",
                init_method=self.place,
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=self.timeout_s),
            )
            yield
            dist.barrier()  # who leaves first closes connections that others still read from
            dist.destroy_process_group()
        except RuntimeError as error:
            if isinstance(error, StepFailed) or not _of_another(error):
                raise
            raise StepFailed(
                f"one of the {self.size} processes that train together is gone or stuck, and its "
                "own log says why; the same command goes on from the last checkpoint"
            ) from error

    def shared(self, network: "torch.nn.Module", smallest_batch: int) -> "torch.nn.Module":
        """The network as it is called while it learns, with gradients averaged over all.

        Raises:
            BadInput: There are too many processes for the batches.
        """
        if self.size == 1:
            return network
        import torch

        if smallest_batch < FEWEST * self.size:
            raise BadInput(
                f"training.batch_size: {self.size} processes cannot share a batch of "
                f"{smallest_batch} images, each needs {FEWEST}; make it larger, or take fewer"
            )
        if next(network.parameters()).is_cuda:
            network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return torch.nn.parallel.DistributedDataParallel(network, static_graph=True)

    def reseed(self, seed: int, epoch: int) -> None:
        """Let dropout fall elsewhere in each share, and the same again after an interruption."""
        if self.rank > 0:
            import torch

            torch.manual_seed(seed + epoch * self.size + self.rank)

    def share(self, count: int) -> tuple[slice, float]:
        """This one's part of a batch, and the weight that makes the mean of all means right."""
        first, last = (count * rank // self.size for rank in (self.rank, self.rank + 1))
        return slice(first, last), (last - first) * self.size / count

    def total(self, value: float) -> float:
        """The sum of all processes' values."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        everyone = self._tensor([value])
        dist.all_reduce(everyone)
        return float(everyone)

    def told(self, values: Sequence[float]) -> list[float]:
        """What rank 0 says, however long it takes; the others give as many numbers of any kind."""
        if self.size == 1:
            return list(values)
        import torch.distributed as dist

        said = self._tensor(values)
        dist.broadcast(said, src=0)
        return [float(value) for value in said]

    def told_bytes(self, data: bytes) -> bytes:
        """The same for bytes; plain ones, where torch's own way would send a pickle."""
        if self.size == 1:
            return data
        import torch
        import torch.distributed as dist

        (length,) = self.told([len(data)])
        said = np.zeros(int(length), np.uint8)
        if self.leads:
            said[:] = np.frombuffer(data, np.uint8)
        tensor = torch.from_numpy(said).to(self._device())
        dist.broadcast(tensor, src=0)
        return bytes(tensor.cpu().numpy())

    def _tensor(self, values: Sequence[float]) -> "torch.Tensor":
        import torch

        return torch.tensor(values, dtype=torch.float64, device=self._device())

    def _device(self) -> str:
        import torch.distributed as dist

        return "cuda" if dist.get_backend() == "nccl" else "cpu"


ALONE = Team()


def find_team(device: str) -> Team:
    """The team that torchrun's variables or SageMaker's file tell of; else this machine's own.

    One process for each GPU that this one sees (`CUDA_VISIBLE_DEVICES` narrows that), and one
    where there is none. `LIGHTBOX_PROCESSES` sets another number per machine.

    Args:
        device: See `TrainingConfig.device`.

    Raises:
        BadInput: A variable or the file says something that makes no team.
    """
    if all(os.environ.get(name) for name in TORCHRUN):
        rank, size, gpu = (_number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return Team(rank=rank, size=size, place="env://", gpu=gpu)
    local = _number("LIGHTBOX_PROCESSES") or _gpus(device) or 1
    if not SAGEMAKER.exists():
        return Team(size=local, local=local)
    told = read_json(SAGEMAKER) or {}
    try:
        hosts, current = sorted(told["hosts"]), told["current_host"]
        machine = hosts.index(current)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{SAGEMAKER.name} does not list the hosts of this training job") from error
    if len(hosts) == 1:
        return Team(size=local, local=local)
    return Team(
        rank=machine * local,
        size=len(hosts) * local,
        local=local,
        place=f"tcp://{hosts[0]}:{PORT}",
        interface=told.get("network_interface_name", ""),
    )


def _number(variable: str) -> int:
    text = os.environ.get(variable) or "0"
    if not text.isdecimal():
        raise BadInput(f"{variable}: expected a number of processes, or a process's number")
    return int(text)


def _gpus(device: str) -> int:
    if device == "cpu":
        return 0
    import torch

    return int(torch.cuda.device_count())


def _of_another(error: RuntimeError) -> bool:
    """Whether an error came over the wire; gloo has no class of its own for that.

    Its messages begin with its source file, but for one: that a connection was closed since
    another thread of this process had waited too long for it.
    """
    import torch.distributed as dist

    said = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in said or "pair closure" in said
