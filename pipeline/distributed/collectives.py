"""What ranks tell each other, and where each of them computes."""

import socket

import torch
import torch.distributed
from torch import Tensor

from pipeline.distributed.cluster import Ranks


def device(ranks: Ranks) -> torch.device:
    """This rank's GPU, or the CPU."""
    return (
        torch.device("cuda", ranks.local_rank) if torch.cuda.is_available() else torch.device("cpu")
    )


def all_reduce_sum(values: Tensor, ranks: Ranks) -> Tensor:
    """The sum of a tensor over all ranks."""
    if ranks.world == 1:
        return values
    there = values.to(device(ranks))  # NCCL moves nothing that is not on a GPU
    torch.distributed.all_reduce(there)
    return there.cpu()


def all_gather_int(value: int, ranks: Ranks) -> list[int]:
    """What each rank says, in their order; all have said it when any of them knows."""
    mine = torch.tensor([value], dtype=torch.int64, device=device(ranks))
    every = [torch.empty_like(mine) for _ in range(ranks.world)]
    torch.distributed.all_gather(every, mine)
    return [int(one.item()) for one in every]


def hosts(ranks: Ranks) -> list[str]:
    """The names of the machines that the ranks run on, each once."""
    name = socket.gethostname().encode()[:64].ljust(64, b"\0")
    mine = torch.tensor(list(name), dtype=torch.uint8, device=device(ranks))
    every = [torch.empty_like(mine) for _ in range(ranks.world)]
    torch.distributed.all_gather(every, mine)
    return list(dict.fromkeys(bytes(one.tolist()).rstrip(b"\0").decode() for one in every))
