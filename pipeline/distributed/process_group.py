"""The process group of the ranks, for torch and for DeepSpeed."""

import contextlib
import logging
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed

from pipeline.distributed.cluster import Ranks, free_port
from pipeline.distributed.collectives import device
from pipeline.distributed.deepspeed_setup import load_deepspeed
from pipeline.errors import UserError, first_line


@contextlib.contextmanager
def process_group(ranks: Ranks, timeout: float) -> Iterator[None]:
    """Join the process group, and leave it at the end of the block.

    A single process uses a free port on the loopback interface. Waiting for another rank fails
    after `timeout` seconds. Raises UserError if the connection to another rank is lost.
    """
    deepspeed = load_deepspeed()
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(device(ranks))
    else:
        # Otherwise the first start compiles a C++ op for minutes, and a kill during that time makes
        # the next start hang. Training never calls this op.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # DeepSpeed does not start without this variable.
    os.environ.setdefault("LOCAL_RANK", str(ranks.local_rank))
    deepspeed.utils.logger.setLevel(logging.WARNING)
    address = None if ranks.world > 1 else f"tcp://127.0.0.1:{free_port('127.0.0.1')}"
    backend, limit = "nccl" if on_gpu else "gloo", timedelta(seconds=timeout)
    # DeepSpeed creates its groups without a timeout, so set the default.
    for name in ("default_pg_timeout", "default_pg_nccl_timeout"):
        setattr(torch.distributed.distributed_c10d, name, limit)
    torch.distributed.init_process_group(
        backend, init_method=address, rank=ranks.rank, world_size=ranks.world, timeout=limit
    )
    deepspeed.init_distributed(dist_init_required=False, verbose=False)
    try:
        yield
    except RuntimeError as error:
        # Gloo raises plain RuntimeErrors.
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        raise UserError(
            f"lost the connection to another rank ({first_line(error)}); "
            "read the message of that rank or its host, then run the stage again"
        ) from error
    finally:
        deepspeed.comm.destroy_process_group()
