"""Communication between ranks, and the device of each rank."""

import socket

import torch
import torch.distributed
from torch import Tensor

from pipeline.distributed.cluster import Ranks
from pipeline.errors import UserError


def device(ranks: Ranks) -> torch.device:
    """Return this rank's GPU, or the CPU. Raises UserError if the machine has too few GPUs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if ranks.local_rank >= count:
        raise UserError(
            f"rank {ranks.rank} needs GPU number {ranks.local_rank + 1} of {socket.gethostname()}, "
            f"which has {count}; lower ranks in cluster.yaml, or the host's slots in the hostfile"
        )
    return torch.device("cuda", ranks.local_rank)


def all_reduce_sum(values: Tensor, ranks: Ranks) -> Tensor:
    """Return the sum of a tensor over all ranks."""
    if ranks.world == 1:
        return values
    on_device = values.to(device(ranks))  # NCCL only sends tensors on a GPU
    torch.distributed.all_reduce(on_device)
    return on_device.cpu()


def all_gather_int(value: int, ranks: Ranks) -> list[int]:
    """Return the value of each rank, in rank order. This is also a barrier."""
    return [int(tensor.item()) for tensor in _all_gather(torch.tensor([value]), ranks)]


def hosts(ranks: Ranks) -> list[str]:
    """Return the names of the ranks' machines, without repetition (64 bytes of each name)."""
    name = socket.gethostname().encode()[:64].ljust(64, b"\0")
    names = _all_gather(torch.tensor(list(name), dtype=torch.uint8), ranks)
    return list(dict.fromkeys(bytes(row.tolist()).rstrip(b"\0").decode() for row in names))


def _all_gather(tensor: Tensor, ranks: Ranks) -> list[Tensor]:
    on_device = tensor.to(device(ranks))
    gathered = [torch.empty_like(on_device) for _ in range(ranks.world)]
    torch.distributed.all_gather(gathered, on_device)
    return gathered
