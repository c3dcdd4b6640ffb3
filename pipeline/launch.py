"""The ranks of a run: joining them, and DeepSpeed's engine around a model."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")  # else it warns of having to guess

import deepspeed
import deepspeed.comm
import deepspeed.ops

from pipeline.cluster import Ranks
from pipeline.errors import UserError


def device(ranks: Ranks) -> torch.device:
    """This rank's GPU, or the CPU."""
    return torch.device("cuda", ranks.local_rank) if torch.cuda.is_available() else torch.device("cpu")


@contextlib.contextmanager
def joined(ranks: Ranks, timeout: float) -> Iterator[None]:
    """Join the process group (a free port of this machine's loopback for one process) and leave it in the end.

    Waiting for another rank fails after `timeout` seconds. Raises UserError where touch with another is lost.
    """
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(ranks.local_rank)
    else:
        # Else the first start compiles a C++ op for minutes that training never calls, and a kill meanwhile hangs the next.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    os.environ.setdefault("LOCAL_RANK", str(ranks.local_rank))  # DeepSpeed refuses to start without it
    deepspeed.utils.logger.setLevel(logging.WARNING)
    address = None if ranks.world > 1 else f"tcp://127.0.0.1:{_free_port()}"
    backend, limit = "nccl" if on_gpu else "gloo", timedelta(seconds=timeout)
    for name in ("default_pg_timeout", "default_pg_nccl_timeout"):  # for DeepSpeed's own groups, which are made without one
        setattr(torch.distributed.distributed_c10d, name, limit)
    torch.distributed.init_process_group(backend, init_method=address, rank=ranks.rank, world_size=ranks.world, timeout=limit)
    deepspeed.init_distributed(dist_init_required=False, verbose=False)
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):  # gloo raises none of its own
            raise
        raise UserError(f"lost touch with another rank ({str(error).splitlines()[0]}); see what that one or its host says, then "
                        "run it again") from error
    finally:
        deepspeed.comm.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def share(micro_batches: int, ranks: Ranks) -> int:
    """How many of a step's micro-batches each rank has. Raises UserError where ranks cannot share them evenly."""
    if micro_batches % ranks.world:
        divisors = [str(n) for n in range(1, micro_batches + 1) if micro_batches % n == 0]
        raise UserError(f"{ranks.world} ranks cannot share the {micro_batches} micro-batches of a step evenly; "
                        f"start {' or '.join(divisors)}, or change micro_batches")
    return micro_batches // ranks.world


def engine_of(model: nn.Module, optimizer: torch.optim.Optimizer, micro_batches: int, clip: float, ranks: Ranks) -> Any:
    """DeepSpeed's engine: it sums the gradients of a rank's micro-batches, averages them over ranks, clips, and steps."""
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": share(micro_batches, ranks),
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


def hosts(ranks: Ranks) -> list[str]:
    """The names of the machines that the ranks run on, each once."""
    name = socket.gethostname().encode()[:64].ljust(64, b"\0")
    mine = torch.tensor(list(name), dtype=torch.uint8, device=device(ranks))
    every = [torch.empty_like(mine) for _ in range(ranks.world)]
    torch.distributed.all_gather(every, mine)
    return list(dict.fromkeys(bytes(one.tolist()).rstrip(b"\0").decode() for one in every))
