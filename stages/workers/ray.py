"""The processes of a Ray cluster that make shards: on any number of machines that share the project's folder."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.sharding import Shard

try:
    import ray
except ImportError:
    raise UserError(
        "cluster.yaml: ray is set, but Ray is not installed; pip install 'deep-prompt[ray]'"
    ) from None


class OnRay:
    """Makes shards as tasks of a Ray cluster. Ray gives the shard of a process or a machine that is lost to another.

    `address` is "auto" for the cluster that this machine is part of, "local" for one of `workers` processes of its own, while it
    is needed.
    """

    def __init__(self, address: str, workers: int) -> None:
        self.address = address
        self.own: dict[str, Any] = (
            {"num_cpus": workers, "include_dashboard": False} if address == "local" else {}
        )

    def __call__(self, shards: Sequence[Shard], into: Path) -> None:
        """Raises UserError where there is no such cluster or a shard's process was killed again and again; and what it raised."""
        where = os.getcwd()
        search = os.pathsep.join([where, *filter(None, [os.environ.get("PYTHONPATH")])])
        variables = {
            "PYTHONPATH": search,
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
        }
        try:
            ray.init(
                self.address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                runtime_env={"env_vars": variables},
                **self.own,
            )
        except ConnectionError as error:
            raise UserError(
                f"cluster.yaml: ray: no Ray cluster at {self.address!r} ({error}); start it, or take the key "
                "out"
            ) from None
        try:
            make = ray.remote(num_cpus=1, max_retries=3)(_make)
            ray.get([make.remote(where, shard, into) for shard in shards])
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.WorkerCrashedError:
            raise UserError(
                "a shard's process was killed four times over (is there memory enough on each machine?); run it "
                "again, and it goes on from there"
            ) from None
        finally:
            ray.shutdown()


def _make(where: str, shard: Shard, into: Path) -> None:
    os.chdir(where)  # paths are relative to the project's folder
    shard.make(into)
