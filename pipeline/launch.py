"""The ranks of a run: joining them, and DeepSpeed's engine around a model."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")  # else it warns of having to guess

import deepspeed
import deepspeed.comm
import deepspeed.ops

from pipeline.errors import UserError


@dataclass(frozen=True)
class Ranks:
    """This process's place among the processes that train together."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Ranks":
        """What torchrun or DeepSpeed's launcher set (RANK, WORLD_SIZE, LOCAL_RANK); one process where nothing is set."""
        return cls(int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1)), int(environment.get("LOCAL_RANK", 0)))


def device(ranks: Ranks) -> torch.device:
    """This rank's GPU, or the CPU."""
    return torch.device("cuda", ranks.local_rank) if torch.cuda.is_available() else torch.device("cpu")


@contextlib.contextmanager
def joined(ranks: Ranks) -> Iterator[None]:
    """Join the process group (a free port of this machine's loopback for one process) and leave it in the end."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(ranks.local_rank)
    else:
        # Else the first start compiles a C++ op for minutes that training never calls, and a kill meanwhile hangs the next.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    os.environ.setdefault("LOCAL_RANK", str(ranks.local_rank))  # DeepSpeed refuses to start without it
    deepspeed.utils.logger.setLevel(logging.WARNING)
    address = None if ranks.world > 1 else f"tcp://127.0.0.1:{_free_port()}"
    backend = "nccl" if on_gpu else "gloo"
    torch.distributed.init_process_group(backend, init_method=address, rank=ranks.rank, world_size=ranks.world)
    deepspeed.init_distributed(dist_init_required=False, verbose=False)
    try:
        yield
    finally:
        deepspeed.comm.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def engine_of(model: nn.Module, optimizer: torch.optim.Optimizer, micro_batches: int, clip: float, ranks: Ranks) -> Any:
    """DeepSpeed's engine: it sums the gradients of a rank's micro-batches, averages them over ranks, clips, and steps.

    Raises UserError where the ranks cannot share a step's micro-batches evenly.
    """
    if micro_batches % ranks.world:
        divisors = [str(n) for n in range(1, micro_batches + 1) if micro_batches % n == 0]
        raise UserError(f"{ranks.world} ranks cannot share the {micro_batches} micro-batches of a step evenly; "
                        f"start {' or '.join(divisors)}, or change micro_batches")
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": micro_batches // ranks.world,
        "gradient_clipping": clip,
        "zero_optimization": {"stage": 0},
        "steps_per_print": 2**31,
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    return engine


def agreed(values: dict[str, float], ranks: Ranks) -> dict[str, float]:
    """Rank 0's values, on every rank: what ranks decide alike must not hang on a last digit."""
    if ranks.world == 1:
        return values
    numbers = torch.tensor(list(values.values()), dtype=torch.float64, device=device(ranks))
    torch.distributed.broadcast(numbers, src=0)
    return dict(zip(values, numbers.tolist(), strict=True))


def summed(values: Tensor, ranks: Ranks) -> Tensor:
    """The sum of a tensor over all ranks."""
    if ranks.world == 1:
        return values
    there = values.to(device(ranks))  # NCCL moves nothing that is not on a GPU
    torch.distributed.all_reduce(there)
    return there.cpu()
