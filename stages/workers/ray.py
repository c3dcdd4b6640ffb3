"""A Ray cluster that makes shards, on machines that share the project's folder."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.sharding import Shard


class RayCluster:
    """Makes shards as tasks of a Ray cluster. Ray repeats the shards of lost processes."""

    def __init__(self, address: str, workers: int) -> None:
        """`address` is "auto" for the cluster of this machine, or "local" to start one.

        A local cluster has `workers` processes and ends with the stage. Raises UserError if Ray is
        not installed.
        """
        try:
            import ray  # noqa: PLC0415  (an extra)
        except ImportError:
            raise UserError(
                "cluster.yaml: ray is set, but Ray is not installed; "
                "pip install 'deep-prompt[ray]', or remove the key"
            ) from None
        self._ray: Any = ray
        self._address = address
        local = {"num_cpus": workers, "include_dashboard": False}
        self._options: dict[str, Any] = local if address == "local" else {}

    def __call__(self, shards: Sequence[Shard], into: Path) -> None:
        """Make the shards.

        Raises UserError if the cluster is missing or a shard's process was killed repeatedly, and
        any error of a shard.
        """
        ray, project = self._ray, os.getcwd()
        search = os.pathsep.join([project, *filter(None, [os.environ.get("PYTHONPATH")])])
        variables = {
            "PYTHONPATH": search,
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
        }
        try:
            ray.init(
                self._address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                runtime_env={"env_vars": variables},
                **self._options,
            )
        except ConnectionError as error:
            raise UserError(
                f"cluster.yaml: ray: no Ray cluster at {self._address!r} ({error}); "
                "start it, or remove the key"
            ) from None
        try:
            make = ray.remote(num_cpus=1, max_retries=3)(_make)
            ray.get([make.remote(project, shard, into) for shard in shards])
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.WorkerCrashedError:
            raise UserError(
                "a shard's process was killed four times, perhaps for lack of memory; run the "
                "stage again: it keeps the finished shards"
            ) from None
        finally:
            ray.shutdown()


def _make(project: str, shard: Shard, into: Path) -> None:
    os.chdir(project)  # paths in a shard are relative to the project's folder
    shard.make(into)
