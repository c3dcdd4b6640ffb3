"""Ending with the process that started this one: a killed one stops nobody by itself."""

import ctypes
import os
import signal
import sys
from pathlib import Path


def end_with_dvc() -> None:
    """Have Linux stop this process when DVC ends; stop now if DVC has ended already."""
    if "DVC_ROOT" not in os.environ:
        return
    _end_with_parent()
    if (
        sys.platform == "linux"
        and os.getppid() == 1
        and b"dvc" not in Path("/proc/1/cmdline").read_bytes()
    ):  # an orphan's parent
        raise SystemExit(128 + signal.SIGTERM)


def end_with(parent: int) -> None:
    """The same for a parent whose id is known."""
    _end_with_parent()
    if os.getppid() != parent:
        raise SystemExit(128 + signal.SIGTERM)


def _end_with_parent() -> None:
    pr_set_pdeathsig = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
