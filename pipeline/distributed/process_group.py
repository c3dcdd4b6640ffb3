"""Joining the ranks of a run, for torch and for DeepSpeed."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed

from pipeline.distributed.cluster import Ranks
from pipeline.distributed.deepspeed_setup import deepspeed
from pipeline.errors import UserError


@contextlib.contextmanager
def process_group(ranks: Ranks, timeout: float) -> Iterator[None]:
    """Join the process group (a free port of this machine's loopback for one process) and leave it in the end.

    Waiting for another rank fails after `timeout` seconds. Raises UserError where touch with another is lost.
    """
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(ranks.local_rank)
    else:
        # Else the first start compiles a C++ op for minutes that training never calls, and a kill meanwhile hangs the next.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    os.environ.setdefault(
        "LOCAL_RANK", str(ranks.local_rank)
    )  # DeepSpeed refuses to start without it
    deepspeed.utils.logger.setLevel(logging.WARNING)
    address = None if ranks.world > 1 else f"tcp://127.0.0.1:{_free_port()}"
    backend, limit = "nccl" if on_gpu else "gloo", timedelta(seconds=timeout)
    for name in (
        "default_pg_timeout",
        "default_pg_nccl_timeout",
    ):  # for DeepSpeed's own groups, which are made without one
        setattr(torch.distributed.distributed_c10d, name, limit)
    torch.distributed.init_process_group(
        backend, init_method=address, rank=ranks.rank, world_size=ranks.world, timeout=limit
    )
    deepspeed.init_distributed(dist_init_required=False, verbose=False)
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(
            error
        ):  # gloo raises none of its own
            raise
        raise UserError(
            f"lost touch with another rank ({str(error).splitlines()[0]}); see what that one or its host says, then "
            "run it again"
        ) from error
    finally:
        deepspeed.comm.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
